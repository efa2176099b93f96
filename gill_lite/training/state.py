"""What a training run keeps on disk to go on exactly where it was: weights, optimizer, log.

A checkpoint is one safetensors file, written atomically: joints, Adam's two moments, and in
the metadata the step and the settings it was made by. There is no state of a random generator
among it: whatever a step draws, it draws from a generator made of the seed and its number.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from gill_lite.errors import GillError
from gill_lite.files import append_text, cut_log, refuse_other_settings, tidy, write_bytes
from gill_lite.model.checkpoint import ABOUT, CONFIG, WEIGHTS, put_joints, read_tensors
from gill_lite.model.gill import Gill

MOMENTS = ("exp_avg", "exp_avg_sq")


class TrainState:
    """Checkpoints of `gill` and `optimizer` (AdamW over its trainable parameters).

    The last `keep` are kept.
    """

    def __init__(self, directory: Path, gill: Gill, optimizer, settings: dict, keep: int = 2):
        if keep < 1:
            raise GillError(f"keep must be at least 1 checkpoint, not {keep}")
        self.directory, self.gill, self.optimizer = directory, gill, optimizer
        self.keep, self.settings = keep, settings

    def files(self) -> list[Path]:
        """Checkpoints there are, oldest first."""
        return sorted(self.directory.glob("state-*.safetensors"))

    def clear(self) -> None:
        """Remove all checkpoints."""
        for path in self.files():
            path.unlink()
        self.tidy()

    def tidy(self) -> None:
        """Remove what a kill left half-written."""
        tidy(self.directory, "state-*.safetensors", WEIGHTS, CONFIG)

    def save(self, step: int) -> None:
        """Write the state after `step` steps, then remove all but the last `keep`."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.gill.trainable_parameters().items():
            moments = self.optimizer.state[parameter]
            tensors[f"joints/{name}"] = parameter.detach()
            tensors.update({f"{kind}/{name}": moments[kind] for kind in MOMENTS})
        tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
        about = json.dumps({"step": step, "settings": self.settings}, sort_keys=True)
        path = self.directory / f"state-{step:08d}.safetensors"
        write_bytes(path, save(tensors, metadata={ABOUT: about}))
        for old in self.files()[: -self.keep]:
            old.unlink()

    def restore(self, steps: int) -> int:
        """Put the last checkpoint back; returns the steps it has behind it, 0 without one.

        Raises GillError if it was made by other settings or has more than `steps` behind it.
        """
        if not self.files():
            return 0
        path = self.files()[-1]
        tensors, about = read_tensors(path)
        mend = "choose another output folder, or start anew with --no-resume"
        refuse_other_settings(path, about.get("settings", {}), self.settings, mend)
        step = about["step"]
        if step > steps:
            raise GillError(
                f"{path} has {step} steps behind it, more than the {steps} asked for; {mend}"
            )
        start = len("joints/")
        joints = {n[start:]: value for n, value in tensors.items() if n.startswith("joints/")}
        put_joints(self.gill, joints, path)
        for name, parameter in self.gill.trainable_parameters().items():
            moments = {k: tensors[f"{k}/{name}"].to(parameter.device) for k in MOMENTS}
            self.optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
        return step


class Log:
    """A JSONL file, one object a line. Rows of steps that will be made again are dropped.

    With `tensorboard`, a folder, numbers go there, too.
    """

    def __init__(self, path: Path, start: int, tensorboard: Path | None = None):
        self.path = path
        cut_log(path, start)
        self.writer = None if tensorboard is None else _summary_writer(tensorboard, start)

    def add(self, row: dict) -> None:
        """Append a row."""
        append_text(self.path, json.dumps(row) + "\n")
        if self.writer:
            for name in row.keys() - {"step"}:
                self.writer.add_scalar(f"train/{name}", row[name], row["step"])
            self.writer.flush()

    def close(self) -> None:
        """Nothing more will be added."""
        if self.writer:
            self.writer.close()


def _summary_writer(folder: Path, start: int):
    """TensorBoard's writer. Raises GillError where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise GillError(
            "--tensorboard needs the package tensorboard; install it with "
            "`pip install 'gill-lite[paper]'`"
        ) from error
    return SummaryWriter(str(folder), purge_step=start)
