"""The shape of the code: who may import whom, and how long a file or function may be."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gill_lite

PACKAGE = Path(gill_lite.__file__).parent
ROOT = PACKAGE.parent
# A floor's rooms import from themselves and from the rooms on the floors above it in this list.
ROOMS = [
    {"errors"},
    {"files", "profiles"},
    {"provenance"},
    {"model"},  # knows no world
    {"world", "datasets"},
    {"pretraining"},
    {"answering"},  # knows nothing of training
    {"training"},
    {"report"},
    {"evaluation"},
    {"family"},  # the systems around GILL
    {"experiments", "course", "fetching", "demo"},
    {"cli", "__main__", ""},
]
FILE_LINES, FUNCTION_LINES, CELL_LINES = 300, 40, 20
HEAVY = ("torch", "transformers", "diffusers", "pandas", "matplotlib")
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """evaluate.run for gill_lite/evaluation/run.py; "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


NAMES = {name_of(path) for path in FILES}


def floor_of(name: str) -> int:
    [floor] = [i for i, rooms in enumerate(ROOMS) if name.split(".")[0] in rooms]
    return floor


def imported(path: Path) -> set[str]:
    """Our own modules that a file imports anywhere, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    ours = {name.removeprefix("gill_lite.") for name in found if name.startswith("gill_lite.")}
    return ours & NAMES


def test_every_room_has_one_floor():
    rooms = [name for floor in ROOMS for name in floor]
    assert sorted(rooms) == sorted({name.split(".")[0] for name in NAMES})


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_from_its_room_and_the_floors_below_it(path):
    below = {name for name in imported(path) if floor_of(name) > floor_of(name_of(path))}
    assert not below, f"{name_of(path)} imports {', '.join(sorted(below))} from below"


def test_nothing_imports_lab():
    users = [name_of(path) for path in FILES if "lab" in imported(path)]
    assert users == []


def test_the_import_rule_can_tell(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from gill_lite.evaluation import run\n")
    assert "evaluation.run" in imported(file)
    assert floor_of("evaluation.run") > floor_of("model.tokens")


def code_lines(node: ast.AST) -> int:
    """Lines of a function's body without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_can_be_read_in_one_sitting(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= FILE_LINES
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    long = {f.name: code_lines(f) for f in functions if code_lines(f) > FUNCTION_LINES}
    assert not long, f"{name_of(path)}: {long}"


def test_the_package_alone_loads_none_of_the_heavy_libraries():
    code = "import sys, gill_lite, gill_lite.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert not set(HEAVY) & set(loaded.stdout.split()), "help and errors must come at once"


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_has_nothing_to_say(check):
    pytest.importorskip("ruff", reason="ruff is a development dependency")
    command = [sys.executable, "-m", "ruff", *check, "--no-cache", "."]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.slow
def test_types_fit():
    pytest.importorskip("mypy", reason="mypy is a development dependency")
    cache = [] if os.access(ROOT, os.W_OK) else [f"--cache-dir={os.devnull}"]
    command = [sys.executable, "-m", "mypy", *cache]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert said.returncode == 0, said.stdout + said.stderr
