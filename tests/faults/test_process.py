"""What befalls a running command: a full disk, a second run in its folder, Ctrl-C."""

import os
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file

from gill_lite.cli import main as cli
from gill_lite.errors import GillError
from gill_lite.evaluation.run import run_resumable, work_items
from gill_lite.evaluation.scorer import Scorer
from gill_lite.fetching import download
from gill_lite.training import step as train_step
from tests.helpers import tiny_evaluation
from tests.helpers.local_server import LocalServer
from tests.helpers.pretended import pretend_repository, write_notebook
from tests.helpers.tiny_commands import (
    Disk,
    before_loss,
    bytes_of,
    pretrain,
    probes_of,
    sentence,
    small_joints,
    small_probes,
    train_options,
)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A shell starts what runs in its background with Ctrl-C switched off; so may CI."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """`gill-lite train ...` without its output folder."""
    return train_options(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_joints(monkeypatch)
    small_probes(monkeypatch)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path / "disk", patch)
        yield disk
    disk.away()


def before_step(monkeypatch, number: int, act) -> None:
    """Call `act()` once, before step `number` of a training of the joints."""
    step, left = train_step.Stepper.start, [act]

    def watched(self, at, batches):
        if at == number and left:
            left.pop()()
        return step(self, at, batches)

    monkeypatch.setattr(train_step.Stepper, "start", watched)


# ---- a disk that is full -------------------------------------------------------------------


def test_training_on_a_full_disk_loses_the_step_in_flight(
    typed, disk, tmp_path, monkeypatch, capsys
):
    out = disk.folder / "out"
    before_step(monkeypatch, 3, disk.fill)
    assert cli.main([*typed, "-o", str(out)]) == 2
    said = sentence(capsys)
    assert said.startswith(f"cannot write {out}/") and "No space left on device" in said
    assert said.endswith("choose another folder, then run the same command again")
    newest = sorted(out.glob("state-*"))[-1]
    assert newest.name == "state-00000003.safetensors" and load_file(newest)
    disk.free()
    small_joints(monkeypatch)
    for folder in (out, tmp_path / "whole"):
        assert cli.main([*typed, "-o", str(folder)]) == 0
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_an_evaluation_on_a_full_disk_goes_on_behind_its_last_batch(disk, tmp_path):
    items = work_items([f"story {i}" for i in range(400)], [("sd", "caption1", 0)])
    scored = []

    def score(batch, fill=True):
        scored.append(batch)
        if fill and len(scored) == 5:
            disk.fill()
        return [{"clip_similarity": len(item.example_id) / 7} for item in batch]

    with pytest.raises(GillError, match=r"cannot write .*No space left on device"):
        run_resumable(items, score, disk.folder / "run", {}, 40, progress=False)
    disk.free()
    whole = run_resumable(items, lambda b: score(b, False), tmp_path / "run", {}, 40)
    scored.clear()
    assert run_resumable(items, lambda b: score(b, False), disk.folder / "run", {}, 40) == whole
    assert len(scored) in (5, 6), "four batches of ten are kept, or five"
    rows = [(folder / "run" / "rows.jsonl").read_bytes() for folder in (disk.folder, tmp_path)]
    assert rows[0] == rows[1]


def test_pretraining_on_a_full_disk_keeps_its_checkpoint(disk, tmp_path, monkeypatch, capsys):
    work = disk.folder / "work"
    with monkeypatch.context() as patch:
        before_loss(patch, 3, lambda loss: (disk.fill(), loss)[1])
        assert pretrain(work) == 2
    said = sentence(capsys)
    assert said.startswith(f"cannot write {work}/probes") and "No space left" in said
    assert torch.load(work / "probes.pt", weights_only=True)["step"] == 3
    disk.free()
    small_probes(monkeypatch)
    assert [pretrain(work), pretrain(tmp_path / "whole")] == [0, 0]
    assert probes_of(work) == probes_of(tmp_path / "whole")


def test_a_download_onto_a_full_disk_leaves_nothing(disk, monkeypatch):
    if not disk.real:
        pytest.skip("a small disk cannot be mounted here")
    content = b"\x89PNG\r\n\x1a\n" + bytes(2_000_000)
    with LocalServer() as server:
        url = server.add("/a.png", content, length=False)  # so that room is not asked for before
        disk.fill()
        with open(disk.filler, "r+b") as file:
            file.truncate(disk.filler.stat().st_size - 1_000_000)
        with pytest.raises(GillError, match=r"cannot write .*a.png \(No space left"):
            download.download(url, disk.folder / "a.png", "picture")
        assert list(disk.folder.iterdir()) == [disk.filler]
        assert server.requests("/a.png") == [None], "a full disk is not asked again"
        disk.free()
        with pytest.raises(download.Refused, match="is not a picture"):  # zeros, but all there
            download.download(url, disk.folder / "a.png", "picture")


# ---- two at a time -------------------------------------------------------------------------


def test_a_second_training_in_one_folder_is_told(typed, tmp_path, monkeypatch, capsys):
    command, told = [*typed, "-o", str(tmp_path / "out")], []
    second = lambda: [capsys.readouterr(), cli.main(command), sentence(capsys)]  # noqa: E731
    before_step(monkeypatch, 2, lambda: told.extend(second()[1:]))
    assert cli.main(command) == 0
    assert told == [2, f"another run is writing to {tmp_path}/out; wait or name another"]
    assert cli.main(command) == 0, "the first has let go of the folder"


def test_a_second_pretraining_of_a_stage_is_told(tmp_path, monkeypatch, capsys):
    work, told = tmp_path / "work", []
    second = lambda: [capsys.readouterr(), pretrain(work), sentence(capsys)]  # noqa: E731
    before_loss(monkeypatch, 2, lambda loss: (told.extend(second()[1:]), loss)[1])
    assert pretrain(work) == 0
    out = work / "out" / "probes"
    assert told == [2, f"another run is writing to {out}; wait or name another"]


def test_a_second_reproduction_in_one_folder_is_told(tmp_path, monkeypatch, capsys):
    pretend_repository(tmp_path, monkeypatch)
    write_notebook(tmp_path, "pass")
    command, told = "reproduce --tables 1 -o run".split(), []

    def run(*given):
        told.append((cli.main(command), sentence(capsys)))
        return {}

    monkeypatch.setattr("gill_lite.experiments.reproduce._given", run)
    assert cli.main(command) == 1, "a notebook that writes no results"
    folder = tmp_path / "run"
    assert told == [(2, f"another run is writing to {folder}; wait or name another")]


# ---- Ctrl-C --------------------------------------------------------------------------------

INTERRUPTED = "interrupted; the same command continues where it can."


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_training(typed, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    before_step(monkeypatch, 3, ctrl_c)
    assert cli.main([*typed, "-o", str(out)]) == 130
    assert sentence(capsys) == INTERRUPTED
    assert sorted(out.glob("state-*"))[-1].name == "state-00000003.safetensors"
    for folder in (out, tmp_path / "whole"):
        assert cli.main([*typed, "-o", str(folder)]) == 0
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_ctrl_c_in_an_evaluation(tmp_path, monkeypatch, capsys):
    given = [*tiny_evaluation.photographs(tmp_path, 2, 0), *tiny_evaluation.save_paper(tmp_path)]
    command = ["evaluate", "2", *given, "--batch-size=2", f"--cache={tmp_path / 'cache'}"]
    draw, batches = Scorer.draw, []

    def watched(self, batch, prompts):
        batches.append(batch)
        if len(batches) == 3:
            ctrl_c()
        return draw(self, batch, prompts)

    monkeypatch.setattr(Scorer, "draw", watched)
    assert cli.main([*command, "-o", str(tmp_path / "cut")]) == 130
    assert sentence(capsys) == INTERRUPTED
    assert cli.main([*command, "-o", str(tmp_path / "cut")]) == 0
    assert len(batches) == 3 + 4, "six cells, a batch of two each, two of them kept"
    assert cli.main([*command, "-o", str(tmp_path / "whole")]) == 0
    names = ("table2_visdial/rows.jsonl", "results/table2_visdial_scores.csv")
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_ctrl_c_in_a_reproduction(tmp_path, monkeypatch, capfd):
    """The notebook's own process presses the keys, as soon as it runs."""
    pretend_repository(tmp_path, monkeypatch)
    press = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    write_notebook(tmp_path, press)
    assert cli.main("reproduce --tables 1 -o run".split()) == 130
    sys.stderr.flush()
    assert sentence(capfd) == INTERRUPTED
    assert not os.path.exists("run/report.html")
    with pytest.raises(ChildProcessError):  # the notebook's process is gone, too
        os.waitpid(-1, os.WNOHANG)
