"""Training: a step of the joints, beside three LM passes over captions padded to 32."""

import numpy as np
import pytest
import torch

from benchmarks import reference
from benchmarks.record import faster, versus
from gill_lite.model.gill import build_gill
from gill_lite.profiles import MINI
from gill_lite.training.data import Examples
from gill_lite.training.processes import split_batch
from gill_lite.training.step import Stepper, learning_rate
from gill_lite.training.train import make_batch
from gill_lite.world.pictures import training_caption

STEP = 1000  # a step behind the warm-up
PARTS = ("captioning", "img_lm", "retrieval", "generation")
NAMES = {"loss": "total", **dict(zip(PARTS, PARTS)), "gradient_norm": "norm"}  # ours: theirs
PAIRS = {"OPT of the mini shape": MINI.batch_size, "OPT-125m's shape": 24}
ROUNDS = {"OPT of the mini shape": 7, "OPT-125m's shape": 1}


def captions(tokenizer, count: int) -> list[str]:
    """The mini world's training captions; for another vocabulary as many words, at random."""
    texts, rng = [training_caption(i, 0) for i in range(count)], np.random.default_rng(0)
    known = sorted(word for word in tokenizer.get_vocab() if word.isalnum())
    if "ball" in known:
        return texts
    return [" ".join(rng.choice(known, len(text.split()))) for text in texts]


def same(ours: dict, theirs: dict) -> None:
    """The losses of the last of several equal steps, and the length of their gradient."""
    for mine, official in NAMES.items():
        assert ours[mine] == pytest.approx(theirs[official], rel=1e-3), mine


@pytest.fixture
def case(shaped):
    """Profile, two equal fresh models and a batch, for each shape of language model."""
    weights, responder = shaped
    backbones, pairs = responder.backbones, PAIRS[weights]
    profile = MINI.replace(
        batch_size=pairs, max_caption_tokens=reference.LENGTH, join_probability=0.0
    )
    gills = [build_gill(profile, backbones) for _ in range(2)]
    features = torch.randn(pairs, backbones.vision.config.vision_config.hidden_size)  # (B, Dv)
    examples = Examples(list(range(pairs)), features, captions(backbones.tokenizer, pairs))
    batch = make_batch(gills[0], backbones, examples, profile.max_caption_tokens)
    return weights, profile, *gills, batch


def test_training_step(benchmark, case, quick):
    weights, profile, ours, theirs, batch = case
    stepper = Stepper(profile, ours, split_batch(profile))
    official = Stepper(profile, theirs, split_batch(profile)).optimizer
    official.param_groups[0]["lr"] = learning_rate(profile, STEP)
    versus(
        benchmark, f"a training step of the joints, {profile.batch_size} captions", weights,
        lambda: stepper(STEP, [batch]),
        lambda: reference.training_step(theirs, official, profile, batch),
        faster(2), same, rounds=1 if quick else ROUNDS[weights],
    )  # fmt: skip


def test_passes_of_the_language_model(benchmark, case, quick):
    weights, profile, ours, theirs, batch = case
    if "mini" not in weights:
        pytest.skip("there they are nearly the whole step")

    def two() -> float:
        said = ours.captioning_pass(batch.images, batch.captioning_rows)
        read = ours.img_pass(batch.img_rows).lm_loss
        (said + 2 * profile.lm_loss_weight * read).backward()
        return said.item() + read.item()

    def three() -> float:
        said, *read = reference.language_model_passes(theirs, batch)
        (said.lm_loss + profile.lm_loss_weight * sum(one.lm_loss for one in read)).backward()
        return said.lm_loss.item() + read[0].lm_loss.item()

    def agree(mine: float, official: float) -> None:
        assert mine == pytest.approx(official, rel=1e-4)

    what = "of it, the passes of the language model and their gradient"
    versus(benchmark, what, weights, two, three, None, agree, rounds=1 if quick else 7)
