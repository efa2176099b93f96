"""Decoding against the official algorithm, written out slowly; what batching must not change."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks import reference
from gill_lite.answering.decode import (
    Decoded,
    Sampling,
    generate,
    nucleus,
    pad_left,
    scale_img_logit,
)
from gill_lite.errors import GillError
from gill_lite.model.gill import build_gill
from tests.helpers import tiny_backbones


@pytest.fixture(scope="module")
def gill():
    return build_gill(tiny_backbones.profile(num_img_tokens=3), tiny_backbones.backbones())


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 16, generator=generator) for n in (5, 2, 9, 7)]


SETTINGS = [
    Sampling(max_words=8),
    Sampling(max_words=8, ret_scale_factor=2.0),
    Sampling(max_words=8, ret_scale_factor=1.5, gen_scale_factor=3.0, min_words=3),
    Sampling(max_words=4, gen_scale_factor=1e6),
]


@pytest.mark.parametrize("sampling", SETTINGS)
def test_batched_and_cached_equals_the_official_loop(gill, prompts, sampling):
    expected = [reference.decode(gill, prompt, sampling) for prompt in prompts]
    got = generate(gill, *pad_left(prompts), sampling)
    assert got.ids == expected
    first = gill.config.img_token_ids[0]
    for row, ids in enumerate(expected):
        states = reference.states_of(gill, prompts[row], ids)
        starts = [i for i, token in enumerate(ids) if token == first]
        assert got.img_starts[row] == starts
        assert got.img_hidden[row].shape == (len(starts), 3, 16)
        for start, hidden in zip(starts, got.img_hidden[row], strict=True):
            torch.testing.assert_close(hidden, states[start : start + 3], rtol=1e-4, atol=1e-4)


def test_the_settings_above_meet_both_kinds_of_rows(gill, prompts):
    """Guards the test above: some rows say [IMG0], some words, some both."""
    ids = [row for s in SETTINGS for row in generate(gill, *pad_left(prompts), s).ids]
    first = gill.config.img_token_ids[0]
    kinds = {(first in row, any(token < first for token in row)) for row in ids}
    assert {(True, False), (False, True)} <= kinds


def test_sampled_rows_depend_on_their_own_generator_only(gill, prompts):
    sampling = Sampling(max_words=6, temperature=1.0, top_p=0.9)

    def answer(rows) -> Decoded:
        generators = [torch.Generator().manual_seed(10 + i) for i in rows]
        return generate(gill, *pad_left([prompts[i] for i in rows]), sampling, generators)

    together, apart = answer([0, 1, 2, 3]), [answer([i]).ids[0] for i in (3, 1)]
    assert [together.ids[3], together.ids[1]] == apart
    assert len({tuple(row) for row in together.ids}) > 1


def test_a_row_ends_with_a_stop_id_and_the_others_go_on(gill, prompts):
    free = generate(gill, *pad_left(prompts), Sampling(max_words=6)).ids
    stop = free[0][2]
    got = generate(gill, *pad_left(prompts), Sampling(max_words=6, stop_ids=(stop,))).ids
    expected = [row[: row.index(stop) + 1] if stop in row else row for row in free]
    assert got == expected


def test_nothing_is_said_in_no_words(gill, prompts):
    got = generate(gill, *pad_left(prompts), Sampling(max_words=0))
    assert got.ids == [[]] * 4 and got.img_hidden[0].shape == (0, 3, 16)


def test_img_logit_is_scaled_by_its_absolute_value():
    logits = torch.tensor([[0.5, 2.0, -3.0, 9.0, 9.0]])
    words = torch.tensor([2])
    sampling = Sampling(min_words=2, ret_scale_factor=2.0, gen_scale_factor=1.5)
    got = scale_img_logit(logits, words, (2, 3, 4), sampling)
    assert got.tolist() == [[0.5, 2.0, 9.0, -torch.inf, -torch.inf]]
    early = scale_img_logit(logits, words - 1, (2, 3, 4), sampling)
    assert early.tolist() == [[0.5, 2.0] + [-torch.inf] * 3]
    assert logits.tolist() == [[0.5, 2.0, -3.0, 9.0, 9.0]]


def test_factors_of_one_or_less_change_nothing():
    logits = torch.tensor([[0.5, -3.0]])
    sampling = Sampling(ret_scale_factor=1.0, gen_scale_factor=0.5)
    assert scale_img_logit(logits, torch.tensor([0]), (1,), sampling).tolist() == [[0.5, -3.0]]


@pytest.mark.parametrize("top_p, kept", [(1.0, 4), (0.45, 1), (0.55, 2), (0.95, 4)])
def test_nucleus_keeps_the_first_token_above_the_threshold(top_p, kept):
    probabilities = torch.tensor([[0.1, 0.5, 0.3, 0.1]])
    got = nucleus(probabilities.log(), top_p)
    order = [1, 2, 0, 3]
    assert sorted(got.nonzero()[:, 1].tolist()) == sorted(order[:kept])
    torch.testing.assert_close(got[got > 0], probabilities[got > 0])


def test_pad_left():
    embeds, mask = pad_left([torch.ones(1, 2), torch.full((3, 2), 2.0)])
    assert embeds[..., 0].tolist() == [[0, 0, 1], [2, 2, 2]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_greedy_decoding_takes_no_top_p():
    with pytest.raises(GillError, match="top_p needs a temperature"):
        Sampling(top_p=0.9)
    with pytest.raises(GillError, match="top_p in "):
        Sampling(temperature=1.0, top_p=0.0)


def test_a_prompt_that_leaves_no_room_to_answer(gill):
    with pytest.raises(GillError, match="needs 100 positions, answer included"):
        generate(gill, torch.zeros(1, 90, 16), None, Sampling(max_words=10))


def test_img_tokens_that_outgrow_the_lm(gill):
    prompt = F.pad(torch.ones(1, 1, 16), (0, 0, 85, 0))
    with pytest.raises(GillError, match="needs 97 positions"):
        generate(gill, prompt, None, Sampling(max_words=10, gen_scale_factor=1e6))
