"""Stages side by side: none begins without what it needs, and what fails is told."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from gill_lite.errors import GillError
from gill_lite.files import CannotWrite
from gill_lite.pretraining.stages import NEEDS, side_by_side
from tests.helpers.places import ROOT


def timed(seconds: dict, name: str) -> tuple[float, float, int]:
    """When it began and ended, and with how many threads; where `seconds` has none, it fails."""
    began = time.time()
    match seconds.get(name, 0.1):
        case "full":
            raise CannotWrite(Path("out") / name, OSError(errno.ENOSPC, "No space left on device"))
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case long:
            time.sleep(long)
    return began, time.time(), torch.get_num_threads()


def noted(folder: Path, name: str) -> None:
    """A stage that takes long; its process's number is in a file of the stage's name."""
    (folder / f"new {name}").write_text(str(os.getpid()))
    (folder / f"new {name}").rename(folder / name)
    if name == "lm":  # it ends when the other has begun
        assert waited_for((folder / "clip").exists)
    else:
        time.sleep(600)


def waited_for(condition, seconds: float = 120) -> bool:
    """Whether `condition()` came true in that time."""
    over = time.time() + seconds
    while time.time() < over and not condition():
        time.sleep(0.05)
    return condition()


def test_two_stages_at_a_time_each_after_what_it_needs():
    names, train = ("clip", "glide", "lm"), partial(timed, {"clip": 8.0})
    made = dict(side_by_side(names, train, workers=2, threads=1))
    assert set(made) == set(names) and "clip" in NEEDS["glide"]
    assert {threads for _, _, threads in made.values()} == {1}
    assert made["glide"][0] >= made["clip"][1]
    assert made["lm"][0] < made["clip"][1], "nothing ran beside the first"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("full", "stage lm: cannot write out/lm .No space left on device."),
        ("killed", "stage lm: its process ended with -9 .*the same command goes on"),
    ],
)
def test_a_stage_that_fails_is_told_at_once_and_lets_the_one_beside_it_end(capfd, how, told):
    made = {}
    with pytest.raises(GillError, match=told):
        for name, times in side_by_side(
            ("clip", "lm", "trunk"), partial(timed, {"clip": 8, "lm": how}), 2
        ):
            made[name] = times
    assert set(made) == {"clip"}  # it ended, and none began after the failure
    assert re.search(told, capfd.readouterr().err)


def test_a_stage_that_fails_alone_is_told_once(capfd):
    with pytest.raises(GillError, match="stage trunk: cannot write"):
        list(side_by_side(("trunk", "glide"), partial(timed, {"trunk": "full"}), 1))
    assert not capfd.readouterr().err


def test_where_the_run_is_left_its_stages_end(tmp_path):
    running = side_by_side(("clip", "lm"), partial(noted, tmp_path), 2)
    assert next(running)[0] == "lm"
    process = psutil.Process(int((tmp_path / "clip").read_text()))
    running.close()
    assert not process.is_running()


def test_a_stage_ends_where_the_run_is_killed(tmp_path):
    """SIGKILL leaves no process behind that would hold the folder for hours."""
    program = (
        "from functools import partial; from pathlib import Path\n"
        "from gill_lite.pretraining.stages import side_by_side\n"
        "from tests.pretraining.test_stages import noted\n"
        f"list(side_by_side(('clip',), partial(noted, Path({str(tmp_path)!r})), 1))\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    number = tmp_path / "clip"
    try:
        assert waited_for(number.exists), "the stage never began"
        process = psutil.Process(int(number.read_text()))
    finally:
        run.kill()
        run.wait()
    assert waited_for(lambda: not process.is_running())
