"""Where a command runs: no network, read-only folders, odd paths, another locale."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gill_lite import provenance
from gill_lite.cli import main as cli
from gill_lite.errors import GillError
from gill_lite.evaluation import cache
from gill_lite.experiments import reproduce
from gill_lite.files import read_json, sha256, write_json
from gill_lite.model.backbones import check_files
from gill_lite.training import processes
from tests.helpers import tiny_evaluation
from tests.helpers.places import ROOT
from tests.helpers.pretended import pretend_repository, write_notebook
from tests.helpers.tiny_commands import Disk, sentence, small_joints, small_probes, train_options

ODD = Path("mit Leerzeichen, Komma", "été ❄ 雪")


# ---- no network ----------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """There is no network; what was tried to reach nevertheless."""
    asked = []

    def refuse(*given, **named):
        asked.append(given[-1] if isinstance(given[0], socket.socket) else given[0])
        raise OSError(101, "Network is unreachable")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return asked


def test_mini_asks_for_no_network_and_runs_in_any_folder(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["chat", "a big red ball at the beach"]) == 0
    assert "generated: runs/chat/turn01_2_generated1.png" in capsys.readouterr().out
    assert Path("runs/chat/turn01_2_generated1.png").is_file()
    options = ["--num-dialogues=1", "--seeds=0", "--cache=drawn", "-o", "out"]
    assert cli.main(["evaluate", "2", *options]) == 0
    assert read_json("out/results/table2_visdial.json")["counts"]["scored"] > 5
    assert asked == []


def test_the_command_that_restores_a_weight_runs_from_anywhere(tmp_path):
    """Also where the folder has a space and quotes, and the file's own folder is gone."""
    clone = tmp_path / "mine & 'yours'"
    (clone / "lm").mkdir(parents=True)
    write_json(clone / "lm" / "config.json", {"a": 1})
    about = {"bytes": 1, "sha256": sha256(clone / "lm" / "config.json")}
    write_json(clone / "manifest.json", {"files": {"lm/config.json": about}})
    for typed in ("init -q", "add .", "-c user.name=a -c user.email=b commit -qm c"):
        subprocess.run(["git", *typed.split()], cwd=clone, check=True)
    shutil.rmtree(clone / "lm")
    with pytest.raises(GillError, match="config.json is missing") as caught:
        check_files(clone)
    command = str(caught.value).split("`")[1]
    assert subprocess.run(command, shell=True, cwd="/").returncode == 0
    assert read_json(clone / "lm" / "config.json") == {"a": 1}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], ("lm", "facebook/opt-6.7b", "opt", 13.3)),
        (["lm"], ("vision", "openai/clip-vit-large-patch14", "clip", 1.7)),
        (["lm", "vision"], ("diffusion", "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd", 4.3)),
    ],
    ids=["lm", "vision", "diffusion"],
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_the_paper_profile_without_its_weights(
    typed, asked, tmp_path, monkeypatch, capsys, command, given, said
):
    """What is missing, how large it is, and which command brings it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("time.sleep", lambda _: None)  # the hub's library tries for 20 seconds
    monkeypatch.setattr("logging.raiseExceptions", False)  # its handler may hold a closed stream
    kept = [word for word in typed[command] if word.split("=")[0][2:] not in LEFT_OUT]
    named = [word for word in typed[command] if word.split("=")[0][2:] in given]
    assert cli.main([*kept, *named, "-o", str(tmp_path / "out")]) == 2
    what, name, fetch, size = said
    told = sentence(capsys)
    assert told.startswith(f"the {what} weights '{name}' cannot be loaded (")
    assert f"`gill-lite fetch {fetch}` brings them ({size} GB) or tells what is in the way;" in told
    assert told.endswith("--profile mini needs no download")


LEFT_OUT = ("lm", "vision", "diffusion")


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """Commands of the paper profile on tiny models and few pictures."""
    folder = tmp_path_factory.mktemp("tiny")
    photos, models = tiny_evaluation.photographs(folder, 2, 0), tiny_evaluation.save_paper(folder)
    evaluate = ["evaluate", "2", *photos, *models, f"--cache={folder / 'cache'}"]
    return {"train": train_options(tmp_path_factory.mktemp("train")), "evaluate": evaluate}


# ---- folders that cannot be written to -----------------------------------------------------

COMMANDS = {
    "train": lambda typed, out: [*typed["train"], "-o", f"{out}/o"],
    "evaluate": lambda typed, out: [*typed["evaluate"], "-o", f"{out}/o"],
    "mini": lambda typed, out: ["evaluate", "1", "--num-stories=1", "-o", f"{out}/o"],
    "pretrain": lambda typed, out: ["pretrain", "probes", f"--work-dir={out}/w", f"-o={out}/o"],
    "reproduce": lambda typed, out: ["reproduce", "-o", f"{out}/o"],
    "export": lambda typed, out: ["export", f"{out}/o", "--num-stories=1"],
    "fetch": lambda typed, out: ["fetch", "vist", f"--data-dir={out}/o"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["a file", "read-only"])
def test_an_output_folder_that_cannot_be(typed, tmp_path, monkeypatch, capsys, command, place):
    small_joints(monkeypatch)
    small_probes(monkeypatch)
    out, disk = tmp_path / "out", None
    if place == "a file":
        out.write_text("mine")
    else:
        disk = Disk(out, monkeypatch)
        if not disk.real:
            pytest.skip("no disk can be mounted here, and the superuser may write everywhere")
        subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
    try:
        assert cli.main(COMMANDS[command](typed, out)) == 2
        told = sentence(capsys)
    finally:
        if disk:
            disk.away()
    reasons = ("Not a directory", "is not a folder", "File exists")
    assert any(reason in told for reason in (("Read-only file system",) if disk else reasons))
    assert os.path.relpath(out) in told or str(out) in told
    assert "another" in told and "free some space" not in told
    assert disk or out.read_text() == "mine"


def read_only(dir):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_read_only_installation_names_and_takes_other_folders(tmp_path, monkeypatch, capsys):
    """Reports go where they are asked to, and pictures into the user's own cache."""
    pretend_repository(tmp_path, monkeypatch)
    monkeypatch.setattr(provenance, "repository_root", lambda: tmp_path / "repo")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.default_cache() == tmp_path / "repo" / "runs" / "cache"
    may = os.access
    refused = lambda path, mode: "repo" not in Path(path).parts and may(path, mode)  # noqa: E731
    monkeypatch.setattr(os, "access", refused)
    monkeypatch.setattr(reproduce, "default_output_dir", lambda: tmp_path / "repo" / "runs" / "x")
    monkeypatch.setattr(reproduce.tempfile, "TemporaryFile", read_only)
    assert cli.main(["reproduce", "--tables", "1"]) == 2
    assert sentence(capsys) == (
        "repo/runs/x cannot be written to (Read-only file system): name another folder with -o."
    )
    assert cache.default_cache() == tmp_path / "home" / ".cache" / "gill-lite" / "cache"
    monkeypatch.setenv("HOME", str(tmp_path / "repo"))
    assert cache.default_cache().is_relative_to(tempfile.gettempdir())


