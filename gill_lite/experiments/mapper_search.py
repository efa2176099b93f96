"""Which learning rate does each mapper prefer? The same grid for all: `python -m
gill_lite.experiments.mapper_search`.

Judged by the generation loss on captions that no training sees. Each run starts anew, from the
same seed, with the same pairs in the same order. A mapper that prefers another rate than the one
its joints ship with is trained at it in full, to see what it loses. Paper: the mapper ablation.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from gill_lite.errors import GillError
from gill_lite.evaluation.evaluate import prepare
from gill_lite.evaluation.tables import TABLES
from gill_lite.files import read_rows, write_json
from gill_lite.model.losses import generation_loss
from gill_lite.model.mappers import MAPPERS
from gill_lite.profiles import MINI
from gill_lite.report.scores import scores_frame
from gill_lite.training.data import Examples, world_pairs
from gill_lite.training.recipes import RECIPES
from gill_lite.training.train import LOG, make_batch, train
from gill_lite.world.pictures import NUM_IMAGES, training_caption

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
STEPS = 300  # a third of the full training, before its learning rate first decays
HELD_OUT = 480  # captions
FULL_SEEDS = (0, 1)  # of trainings in full


@dataclass(frozen=True)
class Trial:
    """One short training and what it reached."""

    mapper: str
    learning_rate: float
    steps: int
    seed: int
    generation_loss: float  # on held-out captions, mean L2 norm a slot


@dataclass(frozen=True)
class Full(Trial):
    """A training in full, and what its pictures of full stories are worth."""

    clip_similarity: float  # to the true last picture, mean over the mapper ablation's stories


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


def shipped_rate(mapper: str) -> float:
    """The rate that the mapper's shipped joints were trained at."""
    return RECIPES[mapper].options.get("learning_rate", MINI.learning_rate)


def in_full(backbones, work_dir, mapper: str, rate: float, seeds=FULL_SEEDS) -> list[Full]:
    """Shipped joints of the mapper, and trainings in full at `rate` with all else alike, by seed.

    Goes on where it was killed.
    """
    root, profile = Path(work_dir) / f"full-{mapper}-{rate:g}", MINI.replace(learning_rate=rate)
    pairs, features = world_pairs(backbones, work_dir)
    for seed in seeds:
        folder = root / f"{mapper}-{seed}"
        train(profile, backbones, pairs, folder, seed, mapper=mapper, image_features=features)
    shipped = reached(backbones, mapper, shipped_rate(mapper), seeds)
    return shipped + reached(backbones, mapper, rate, seeds, root)


def reached(
    backbones, mapper: str, rate: float, seeds: Sequence[int], root: Path | None = None
) -> list[Full]:
    """What the mapper's joints in `root` reach; None: the shipped ones. rate: theirs."""
    stories, _ = TABLES["mappers"].parts
    with TemporaryDirectory() as folder:
        evaluation = prepare(
            stories, folder, seeds=seeds, methods=[mapper], joints_root=root, cache_dir=False
        )
        frame = scores_frame(evaluation.run(progress=True).rows)
    scores = frame.groupby("seed")["clip_similarity"].mean().round(4)
    made = []
    for seed in seeds:
        gill = evaluation.scorer.models[mapper, seed].responder.gill
        loss = round(held_out_loss(gill, backbones), 4)
        made.append(Full(mapper, rate, MINI.steps, seed, loss, scores[seed].item()))
    return made


def seconds_of(work_dir) -> float:
    """What all trainings there took, by their logs: they may have been cut off and gone on."""
    logs = [
        path for kind in ("search-*", "full-*/*") for path in Path(work_dir).glob(f"{kind}/{LOG}")
    ]
    return sum(read_rows(path, "training log", "seconds")[-1]["seconds"] for path in logs)


def main(work_dir: str = "runs/train") -> None:
    """Search and write results/mapper_search.json."""
    from gill_lite.model.backbones import load_backbones
    from gill_lite.provenance import collect, repository_root

    started, backbones = time.time(), load_backbones(MINI)
    trials = search(MINI, backbones, work_dir)
    best = best_rates(trials)
    other = {mapper: rate for mapper, rate in best.items() if rate != shipped_rate(mapper)}
    full = [
        one for mapper, rate in other.items() for one in in_full(backbones, work_dir, mapper, rate)
    ]
    result = {
        "trials": [asdict(trial) for trial in trials],
        "best": best,
        "full": [asdict(one) for one in full],
        "training_seconds": round(seconds_of(work_dir)),
        "provenance": collect(started, "mini", "python -m gill_lite.experiments.mapper_search"),
    }
    write_json(repository_root() / "results" / "mapper_search.json", result)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GillError as error:
        sys.exit(f"mapper_search: {error}")
