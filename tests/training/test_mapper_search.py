"""The search for each mapper's learning rate: one grid for all, judged on unseen captions."""

import pytest
import torch

from gill_lite.files import DATA, read_json
from gill_lite.model.gill import build_gill
from gill_lite.model.losses import generation_loss
from gill_lite.model.mappers import MAPPERS
from gill_lite.model.tokens import encode_captions, img_rows
from gill_lite.training import mapper_search
from gill_lite.training.mapper_search import Trial, best_rates, held_out_loss
from gill_lite.world.pictures import NUM_IMAGES, training_caption
from tests.helpers import tiny_backbones

RESULTS = DATA.parent / "results" / "mapper_search.json"


def test_held_out_loss_is_the_mean_over_unseen_captions():
    backbones, profile = tiny_backbones.backbones(), tiny_backbones.profile(max_caption_tokens=77)
    backbones.profile = profile
    gill = build_gill(profile, backbones)
    captions = [training_caption(NUM_IMAGES + i, 0) for i in range(2 * profile.batch_size)]
    ids = gill.config.img_token_ids
    with torch.no_grad():
        rows = img_rows(encode_captions(backbones.tokenizer, captions, ids, 77), gill.config)
        hidden = gill.img_pass(rows).hidden
        target = backbones.pipeline.encode_prompt(captions, "cpu", 1, False)[0]
        expected = generation_loss(gill.prompt_embeds(hidden), target).item()
    assert held_out_loss(gill, backbones, len(captions)) == pytest.approx(expected, rel=1e-4)


def test_the_best_rate_has_the_lowest_loss():
    trials = [
        Trial(mapper, rate, 300, 0, loss)
        for mapper, rate, loss in (("gill", 1e-3, 2.0), ("gill", 3e-3, 1.0), ("mlp", 1e-3, 5.0))
    ]
    assert best_rates(trials) == {"gill": 3e-3, "mlp": 1e-3}


def test_the_committed_search_tried_all_mappers_alike_and_ends_inside_its_grid():
    found = read_json(RESULTS)
    trials = [Trial(**trial) for trial in found["trials"]]
    tried = {(t.mapper, t.learning_rate, t.steps, t.seed) for t in trials}
    rates, steps = mapper_search.RATES, mapper_search.STEPS
    assert tried == {(m, rate, steps, 0) for m in MAPPERS for rate in rates}
    assert found["best"] == best_rates(trials)
    assert all(rates[0] < rate < rates[-1] for rate in found["best"].values())
