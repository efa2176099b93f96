"""The project as a package: installs once, from one lock, with cheap imports."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import gill_lite
from gill_lite.model.backbones import check_files
from tests.helpers.places import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = (
    *("install", "reproduce", "test", "lab", "demo", "pretrain", "notebooks"),
    *("student", "teacher", "bench", "site", "help", "clean"),
)


def lock_lines() -> list[str]:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]


def pins_for(**environment) -> dict[str, str]:
    """Name to version of what the lock installs in that environment."""
    pins = {}
    for requirement in map(Requirement, lock_lines()):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in pins, f"{name} is pinned twice for {environment}"
            pins[name] = str(requirement.specifier).removeprefix("==")
    return pins


LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"}
MAC = {"sys_platform": "darwin", "platform_machine": "arm64", "os_name": "posix"}
WINDOWS = {"sys_platform": "win32", "platform_machine": "AMD64", "os_name": "nt"}
PLATFORMS = [
    {**system, "python_version": python, "python_full_version": f"{python}.5"}
    for system in (LINUX, MAC, WINDOWS)
    for python in ("3.11", "3.12", "3.13")
]


def test_import_is_cheap():
    code = (
        "import sys, time; t = time.perf_counter(); import gill_lite, gill_lite.cli.main; "
        "gill_lite.cli.main.build_parser(); t = time.perf_counter() - t; "
        "heavy = {'torch', 'transformers', 'diffusers', 'matplotlib', 'pandas'} & set(sys.modules);"
        "print(t); sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0


def test_lazy_names_are_defined_where_the_package_says():
    for name, module in gill_lite._HOME_OF.items():
        tree = ast.parse(
            (ROOT / "gill_lite" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        )
        defined = {node.name for node in tree.body if hasattr(node, "name")}
        for node in tree.body:
            if isinstance(node, ast.Assign):
                defined |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        assert name in defined, f"gill_lite.{name} is not in {module}.py"
    face = ast.parse(Path(gill_lite.__file__).read_text(encoding="utf-8"))
    shown = {
        alias.asname: node.module.removeprefix("gill_lite.")
        for node in ast.walk(face)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("gill_lite.")
        for alias in node.names
    }
    assert shown == gill_lite._HOME_OF, "what editors read is what Python loads"
    assert gill_lite.get_profile("mini") is gill_lite.MINI
    with pytest.raises(AttributeError, match="no attribute 'Gil'"):
        gill_lite.Gil  # noqa: B018


def test_every_import_is_a_declared_dependency():
    imported = set()
    for path in (ROOT / "gill_lite").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in names}
    outside = imported - set(sys.stdlib_module_names) - {"gill_lite"}
    dist = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "faiss": "faiss-cpu"}
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    dependencies = [*project["dependencies"], *extras["demo"], *extras["faiss"]]
    declared = {canonicalize_name(Requirement(line).name) for line in dependencies}
    assert {canonicalize_name(dist.get(name, name)) for name in outside} <= declared
    assert "torch" in outside


def test_nothing_imports_lab():
    for path in (ROOT / "gill_lite").rglob("*.py"):
        assert "gill_lite.course.lab" not in path.read_text(encoding="utf-8"), path
        assert "gill_lite import lab" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("environment", PLATFORMS, ids=lambda e: " ".join(e.values()))
def test_lock_holds_every_dependency_in_range(environment):
    pins = pins_for(**environment)
    project = PYPROJECT["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_lock_is_exact_and_names_no_host():
    for line in lock_lines():
        requirement = Requirement(line)
        assert [s.operator for s in requirement.specifier] == ["=="], line
        assert requirement.url is None and "--" not in line, line
    gpu = [name for name in pins_for(**PLATFORMS[0]) if name.startswith("nvidia-")]
    assert gpu and not set(gpu) & set(pins_for(**PLATFORMS[3])), "GPU libraries on macOS"


def test_environment_yml_reads_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip_section,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip_section == ["-r requirements.lock", "-e ."]
    plain = [d for d in environment["dependencies"] if isinstance(d, str)]
    assert "pip" in plain
    (python,) = [d.removeprefix("python") for d in plain if d.startswith("python")]
    allowed = SpecifierSet(PYPROJECT["project"]["requires-python"])
    versions = [f"3.{minor}" for minor in range(8, 20)]
    of_conda = [v for v in versions if SpecifierSet(python).contains(v)]
    assert of_conda and of_conda[0] == next(v for v in versions if allowed.contains(v))


WAYS_IN = (
    *("Dockerfile", ".devcontainer/devcontainer.json", "binder/postBuild"),
    ".github/workflows/site.yml",
)


@pytest.mark.parametrize("name", WAYS_IN)
def test_containers_install_the_cpu_build_by_commands_there_are(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\bmake ([a-z]+)", text)
    assert targets and set(targets) <= set(TARGETS)
    assert "CPU=1" in text and "http" not in text
    if name.endswith(".json"):
        json.loads(text)
    if name.endswith(".yml"):
        assert "publish" in yaml.safe_load(text)["jobs"]
    if name.startswith("binder"):
        assert os.access(ROOT / name, os.X_OK)


@pytest.mark.slow
def test_an_installed_wheel_answers_where_its_weights_are_named(tmp_path):
    source, wheels, elsewhere = (tmp_path / name for name in ("source", "wheels", "elsewhere"))
    shutil.copytree(ROOT / "gill_lite", source / "gill_lite")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    quiet = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*quiet, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source)]
    subprocess.run(build, check=True)
    (wheel,) = wheels.iterdir()
    subprocess.run(
        [*quiet, "install", "--no-deps", "--target", str(elsewhere), str(wheel)], check=True
    )
    for name in ("py.typed", "report/page.html.j2"):
        assert (elsewhere / "gill_lite" / name).is_file()

    code = (
        "from gill_lite import load_responder as load\n"
        "print(load().respond(['do you like it ?']).text)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GILL_LITE_DATA"}
    environment["PYTHONPATH"] = str(elsewhere)

    def said(**more):
        return subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True,
                              text=True, env=environment | more)  # fmt: skip

    without = said().stderr.splitlines()[-1]
    assert f"no folder {elsewhere / 'data'}" in without and "GILL_LITE_DATA" in without
    answer = said(GILL_LITE_DATA=str(ROOT / "data"))
    assert answer.returncode == 0 and answer.stdout.strip(), answer.stderr


def test_citation_has_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == gill_lite.__version__
    assert citation["license"] == PYPROJECT["project"]["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_ci_runs_the_tests_and_nothing_else():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line and line[0] != "#"]
    assert commands[0] == "set -eu" and commands[-1] == "exec make test"
    assert [line for line in commands if "make" in line] == ["exec make test"]


# ---- the Makefile, with a pretended environment ----


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile, lock and pyproject, and an environment that only logs."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name in ("python", "pip", "gill-lite", "jupyter"):
        (commands / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/log"\n')
        (commands / name).chmod(0o755)
    return tmp_path


def make(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess, str]:
    """Run make in `folder`; returns the result and what the pretended commands logged."""
    (folder / "log").write_text("")
    if not (folder / "python").exists():
        (folder / "python").symlink_to(sys.executable)  # whose own folder may have a space
    outer = ("MFLAGS", "ARGS")  # of a make that runs the tests
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k not in outer}
    done = subprocess.run(
        ["make", "PYTHON=./python", *arguments],
        cwd=folder,
        env=inherited,
        capture_output=True,
        text=True,
    )
    return done, (folder / "log").read_text()


def test_help_lists_every_target(checkout):
    done, log = make(checkout, "help")
    assert sorted(line.split()[1] for line in done.stdout.splitlines()) == sorted(TARGETS)
    assert log == "", "help must not install anything"


def test_reproduce_installs_only_when_the_lock_changed(checkout):
    lock = checkout / "requirements.lock"
    done, log = make(checkout, "reproduce")
    assert done.returncode == 0, done.stderr
    assert "install --disable-pip-version-check -r requirements.lock" in log
    assert log.splitlines()[-1] == "gill-lite reproduce"
    done, log = make(checkout, "reproduce", "OUT=runs/mine")
    assert log.splitlines() == ["gill-lite reproduce -o runs/mine"]
    os.utime(lock, (lock.stat().st_atime + 60, lock.stat().st_mtime + 60))
    _, log = make(checkout, "reproduce")
    assert "-r requirements.lock" not in log, "touched, not changed"
    lock.write_text(lock.read_text() + "# changed\n")
    os.utime(lock, (lock.stat().st_atime + 120, lock.stat().st_mtime + 120))
    _, log = make(checkout, "reproduce")
    assert "-r requirements.lock" in log


def test_a_failed_install_is_tried_again(checkout):
    python = checkout / ".venv" / "bin" / "python"
    working = python.read_text()
    python.write_text(working + "exit 1\n")
    done, _ = make(checkout, "reproduce")
    assert done.returncode != 0
    python.write_text(working)
    done, log = make(checkout, "reproduce")
    assert done.returncode == 0 and "-r requirements.lock" in log


def test_the_cpu_build_leaves_the_gpu_libraries_out(checkout):
    python = checkout / ".venv" / "bin" / "python"
    asked = checkout / "asked"
    python.write_text(python.read_text() + f'[ "$2" != uv ] || cat > "{asked}"\n')
    done, log = make(checkout, "install", "CPU=1")
    assert done.returncode == 0, done.stderr
    assert "-m uv pip install --python .venv/bin/python --torch-backend=cpu -r -" in log
    assert "pip install --disable-pip-version-check -r requirements.lock" not in log
    lines = [line for line in asked.read_text().splitlines() if line.strip()[:1] not in ("", "#")]
    kept = {canonicalize_name(Requirement(line).name) for line in lines}
    left_out = {canonicalize_name(Requirement(line).name) for line in lock_lines()} - kept
    assert {"torch", "torchvision"} <= kept and "nvidia-cudnn-cu13" in left_out
    assert all(re.match(r"(nvidia|cuda|triton)\b", name) for name in left_out)
    _, log = make(checkout, "student")
    assert log.splitlines() == ["python -m gill_lite.course.hand_out student"], "installed for all"


def test_a_pip_that_installs_for_the_user_does_not_here(checkout, monkeypatch):
    monkeypatch.setenv("PIP_USER", "1")
    python = checkout / ".venv" / "bin" / "python"
    python.write_text(python.read_text() + f'echo "user: $PIP_USER." >> "{checkout}/log"\n')
    _, log = make(checkout, "student")
    assert "user: 0." in log and "user: 1." not in log


def test_lab_and_site_pass_their_options_on(checkout):
    _, log = make(checkout, "lab", "FOLDER=my/gill", "ARGS=--allow-root --no-browser")
    copied, opened = log.splitlines()[-2:]
    assert copied == "python -m gill_lite.course.hand_out student my/gill"
    assert "root_dir=my/gill" in opened
    assert opened.endswith("=/lab/tree/notebooks --allow-root --no-browser")
    _, log = make(checkout, "site", "ARGS=-E")
    assert log.startswith("python -m sphinx -M html . runs/site -c docs ") and log.endswith(" -E\n")


def test_make_test_runs_units_then_notebooks(checkout):
    _, log = make(checkout, "test")
    assert log.splitlines()[-2:] == [
        "python -m pytest -n 2 --dist loadfile tests",
        "python -m pytest -n 2 --dist loadscope --nbval --nbval-current-env "
        "--nbval-kernel-startup-timeout 300 notebooks",
    ]


@pytest.mark.parametrize("target", sorted({*TARGETS} - {"help", "install", "clean"}))
def test_every_target_passes_its_options_on(checkout, target):
    done, log = make(checkout, target, "ARGS=--its own")
    assert done.returncode == 0 and "--its own" in log, done.stderr


def test_an_old_python_is_refused_in_one_sentence(checkout):
    done, log = make(checkout, "test", "PYTHON=false")
    assert done.returncode == 2 and log == ""
    assert done.stderr.count("gill-lite needs Python 3.11 or newer and 'false' is not one") == 1


# ---- the clone is enough ----


@pytest.mark.slow
def test_a_clone_that_converts_line_ends_keeps_every_hash(tmp_path):
    ours = tmp_path / "gitconfig"
    ours.write_text("[safe]\n\tdirectory = *\n")  # whoever owns this copy
    command = ["git", "-c", "core.autocrlf=true", "clone", "--quiet", "--depth=1"]
    done = subprocess.run(
        [*command, f"file://{ROOT}", tmp_path / "clone"], capture_output=True, text=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": str(ours)},
    )  # fmt: skip
    if "not appear to be a git repository" in done.stderr:
        pytest.skip("this copy was not cloned")
    assert done.returncode == 0, done.stderr
    check_files(tmp_path / "clone/data/mini")


def test_no_configuration_and_no_results_name_a_folder_of_another_machine():
    folder = re.compile(r'"([^"]* )?(/|~|[A-Z]:\\\\)')  # a text, or a word of one, that is a path
    files = [p for name in ("data", "results") for p in (ROOT / name).rglob("*.json")]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    assert len(texts) > 40
    assert not [path for path, text in texts.items() if folder.search(text)]
    assert not [path for path, text in texts.items() if "_name_or_path" in text]
