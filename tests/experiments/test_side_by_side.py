"""Notebooks side by side."""

import threading
import time
from contextlib import closing

import pytest

from gill_lite.experiments import side_by_side as module
from gill_lite.experiments.side_by_side import Line, side_by_side


class Kernel:
    """Pretends to be a kernel manager; a signal ends what runs in it."""

    def __init__(self, kernel_name):
        self.has_kernel, self.ended = True, threading.Event()

    async def signal_kernel(self, number):
        self.ended.set()


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """No process is started."""
    monkeypatch.setattr(module, "AsyncKernelManager", Kernel)


def always(item, under_way, ended) -> bool:
    return True


def test_two_run_at_the_same_time():
    meet = threading.Barrier(2, timeout=10)  # each alone would wait here for ever
    made = dict(side_by_side("ab", lambda item, kernel: meet.wait() * 0 + 1, 2, always))
    assert made == {"a": 1, "b": 1}


def test_one_worker_runs_one_at_a_time_in_order():
    under_way = []

    def run(item, kernel):
        under_way.append(item)
        assert len(under_way) == 1
        time.sleep(0.01)
        under_way.remove(item)

    assert [item for item, _ in side_by_side([1, 2, 3], run, 1, always)] == [1, 2, 3]


def test_what_may_not_run_beside_waits_and_another_goes_before_it():
    begun, seen = [], []

    def beside(item, under_way, ended):
        seen.append((item, tuple(under_way), tuple(ended)))
        return item != "b" or "a" not in under_way

    def run(item, kernel):
        begun.append(item)
        while item == "a" and "c" not in begun:
            time.sleep(0.01)

    list(side_by_side("abc", run, 2, beside))
    assert begun == ["a", "c", "b"]
    assert ("b", ("a",), ()) in seen


def test_what_may_never_run_beside_runs_alone():
    made = side_by_side([1, 2], lambda item, kernel: item, 2, lambda *given: False)
    assert list(made) == [(1, 1), (2, 2)]


def until_stopped(item, kernel):
    """Item 0 runs until its kernel is stopped; another one raises."""
    if item:
        raise ValueError(f"broken {item}")
    assert kernel.ended.wait(10)


def test_an_error_stops_the_other_and_what_waits_never_begins():
    begun = []
    run = lambda item, kernel: begun.append(item) or until_stopped(item, kernel)  # noqa: E731
    with pytest.raises(ValueError, match="broken 1"):
        list(side_by_side([0, 1, 2], run, 2, always))
    assert sorted(begun) == [0, 1]


def test_leaving_stops_all_kernels():
    begun = time.monotonic()
    run = lambda item, kernel: item if item else until_stopped(item, kernel)  # noqa: E731
    with closing(side_by_side([1, 0], run, 2, always)) as made:
        assert next(made) == (1, 1)
    assert time.monotonic() - begun < 5


def test_a_line_shows_the_bar_that_was_drawn_last(capsys):
    with Line("10_table") as line:
        line.write("\rvist:  0%\rvist: 50%")
        line.write("\n")
    told = capsys.readouterr().err
    assert "10_table" in told and "vist: 50%" in told and "vist:  0%" not in told