READ_ONLY = """
mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 77
exec "$1" -c "
import sys
from pathlib import Path
from gill_lite.cli.main import main
from gill_lite.course.kernels import execute
execute(Path('$0/notebooks/19_assemble_report.ipynb'), Path('19.ipynb'), {}, progress=False)
assert main(['reproduce', '--tables=1']) == 2
sys.exit(main(['evaluate', '2', '--num-dialogues=1', '--seeds=0', '-o', 'out']))
"
"""


def test_the_installed_package_writes_nothing_beside_itself(tmp_path):
    """The whole installation on a disk that is read-only, even to the superuser."""
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_VERSION", None)  # as a reader runs it
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("no disk can be mounted here, and the superuser may write everywhere")
    command = ["unshare", "-m", "sh", "-c", READ_ONLY, str(ROOT), sys.executable]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("the installation cannot be mounted read-only here")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "(Read-only file system): name another folder with -o." in done.stderr
    assert (tmp_path / "out" / "results" / "table2_visdial.json").is_file()
    mine = tmp_path / ".cache" / "gill-lite" / "notebook-19"
    assert (mine / "report.html").is_file()
    told = f"this clone is read-only: what is made goes to {mine}"
    assert told in (tmp_path / "19.ipynb").read_text()
    assert list((tmp_path / ".cache" / "gill-lite").rglob("*.safetensors"))


