"""The search for each mapper's learning rate: one grid for all, judged on unseen captions."""

import pandas as pd
import pytest
import torch

from gill_lite.experiments import mapper_search
from gill_lite.experiments.mapper_search import Full, Trial, best_rates, held_out_loss
from gill_lite.files import DATA, read_json
from gill_lite.model.gill import build_gill
from gill_lite.model.losses import generation_loss
from gill_lite.model.mappers import MAPPERS
from gill_lite.model.tokens import encode_captions, img_rows
from gill_lite.profiles import MINI
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


def test_a_mapper_that_prefers_another_rate_was_trained_at_it_in_full():
    found = read_json(RESULTS)
    full = [Full(**one) for one in found["full"]]
    shipped = {mapper: mapper_search.shipped_rate(mapper) for mapper in MAPPERS}
    assert shipped["gill"] == MINI.learning_rate and shipped["linear"] == 0.01
    other = {mapper: rate for mapper, rate in found["best"].items() if rate != shipped[mapper]}
    assert {(one.mapper, one.learning_rate, one.steps, one.seed) for one in full} == {
        (mapper, rate, MINI.steps, seed)
        for mapper, best in other.items()
        for rate in (shipped[mapper], best)
        for seed in mapper_search.FULL_SEEDS
    }
    for one in full:
        short = min(t["generation_loss"] for t in found["trials"] if t["mapper"] == one.mapper)
        assert one.generation_loss < short, "more steps do not help"


def test_what_shipped_joints_reach_is_what_the_table_says():
    scores = pd.read_csv(RESULTS.parent / "mappers_scores.csv")
    for one in (Full(**one) for one in read_json(RESULTS)["full"]):
        if one.learning_rate == mapper_search.shipped_rate(one.mapper):
            rows = scores[(scores.method == one.mapper) & (scores.seed == one.seed)]
            on_stories = rows[rows.context == "captions5_images4"]["clip_similarity"]
            assert on_stories.mean() == pytest.approx(one.clip_similarity, abs=2e-4)
