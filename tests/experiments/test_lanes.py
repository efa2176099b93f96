"""Notebooks side by side."""

import threading
import time
from contextlib import closing

import pytest

from gill_lite.experiments import lanes as lanes_module
from gill_lite.experiments.lanes import Line, side_by_side


class Kernel:
    """Pretends to be a kernel manager; a signal ends what runs in it."""

    def __init__(self, kernel_name):
        self.has_kernel, self.ended = True, threading.Event()

    async def signal_kernel(self, number):
        self.ended.set()


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """No process is started."""
    monkeypatch.setattr(lanes_module, "AsyncKernelManager", Kernel)


def test_a_lane_keeps_its_order_and_runs_beside_the_others():
    meet, done = threading.Barrier(2, timeout=10), []

    def run(item, kernel):
        if item in ("a1", "b1"):
            meet.wait()  # each alone would wait here for ever
        done.append(item)
        return item

    made = list(side_by_side([["a1", "a2", "a3"], ["b1", "b2"]], run, workers=2))
    assert sorted(made) == ["a1", "a2", "a3", "b1", "b2"]
    assert [m for m in done if "a" in m] == ["a1", "a2", "a3"]


def test_one_worker_runs_one_at_a_time():
    under_way = []

    def run(item, kernel):
        under_way.append(item)
        assert len(under_way) == 1
        time.sleep(0.01)
        under_way.remove(item)
        return item

    assert list(side_by_side([[1, 2], [3]], run, workers=1)) == [1, 2, 3]


def until_stopped(item, kernel):
    """Item 0 runs until its kernel is stopped; another one raises."""
    if item:
        raise ValueError(f"broken {item}")
    assert kernel.ended.wait(10)
    return item


def test_an_error_stops_the_other_lane_and_what_waits():
    with pytest.raises(ValueError, match="broken 1"):
        list(side_by_side([[0, 2], [1, 3], [4]], until_stopped, workers=2))


def test_leaving_stops_all_kernels():
    begun = time.monotonic()
    run = lambda item, kernel: item if item else until_stopped(item, kernel)  # noqa: E731
    with closing(side_by_side([[1], [0]], run, workers=2)) as made:
        assert next(made) == 1
    assert time.monotonic() - begun < 5


def test_a_line_shows_the_bar_that_was_drawn_last(capsys):
    with Line("10_table") as line:
        line.write("\rvist:  0%\rvist: 50%")
        line.write("\n")
    told = capsys.readouterr().err
    assert "10_table" in told and "vist: 50%" in told and "vist:  0%" not in told
