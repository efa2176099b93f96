"""SIGKILL at random moments of a training, an evaluation and a pretraining stage.

A parent process that has imported everything forks a child for each life and kills it at a
random moment, again and again until the work is done. What is there in the end must be, byte for
byte, what a run leaves that nothing disturbed, and a kill may cost the step in flight alone.
Started as a program this file is that parent: it reads a kind and a folder from each line of its
input and answers with what it counted.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

KILLS, TORN, MOST = 20, 3, 400  # kills at least, among them inside a write; and at most
STEPS = {"checkpoint": 8, "evaluation": 10, "pretraining": 8, "index": 8}
SIGNED = ".made"  # a byte for each step begun, in any life


# ---- the parent: lives and deaths ----------------------------------------------------------


def live(work, folder: Path) -> int:
    """Fork a child that does `work` in `folder`; its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        said = os.open(folder.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        work(folder)
        status = 0
    finally:
        if status:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status)


def end(child: int, folder: Path) -> bool:
    """Wait for a child; whether it was killed. It must not have failed of itself."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, folder.with_suffix(".txt").read_text()[-3000:]
    return False


def begun(folder: Path) -> int:
    """Steps begun in all lives."""
    return folder.with_suffix(SIGNED).stat().st_size


def sign(folder: Path) -> None:
    """A step begins."""
    with open(folder.with_suffix(SIGNED), "ab", buffering=0) as file:
        file.write(b".")


def half_written(folder: Path) -> list[str]:
    """Temporary files that a kill left, beside locks."""
    return sorted(p.name for p in folder.rglob(".*") if p.is_file() and p.suffix != ".lock")


def kill_until_done(work, folder: Path, seconds: float, rng: random.Random) -> dict:
    """Start `work` and kill it, until it once ends by itself; what was counted."""
    found, left = {"kills": 0, "torn": 0}, set()
    while found["kills"] < MOST:
        child = live(work, folder)
        time.sleep(rng.uniform(0, 0.8 * seconds))
        os.kill(child, signal.SIGKILL)  # of a child that has ended, it stays without effect
        if not end(child, folder):
            return found
        found["kills"] += 1
        left, before = set(half_written(folder)), left
        found["torn"] += not left <= before
    raise AssertionError(f"{folder} got nowhere: {folder.with_suffix('.txt').read_text()[-3000:]}")


def rounds(kind: str, folder: Path) -> dict:
    """Runs of one kind, killed and resumed, until there were kills enough."""
    work, results = KINDS[kind](folder)
    whole, rng = folder / "whole", random.Random(kind)
    work(folder / "warm")  # imports what is imported late, once for all children
    started = time.monotonic()
    assert not end(live(work, whole), whole)
    seconds = time.monotonic() - started
    wanted, told = results(whole), {"kills": 0, "torn": 0, "runs": 0, "wrong": []}
    while (told["kills"] < KILLS or told["torn"] < TORN) and told["kills"] < MOST:
        cut = folder / f"cut-{told['runs']}"
        found = kill_until_done(work, cut, seconds, rng)
        told = {**told, **{name: told[name] + found[name] for name in found}}
        told["runs"] += 1
        got = results(cut)
        differ = [n for n in wanted | got if wanted.get(n) != got.get(n)]
        told["wrong"] += [f"{cut.name}: {n} {str(got.get(n))[-200:]}" for n in differ]
        if begun(cut) > STEPS[kind] + found["kills"]:
            told["wrong"].append(f"{cut.name}: {begun(cut)} steps for {found['kills']} kills")
    return {**told, "steps": begun(whole), "results": sorted(wanted), "seconds": seconds}


def slow_disk() -> None:
    """Every file takes a while to reach the disk, so that kills fall into writes, too."""
    sync = os.fsync

    def slow(handle):
        time.sleep(0.005)
        sync(handle)

    os.fsync = slow


def results_of(*names: str, own: str = "."):
    """A function from a folder to what these files hold, logs without their times.

    own: the folder in it that must be left without half-written files; caches may have some.
    """

    def read(folder: Path) -> dict:
        found = {name: (folder / name).read_bytes().hex() for name in names}
        for name in names:
            if name.endswith(("log.jsonl", "probes.jsonl")):
                rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
                timed = ("seconds", "time")
                found[name] = str([[v for v in row.items() if v[0] not in timed] for row in rows])
            if name.endswith("measures.json"):
                told = json.loads((folder / name).read_text())
                found[name] = {k: told[k] for k in told if k not in ("seconds", "command")}
        return {**found, "half-written": str(half_written(folder / own))}

    return read


# ---- what is done --------------------------------------------------------------------------


def training(folder: Path):
    """Joints on tiny backbones, a checkpoint each step."""
    from gill_lite.training import step as train_step
    from gill_lite.training import train
    from tests.helpers import tiny_backbones, tiny_launch

    tiny, steps = tiny_backbones.backbones(), STEPS["checkpoint"]
    pairs = list(enumerate(tiny_launch.CAPTIONS))
    options = {"seed": 1, "steps": steps, "image_features": tiny_launch.features(tiny)}
    step = train_step.Stepper.start

    def work(out):
        train_step.Stepper.start = lambda *given: (sign(out), step(*given))[1]
        train.train(
            tiny_backbones.profile(), tiny, pairs, out, save_every=1, log_every=1, **options
        )

    last = f"state-{steps:08d}.safetensors"
    return work, results_of("joints.safetensors", "config.json", "log.jsonl", last)


def evaluation(folder: Path):
    """Table 1 with tiny models: four stories in five cells, two a batch, and its results."""
    from gill_lite.evaluation.cache import SampleCache
    from gill_lite.evaluation.evaluate import save
    from gill_lite.evaluation.run import run_resumable, work_items
    from gill_lite.evaluation.tables import TABLES
    from gill_lite.evaluation.tasks import VIST
    from tests.helpers import tiny_evaluation as tiny

    scorer = tiny.scorer(VIST, folder / "world", 4)
    cells = TABLES["1"].elsewhere().cells([0])
    items = work_items([e.example_id for e in scorer.dataset.examples], cells)

    drawers = [(drawer, drawer.sample) for drawer in scorer.models.values()]

    def work(out):
        scorer.cache = SampleCache(out / "cache")
        for drawer, sample in drawers:
            drawer.sample = lambda *given, sample=sample: (sign(out), sample(*given))[1]
        run = run_resumable(items, scorer, out / "run", {"toy": True}, 2, progress=False)
        save(out, run, {"table": "toy", "scored": run.scored})

    names = ("run/rows.jsonl", "run/config.json", "results/toy.json", "results/toy_scores.csv")
    return work, results_of(*names, own="run")


def pretraining(folder: Path):
    """`gill-lite pretrain probes` on sixteen pictures, a checkpoint each step."""
    from gill_lite.cli import main as cli
    from gill_lite.pretraining import loop as training
    from gill_lite.pretraining import probes as stage_probes
    from gill_lite.world import pictures

    for module in (pictures, stage_probes):
        module.NUM_IMAGES = 16
    training.SAVE_EVERY, stage_probes.BATCH = -1.0, 4
    train, held_out = stage_probes.train_probes, pictures.held_out
    stage_probes.train_probes = partial(train, steps=STEPS["pretraining"])
    stage_probes.held_out = lambda _, *rest, **named: held_out(8, *rest, **named)
    loss = stage_probes.classification_loss

    def work(out):
        stage_probes.classification_loss = lambda *given: (sign(out), loss(*given))[1]
        assert cli.main(["pretrain", "probes", "--work-dir", str(out), "-o", f"{out}-mini"]) == 0

    own = ("out/probes/model.safetensors", "out/probes/measures.json", "probes.jsonl")
    return work, results_of(*own, "images-0.npy")


def indexing(folder: Path):
    """Sixteen pictures, one of them damaged, two a part, as an index beside joints."""
    from PIL import Image

    from gill_lite.answering import own_pictures
    from gill_lite.answering.respond import Responder
    from gill_lite.model.checkpoint import save_joints
    from gill_lite.model.gill import build_gill
    from tests.helpers import tiny_evaluation as tiny

    backbones, pictures = tiny.backbones(), folder / "pictures"
    gill, own_pictures.PART = build_gill(backbones.profile, backbones), 2
    save_joints(gill, folder / "joints", {"made": "at random"})
    pictures.mkdir()
    for i in range(16):
        Image.new("RGB", (20, 16), (15 * i, 99, 0)).save(pictures / f"{i:02d}.png")
    (pictures / "03.png").write_bytes(b"<html>")
    responder, embed = Responder(backbones, gill), own_pictures._embed

    def work(out):
        own_pictures._embed = lambda *given: (sign(out), embed(*given))[1]
        own_pictures.index_folder(responder, pictures, folder / "joints", out)

    names = ("embeddings.safetensors", "ids.json")
    own = ("joints.safetensors", "config.json", *(f"index/{name}" for name in names))
    return work, results_of(*own)


KINDS = {
    "checkpoint": training,
    "evaluation": evaluation,
    "pretraining": pretraining,
    "index": indexing,
}


# ---- the tests -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parent():
    """The parent process; `parent(kind, folder)` returns what it counted."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    threads["TOKENIZERS_PARALLELISM"] = "false"
    places = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(places)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, __file__], env=environment, **pipes)

    def ask(kind, folder) -> dict:
        process.stdin.write(f"{kind}\t{folder}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, f"the parent process ended with {process.wait()}"
        return json.loads(answer)

    yield ask
    process.communicate()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(parent, tmp_path, kind):
    found = parent(kind, tmp_path)
    print(found)
    assert found["wrong"] == [], "each kill may cost the step in flight, and nothing else"
    assert found["kills"] >= KILLS, "so many hit a living process"
    assert found["torn"] >= TORN, "some fell into the writing of a file"
    assert found["steps"] == STEPS[kind] and len(found["results"]) >= 5


def main() -> None:
    """Answer each line of the input."""
    import torch
    from tqdm import tqdm

    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # it would be a thread, and threads do not live on in a fork
    tqdm.set_lock(threading.RLock())  # its own is shared by all forks: one killed in it stops all
    slow_disk()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the work prints is no answer
    for line in sys.stdin:
        kind, folder = line.rstrip("\n").split("\t")
        print(json.dumps(rounds(kind, Path(folder))), file=answers, flush=True)


if __name__ == "__main__":
    main()
