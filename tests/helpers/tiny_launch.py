"""What test_distributed starts, alone or several times by a launcher, on tiny backbones.

`gradients DIR` writes what one step computes, `broken DIR` trains on a feature that is not a
number, and `train ...` is `gill-lite train` with the paper profile's joints made small. Several
of these may follow each other, a plus sign between them.
"""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.helpers import tiny_backbones

THEN = "+"
WORDS = ["a small red ball", "a big blue box by night", "a ball at the beach", "a box", "it turned"]
CAPTIONS = [f"{WORDS[i % 5]} {WORDS[i % 3]}" for i in range(10)]
CASES = [(join, micro) for join in (False, True) for micro in (1, 2)]
TINY = {"ret_dim": 6, "mapper_width": 8, "mapper_layers": 1, "mapper_heads": 2, "mapper_ffn": 16}
TINY |= {"max_caption_tokens": 24, "batch_size": 8, "warmup_steps": 2, "image_size": 16}


def features(backbones) -> torch.Tensor:
    width = backbones.vision.config.vision_config.hidden_size
    return torch.randn(10, width, generator=torch.Generator().manual_seed(0))


def step_results(join: bool, micro_batches: int, rank: int = 0, size: int = 1, rows=slice(None)):
    """Losses and summed gradients of one step in float64, by name."""
    from gill_lite.model.gill import build_gill
    from gill_lite.training import processes
    from gill_lite.training.data import Examples
    from gill_lite.training.step import Stepper
    from gill_lite.training.train import make_batch

    backbones = tiny_backbones.backbones()
    images, captions = features(backbones)[rows].double(), CAPTIONS[rows]
    profile = tiny_backbones.profile(batch_size=len(captions))
    for module in (backbones.lm, backbones.vision):
        module.double()
    gill = build_gill(profile, backbones).double()
    part = processes.split_batch(profile, rank, size, micro_batches)
    own = Examples(list(range(len(captions))), images, captions).rows(part.own)
    batches = [
        make_batch(gill, backbones, own.rows(micro), profile.max_caption_tokens, (join, join))
        for micro in part.micro_batches
    ]
    stepper = Stepper(profile, gill, part)
    losses = stepper.backward(batches)
    processes.sum_gradients(stepper.parameters)
    gradients = {f"grad.{n}": p.grad for n, p in gill.trainable_parameters().items()}
    return {**losses._asdict(), **gradients}


def gradients(folder: str) -> None:
    from accelerate import PartialState

    group = PartialState(cpu=True)
    rank, size = group.process_index, group.num_processes
    for join, micro in CASES:
        if 2 * size * micro > len(CAPTIONS):
            continue  # fewer pairs of rows than parts
        results = step_results(join, micro, rank, size)
        if group.is_main_process:
            save_file(results, f"{folder}/{join}-{micro}-{size}.safetensors")


def broken(folder: str) -> None:
    from gill_lite.errors import GillError
    from gill_lite.training.train import train

    backbones = tiny_backbones.backbones()
    images = features(backbones)
    images[7] = torch.nan
    pairs = [(i, caption) for i, caption in enumerate(CAPTIONS)]
    profile = tiny_backbones.profile(batch_size=4)
    options = {"image_features": images, "save_every": 1, "steps": 20}
    try:
        train(profile, backbones, pairs, Path(folder, "broken"), seed=3, **options)
    except GillError as error:
        Path(folder, f"error-{os.environ['RANK']}.txt").write_text(str(error))


def train(*arguments: str) -> None:
    from gill_lite import profiles
    from gill_lite.cli import main as cli

    profiles.PROFILES["paper"] = profiles.PAPER.replace(**TINY)
    status = cli.main(["train", *arguments])
    if status:
        sys.exit(status)


if __name__ == "__main__":
    for command in "\n".join(sys.argv[1:]).split(f"\n{THEN}\n"):
        name, *arguments = command.split("\n")
        {"gradients": gradients, "broken": broken, "train": train}[name](*arguments)
