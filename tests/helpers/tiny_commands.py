"""`gill-lite` commands that do everything real in seconds: tiny models, few pictures, few steps."""

import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from gill_lite import profiles
from gill_lite.cli import main as cli
from tests.helpers import tiny_backbones, tiny_launch


def train_options(folder: Path) -> list[str]:
    """Write tiny models and twenty pairs into `folder`; `train` on them, without its output."""
    from gill_lite.world.export import write_captions

    models = tiny_backbones.save(tiny_backbones.backbones(), folder)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)) for _ in range(20)]
    pairs = zip(2 * tiny_launch.CAPTIONS, map("{}.png".format, range(20)), pictures, strict=True)
    write_captions(folder / "pairs.tsv", folder / "images", pairs)
    options = ["train", "--profile=paper", "--steps=6", "--save-every=1"]
    options += [f"--captions={folder / 'pairs.tsv'}", f"--images={folder / 'images'}"]
    return options + [f"--{name}={path}" for name, path in models.items()]


def small_joints(monkeypatch) -> None:
    """The paper profile's joints made small, for `train_options`."""
    small = profiles.PAPER.replace(**tiny_launch.TINY)
    monkeypatch.setitem(profiles.PROFILES, "paper", small)


def small_probes(monkeypatch, steps: int = 6) -> None:
    """`gill-lite pretrain probes` on sixteen pictures, a checkpoint each step."""
    from gill_lite.pretraining import loop as training
    from gill_lite.pretraining import probes as stage_probes
    from gill_lite.world import pictures

    for module in (pictures, stage_probes):
        monkeypatch.setattr(module, "NUM_IMAGES", 16)
    monkeypatch.setattr(training, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(stage_probes, "BATCH", 4)
    train, held_out = partial(stage_probes.train_probes, steps=steps), pictures.held_out
    monkeypatch.setattr(stage_probes, "train_probes", train)
    few = lambda _, *rest, **named: held_out(8, *rest, **named)  # noqa: E731
    monkeypatch.setattr(stage_probes, "held_out", few)


def pretrain(work: Path, *more: str) -> int:
    """`gill-lite pretrain probes` in `work`."""
    return cli.main(["pretrain", "probes", f"--work-dir={work}", f"--output-dir={work}-o", *more])


def before_loss(monkeypatch, number: int, act) -> None:
    """Call `act(loss)` in step `number` of the stage `probes`; it returns the loss to take."""
    from gill_lite.pretraining import probes as stage_probes

    loss, made = stage_probes.classification_loss, []

    def watched(*given):
        made.append(1)
        value = loss(*given)
        return act(value) if len(made) == number + 1 else value

    monkeypatch.setattr(stage_probes, "classification_loss", watched)


def bytes_of(folder: Path) -> list[bytes]:
    """The joints that `train` left in `folder`."""
    return [(folder / name).read_bytes() for name in ("joints.safetensors", "config.json")]


def probes_of(work: Path) -> bytes:
    """The probes that `pretrain` left in `work`."""
    return (work / "out" / "probes" / "model.safetensors").read_bytes()


def sentence(capsys) -> str:
    """The one sentence that a failing command said; no traceback stands beside it."""
    told = capsys.readouterr().err
    assert "Traceback" not in told and "Warning" not in told, told
    (said,) = [line for line in told.splitlines() if line.startswith("gill-lite: ")]
    assert told.rstrip().endswith(said), "it is the last thing said"
    return said.removeprefix("gill-lite: ")


def told(capsys) -> str:
    """The one line that a failing command leaves, and nothing beside it."""
    out = capsys.readouterr()
    (line,) = out.err.splitlines()
    assert line.startswith("gill-lite: ") and out.out == ""
    return line


class Disk:
    """A folder on a disk that can be full; without the right to mount, one that pretends."""

    def __init__(self, folder: Path, monkeypatch, size: str = "16m"):
        self.folder, self.filler, self.monkeypatch = folder, folder / "filler", monkeypatch
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        tool = shutil.which("mount")
        self.real = bool(tool) and subprocess.run(command, capture_output=True).returncode == 0

    def fill(self) -> None:
        """From now on nothing can be written."""
        if not self.real:
            self.monkeypatch.setattr("gill_lite.files.os.fsync", _refuse)
            return
        with open(self.filler, "ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    def free(self) -> None:
        """There is room again."""
        if self.real:
            self.filler.unlink()
        else:
            self.monkeypatch.undo()

    def away(self) -> None:
        """Take the disk away."""
        if self.real:
            subprocess.run(["umount", str(self.folder)], check=True)


def _refuse(handle) -> None:
    import errno
    import os

    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
