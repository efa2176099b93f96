"""Stages side by side: none begins without what it needs, and what fails is told."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from gill_lite.errors import GillError
from gill_lite.pretraining.stages import NEEDS, STAGES, side_by_side
from tests.helpers.places import ROOT


def timed(seconds: dict, name: str) -> tuple[float, float, int]:
    """When it began and ended, and with how many threads; fails where `seconds` has no number."""
    began = time.time()
    if seconds.get(name, 0) is None:
        raise GillError(f"{name} found no room")
    time.sleep(seconds.get(name, 0.1))
    return began, time.time(), torch.get_num_threads()


def noted(folder: Path, name: str) -> None:
    """A stage that takes long; its process's number is in a file of the stage's name."""
    (folder / "new").write_text(str(os.getpid()))
    (folder / "new").rename(folder / name)
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


def test_a_stage_that_fails_is_told_at_once_and_lets_the_one_beside_it_end(capfd):
    made = {}
    with pytest.raises(GillError, match="lm found no room"):
        for name, times in side_by_side(STAGES, partial(timed, {"clip": 8.0, "lm": None}), 2):
            made[name] = times
    assert set(made) == {"clip"}  # it ended, and none began after it
    assert "stage lm: lm found no room" in capfd.readouterr().err


def test_a_stage_that_fails_alone_is_told_once(capfd):
    with pytest.raises(GillError, match="trunk found no room"):
        list(side_by_side(("trunk", "glide"), partial(timed, {"trunk": None}), 1))
    assert not capfd.readouterr().err


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
