"""Which learning rate does each mapper prefer? The same grid for all: `python -m
gill_lite.training.mapper_search`.

Judged by the generation loss on captions that no training sees. Each run starts anew, from the
same seed, with the same pairs in the same order. Paper: the mapper ablation.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gill_lite.errors import GillError
from gill_lite.files import write_json
from gill_lite.model.losses import generation_loss
from gill_lite.model.mappers import MAPPERS
from gill_lite.training.data import Examples, world_pairs
from gill_lite.training.train import make_batch, train
from gill_lite.world.pictures import NUM_IMAGES, training_caption

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
STEPS = 300  # a third of the full training, before its learning rate first decays
HELD_OUT = 480  # captions


@dataclass(frozen=True)
class Trial:
    """One short training and what it reached."""

    mapper: str
    learning_rate: float
    steps: int
    seed: int
    generation_loss: float  # on held-out captions, mean L2 norm a slot


@torch.no_grad()
def held_out_loss(gill, backbones, count: int = HELD_OUT) -> float:
    """Mean generation loss on `count` single captions drawn as in training, from unseen numbers."""
    size = backbones.profile.batch_size
    losses = []
    for first in range(NUM_IMAGES, NUM_IMAGES + count, size):
        captions = [training_caption(i, 0) for i in range(first, first + size)]
        features = torch.zeros(size, gill.visual_fc.in_features)  # not read by this pass
        examples = Examples(list(range(size)), features, captions)
        batch = make_batch(gill, backbones, examples, backbones.profile.max_caption_tokens)
        predicted = gill.prompt_embeds(gill.img_pass(batch.img_rows).hidden)  # (B, L, E)
        losses.append(generation_loss(predicted, batch.prompt_targets).item())
    return sum(losses) / len(losses)


def search(profile, backbones, work_dir, mappers=tuple(MAPPERS), rates=RATES, steps=STEPS, seed=0):
    """Train every mapper at every rate; returns a list of Trial. Goes on where it was killed."""
    work_dir = Path(work_dir)
    pairs, features = world_pairs(backbones, work_dir)
    trials = []
    for mapper in mappers:
        for rate in rates:
            gill = train(
                profile.replace(learning_rate=rate), backbones, pairs,
                work_dir / f"search-{mapper}-{rate:g}", seed,
                steps=steps, mapper=mapper, image_features=features,
            )  # fmt: skip
            loss = round(held_out_loss(gill, backbones), 4)
            trials.append(Trial(mapper, rate, steps, seed, loss))
            print(trials[-1], flush=True)
    return trials


def best_rates(trials) -> dict[str, float]:
    """The rate with the lowest held-out loss, by mapper."""
    best = {}
    for trial in sorted(trials, key=lambda trial: trial.generation_loss):
        best.setdefault(trial.mapper, trial.learning_rate)
    return best


def main(work_dir: str = "runs/train") -> None:
    """Search and write results/mapper_search.json."""
    from gill_lite.model.backbones import load_backbones
    from gill_lite.profiles import MINI
    from gill_lite.provenance import collect, repository_root

    started = time.time()
    trials = search(MINI, load_backbones(MINI), work_dir)
    result = {
        "trials": [asdict(trial) for trial in trials],
        "best": best_rates(trials),
        "provenance": collect(started, "mini", "python -m gill_lite.training.mapper_search"),
    }
    write_json(repository_root() / "results" / "mapper_search.json", result)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GillError as error:
        sys.exit(f"mapper_search: {error}")
