"""Several processes, started as a user starts them: the same losses, resume, one bad number.

The processes meet on 127.0.0.1 and train on two CPU cores; what they run is in tiny_launch.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gill_lite.model.checkpoint import CONFIG, WEIGHTS
from gill_lite.training.train import LOG, TENSORBOARD
from tests.helpers import tiny_backbones, tiny_launch
from tests.helpers.places import ROOT, TESTS
from tests.helpers.tiny_launch import THEN

STEPS = 60
ALONE = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1")
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def start(launcher, *arguments) -> subprocess.Popen:
    """tiny_launch by the launcher."""
    places = [ROOT, os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    environment |= {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [*launcher, str(TESTS / "helpers" / "tiny_launch.py"), *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to the launcher and all it started."""
    launcher = psutil.Process(process.pid)
    for each in [*launcher.children(recursive=True), launcher]:
        each.kill()
    process.communicate()


def finish(process: subprocess.Popen, patience: float = 120) -> str:
    """Wait so many seconds; returns what was printed."""
    try:
        output, _ = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    assert process.returncode == 0, output
    return output


def kill_at(process: subprocess.Popen, sign: Path) -> None:
    """Kill as soon as the file is there."""
    deadline = time.monotonic() + 120
    while not sign.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    kill(process)
    assert sign.exists(), f"{sign} did not come"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny backbones and official-format pairs on disk."""
    folder = tmp_path_factory.mktemp("distributed")
    tiny_backbones.save(tiny_backbones.backbones(), folder)
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = ["caption\timage"]
    for i, caption in enumerate(2 * tiny_launch.CAPTIONS):
        pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        rows.append(f"{caption}\t{i}.png")
    (folder / "pairs.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def train_options(folder):
    """`gill-lite train` on them, without its output folder."""
    options = ["train", "--profile", "paper", "--steps", STEPS, "--save-every", 2, "--keep", 3]
    options += ["--captions", folder / "pairs.tsv", "--images", folder / "images"]
    for name in ("lm", "vision", "diffusion"):
        options += [f"--{name}", folder / name]
    return options


def killed_and_whole(folder, options, launchers, *before) -> tuple[Path, Path]:
    """A run killed and resumed, and one that was left alone; `before` that something else."""
    whole, killed = (folder / f"{name}-{launchers[1][-1]}" for name in ("whole", "killed"))
    run = start(launchers[0], *options, "-o", killed)
    kill_at(run, killed / "state-00000006.safetensors")
    assert not (killed / WEIGHTS).exists(), "it ended before it was killed"
    extra = ["--tensorboard", "--num-workers", 1]  # neither changes what is computed
    again = [*options, *extra, "-o", killed, THEN, *options, "-o", whole]
    assert finish(start(launchers[1], *before, *again)).count("the joints are in") == 2
    return killed, whole


@pytest.fixture(scope="module")
def one(folder, train_options):
    """A single process, killed and left alone; `accelerate launch` resumes it."""
    return killed_and_whole(folder, train_options, ((sys.executable,), ALONE))


@pytest.fixture(scope="module")
def two(folder, train_options):
    """What two processes leave behind, all in two launches."""
    before = ("gradients", folder, THEN, "broken", folder, THEN)
    killed_and_whole(folder, train_options, (TWO, TWO), *before)
    return folder


@pytest.fixture(scope="module")
def four(folder, train_options):
    """What two processes on each of two machines leave behind: two launches, one rendezvous."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = [*TWO[:3], "--nnodes", "2", "--nproc_per_node", "2"]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", port]
    todo = ["gradients", folder, THEN, *train_options, "-o", folder / "four"]
    machines = [start([*launcher, "--node_rank", str(rank)], *todo) for rank in (0, 1)]
    for machine in machines:
        finish(machine, patience=300)  # four processes on two cores
    return folder


@pytest.mark.parametrize("join", [False, True], ids=["single", "joined"])
def test_four_processes_on_two_machines_compute_what_one_computes(four, join):
    """10 pairs are 2, 2, 2 and 4 here: the last part is larger than the others."""
    ours, one = load_file(four / f"{join}-1-4.safetensors"), tiny_launch.step_results(join, 1)
    assert set(ours) == set(one) and len(one) > 20
    for name, value in one.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-12, msg=name)


def test_four_processes_on_two_machines_train_what_one_trains(one, four):
    """Up to rounding, which grows: AdamW makes steps of gradients that are nothing else."""
    rows = (rows_of(folder)[:2] for folder in (one[1], four / "four"))
    for ours, theirs in zip(*rows, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    ours, alone = (load_file(folder / WEIGHTS) for folder in (four / "four", one[1]))
    assert set(ours) == set(alone)
    for name in (name for name in alone if "in_proj_bias" not in name):  # keys' have no gradient
        torch.testing.assert_close(ours[name], alone[name], rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize("join", [False, True], ids=["single", "joined"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_two_processes_compute_what_one_computes(two, join, micro_batches):
    """Each loss and each gradient; 10 pairs are 4 and 6 here, 2, 2, 2 and 4 in micro-batches."""
    ours = load_file(two / f"{join}-{micro_batches}-2.safetensors")
    one = tiny_launch.step_results(join, 1)
    assert set(ours) == set(one) and len(one) > 20
    for name, value in one.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-12, msg=name)


def test_halves_alone_compute_something_else():
    """So the test above can fail: the mean of two halves' losses is not the batch's loss."""
    whole, *halves = (
        tiny_launch.step_results(True, 1, rows=rows)
        for rows in (slice(None), slice(0, 4), slice(4, 10))
    )
    for name in ("captioning", "img_lm", "retrieval", "generation"):
        assert abs((halves[0][name] + halves[1][name]) / 2 - whole[name]) > 1e-4, name


def test_one_bad_number_stops_both(two):
    messages = {(two / f"error-{rank}.txt").read_text() for rank in (0, 1)}
    (message,) = messages
    found = json.loads(message.split("pairs ")[1].split(";")[0])
    assert "not finite" in message and 7 in found and len(found) == 4
    step = int(message.split("step ")[1].split(":")[0])
    last = sorted((two / "broken").glob("state-*"))[-1]
    assert step > 0 and last.name == f"state-{step:08d}.safetensors"
    assert all(value.isfinite().all() for value in load_file(last).values())
    assert not (two / "broken" / WEIGHTS).exists()


def assert_same_run(killed: Path, whole: Path) -> None:
    assert (whole / WEIGHTS).read_bytes() == (killed / WEIGHTS).read_bytes()
    assert rows_of(whole) == rows_of(killed)
    states = [f"state-{step:08d}.safetensors" for step in (STEPS - 4, STEPS - 2, STEPS)]
    assert sorted(path.name for path in whole.iterdir()) == [".lock", CONFIG, WEIGHTS, LOG, *states]
    assert len(list((killed / TENSORBOARD).iterdir())) == 1  # only one process writes


def test_killed_and_resumed_ends_bit_identical(one):
    assert_same_run(*one)


def test_two_processes_killed_and_resumed_end_bit_identical(two):
    assert_same_run(two / "killed-2", two / "whole-2")


def test_one_and_two_processes_train_alike(one, two):
    """Up to rounding, which grows from step to step."""
    rows = (rows_of(folder)[:2] for folder in (one[1], two / "whole-2"))
    for ours, theirs in zip(*rows, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def rows_of(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{name: v for name, v in row.items() if name != "seconds"} for row in rows]