# ---- what a cluster sets -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE=2, RANK=0: this is to be one of several"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "unset these variables, or use `accelerate launch`"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: this is to be one of several processes"),
        (
            {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
            "gill-lite: VIST file no.json is mis",
        ),
        ({"LOCAL_RANK": "0"}, "gill-lite: VIST file no.json is missing; check the path"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "evaluate takes --shard i/n\ngill-lite: VIST file no.json"),
    ],
    ids=["world", "mpi", "broken", "world of one", "rank alone", "slurm"],
)
def test_what_a_cluster_sets_is_heard_or_named(tmp_path, environment, said):
    keep = {k: v for k, v in os.environ.items() if k not in (*processes.SIZES, *processes.RANKS)}
    command = [sys.executable, "-m", "gill_lite", "evaluate", "1", "--vist-json=no.json"]
    command += ["--vist-images=.", "-o", str(tmp_path / "out")]
    environment = {**keep, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert said in done.stderr


# ---- odd paths -----------------------------------------------------------------------------


def test_paths_with_spaces_and_signs(tmp_path, monkeypatch, capsys):
    """Relative ones, from a folder that has such a name itself."""
    (tmp_path / ODD).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / ODD)
    small_joints(monkeypatch)
    here = Path("Modelle & Bilder ♥")
    here.mkdir()
    assert cli.main([*train_options(here), "-o", "Gelenke für später"]) == 0
    given = [*tiny_evaluation.photographs(here, 2, 0), *tiny_evaluation.save_paper(here)]
    assert cli.main(["evaluate", "1", *given, "--cache=☃", "-o", "Tabelle 1"]) == 0
    assert list(Path("☃").rglob("*.safetensors")) and Path("Tabelle 1/results").is_dir()
    told = capsys.readouterr().out
    assert "the joints are in Gelenke für später" in told
    assert f"{tmp_path / ODD / 'Tabelle 1'}/results/table1_vist.json" in told
    assert cli.main(["export", "Welt ☀", "--num-captions=2"]) == 0
    assert cli.main(["train", "--captions", "nirgends ♥.tsv", "--images", "."]) == 2
    assert sentence(capsys) == "caption file nirgends ♥.tsv is missing; check the path"


def test_a_reproduction_in_an_odd_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / ODD).mkdir(parents=True)
    pretend_repository(tmp_path / ODD, monkeypatch)
    write = "import pathlib; pathlib.Path(output_dir, 'geschrieben').write_text(output_dir)"
    write_notebook(tmp_path / ODD, write)
    assert cli.main(["reproduce", "--tables", "1", "-o", "mein Lauf"]) == 1
    told = capsys.readouterr().err
    assert "ran through but wrote no mein Lauf/results/table1_vist.json" in told
    run = tmp_path / ODD / "mein Lauf"
    assert (run / "geschrieben").read_text() == str(run)


# ---- another locale ------------------------------------------------------------------------

SCRIPT = """
import sys
from PIL import Image
from gill_lite.cli import main as cli
from gill_lite.datasets.captions import pairs_dataset, read_captions
from gill_lite.world.export import write_captions
assert sys.getfilesystemencoding() == "ascii" and sys.stdout.encoding == "ascii"
texts = [f"ein Ball im Schnee \\u2744 Nr. {i}" for i in range(10)]
names = [f"stra\\u00dfe {i}.png" for i in range(10)]
pictures = [Image.new("RGB", (20, 24), (20 * i, 0, 0)) for i in range(10)]
write_captions("pairs.tsv", "images", zip(texts, names, pictures))
pairs = read_captions("pairs.tsv", "images", strict=True).examples
assert [pair.caption for pair in pairs] == texts and [pair.image for pair in pairs] == names
picture, text = pairs_dataset("pairs.tsv", "images")[3]
assert text == texts[3] and picture.getpixel((0, 0)) == (60, 0, 0)
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_locale_without_unicode_reads_writes_and_prints(typed, tmp_path):
    """LC_ALL=C as on old servers: files are UTF-8 all the same, a terminal shows what it can."""
    places = str(ROOT)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": places}
    command = [sys.executable, "-c", SCRIPT, *typed["evaluate"], "-o", "Lauf ☃"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode("ascii", "replace")
    assert b"CLIP similarity ?" in done.stdout and b"results: " in done.stdout
    assert b"/Lauf ???/results/table2_visdial.json" in done.stdout
    assert (tmp_path / "pairs.tsv").read_text(encoding="utf-8").count("Schnee ❄ Nr. ") == 10
    assert (tmp_path / "images" / "straße 3.png").is_file()
    rows = read_json(tmp_path / "Lauf ☃" / "results" / "table2_visdial.json")["rows"]
    assert "CLIP similarity ↑" in {row["metric"] for row in rows}
