"""Gill around tiny random backbones: what is trained, what is not, and equal forms of a step."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gill_lite.errors import GillError
from gill_lite.model import gill as model
from gill_lite.model import losses, tokens
from gill_lite.model.config import GillConfig
from gill_lite.model.gill import Batch, Gill, build_gill
from gill_lite.model.mappers import MAPPERS
from tests.helpers import tiny_backbones

# Sorted by length these go round in a circle, so that sorting and its inverse differ.
CAPTIONS = ["a small red ball", "a big blue box at the beach by night", "it turned red", "a box"]


@pytest.fixture(scope="module")
def backbones():
    return tiny_backbones.backbones()


@pytest.fixture
def gill(backbones):
    return build_gill(tiny_backbones.profile(), backbones)


def batch_for(gill, backbones, join=False, more_padding=0):
    generator = torch.Generator().manual_seed(0)
    img_ids = gill.config.img_token_ids
    ids, lengths = tokens.encode_captions(backbones.tokenizer, CAPTIONS, img_ids, max_tokens=24)
    captions = tokens.Captions(F.pad(ids, (0, more_padding), value=1), lengths)
    images = torch.randn(4, 3, 16, 16, generator=generator)
    targets = torch.randn(4, 77, 8, generator=generator)
    return Batch.of(gill.config, images, captions, targets, join, join)


def losses_of(gill, batch):
    return losses.objective(gill(batch), batch.prompt_targets)


TRAINED_OUTSIDE_THE_MAPPER = {
    "img_embeddings",
    "logit_scale",
    "ret_head.weight",
    "ret_head.bias",
    "visual_embeddings.weight",
    "visual_embeddings.bias",
    "visual_fc.weight",
    "visual_fc.bias",
}


@pytest.mark.parametrize("kind", MAPPERS)
def test_gradient_reaches_the_declared_parameters_and_no_other(backbones, kind):
    gill = build_gill(tiny_backbones.profile(), backbones, kind)
    losses_of(gill, batch_for(gill, backbones)).total.backward()
    with_gradient = {n for n, p in gill.named_parameters() if p.grad is not None}
    mapper = {f"mapper.{name}" for name, _ in gill.mapper.named_parameters()}
    assert with_gradient == TRAINED_OUTSIDE_THE_MAPPER | mapper
    assert with_gradient == set(gill.trainable_parameters())
    empty = {n for n, p in gill.trainable_parameters().items() if not p.grad.abs().sum() > 0}
    assert empty == set()


def test_paper_size_has_the_papers_number_of_learned_numbers():
    from transformers import CLIPVisionConfig, CLIPVisionModel, OPTConfig, OPTForCausalLM

    with torch.device("meta"):
        opt = OPTConfig(hidden_size=4096, word_embed_proj_dim=4096, num_hidden_layers=0)
        vision = CLIPVisionConfig(hidden_size=1024, num_hidden_layers=0, num_attention_heads=16)
        config = GillConfig(img_token_ids=range(50266, 50274), prompt_width=768)
        gill = Gill(OPTForCausalLM(opt), CLIPVisionModel(vision), config)
    assert sum(p.numel() for p in gill.trainable_parameters().values()) == 50_096_385


def official_lm(gill):
    """The LM as the official code has it: a vocabulary that holds the [IMG] rows."""
    lm = copy.deepcopy(gill.lm)
    rows = torch.cat([gill.lm.get_input_embeddings().weight, gill.filler_rows, gill.img_embeddings])
    lm.resize_token_embeddings(len(rows))
    lm.get_input_embeddings().weight.data.copy_(rows)
    return lm.eval()


def pass_by_hand(gill, lm, prefix, ids, length, last_label):
    """One row alone, unpadded: LM loss sum, label count, [IMG] states."""
    num_img = gill.config.num_img_tokens
    embeds = torch.cat([prefix, lm.get_input_embeddings()(ids[:length])])[None]
    labels = ids[:length].clone()
    labels[length - num_img + last_label :] = tokens.IGNORE
    labels = torch.cat([labels.new_full([len(prefix)], tokens.IGNORE), labels])
    out = lm(inputs_embeds=embeds, output_hidden_states=True)
    loss = F.cross_entropy(out.logits[0, :-1], labels[1:], ignore_index=-100, reduction="sum")
    return loss, (labels[1:] != tokens.IGNORE).sum(), out.hidden_states[-1][0, -num_img:]


def test_two_passes_equal_three_passes_row_by_row(gill, backbones):
    """Captioning, retrieval and generation, each on its own, without batch or padding."""
    batch, lm = batch_for(gill, backbones), official_lm(gill)
    visual, empty = gill.visual_tokens(batch.images), torch.zeros(0, 16)
    found = {}
    for task in ("captioning", "retrieval", "generation"):
        parts = [
            pass_by_hand(gill, lm, prefix, ids, length, int(task != "captioning"))
            for prefix, ids, length in zip(
                visual if task == "captioning" else [empty] * 4,
                batch.img_rows.input_ids,
                batch.img_rows.lengths,
                strict=True,
            )
        ]
        found[task] = sum(loss for loss, _, _ in parts) / sum(count for _, count, _ in parts)
        hidden = torch.stack([states for _, _, states in parts])
    text = F.normalize(gill.ret_head(hidden[:, 0]), dim=-1)
    logits = gill.logit_scale.exp() * text @ gill.image_features(batch.images).T
    own = torch.arange(4)
    info_nce = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    distance = (gill.prompt_embeds(hidden) - batch.prompt_targets).norm(dim=-1).mean()
    total = found["captioning"] + 0.5 * found["retrieval"] + info_nce
    total = total + 0.5 * found["generation"] + distance
    got = losses_of(gill, batch)
    torch.testing.assert_close(got.total, total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.captioning, found["captioning"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.img_lm, found["generation"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.retrieval, info_nce, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.generation, distance, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("join", [False, True])
def test_padding_changes_nothing(gill, backbones, join):
    batch = batch_for(gill, backbones, join)
    wide = batch_for(gill, backbones, join, more_padding=9)
    for ours, theirs in zip(gill(batch), gill(wide), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("join", [False, True])
def test_reading_rows_of_like_length_together_changes_nothing(gill, backbones, join, monkeypatch):
    batch = batch_for(gill, backbones, join)
    together = gill(batch)
    monkeypatch.setattr(model, "ROWS_TOGETHER", 1)
    for ours, theirs in zip(gill(batch), together, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_joined_captions_see_the_first_of_the_pair(gill, backbones):
    batches = (batch_for(gill, backbones, join) for join in (False, True))
    alone, joined = (gill.img_pass(batch.img_rows).hidden for batch in batches)
    torch.testing.assert_close(alone[0::2], joined[0::2])
    assert (alone[1::2] - joined[1::2]).abs().max() > 1e-3


def test_pooled_features_stand_for_pixels(gill, backbones):
    batch = batch_for(gill, backbones)
    cached = batch._replace(images=gill.pooled(batch.images))
    assert cached.images.shape == (4, 8)
    for ours, theirs in zip(gill(batch), gill(cached), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_img_states_do_not_depend_on_padding_or_batch(gill):
    generator = torch.Generator().manual_seed(0)
    short, long = (torch.randn(n, 16, generator=generator) for n in (3, 7))
    alone = [gill.img_states(prompt[None])[0] for prompt in (short, long)]
    for side in ((4, 0), (0, 4)):
        embeds = torch.stack([F.pad(short, (0, 0, *side), value=9.0), long])
        mask = torch.stack([F.pad(torch.ones(3), side), torch.ones(7)]).long()
        for ours, theirs in zip(gill.img_states(embeds, mask), alone, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_embed_takes_text_rows_from_the_lm_and_img_rows_from_the_joints(gill, backbones):
    table = backbones.lm.get_input_embeddings().weight
    first = gill.config.img_token_ids[0]
    got = gill.embed(torch.tensor([[5, first, first + 7, first - 1]]))[0]
    expected = [table[5], gill.img_embeddings[0], gill.img_embeddings[7], table.mean(dim=0)]
    torch.testing.assert_close(got, torch.stack(expected))


def test_logits_are_those_of_a_resized_lm(gill):
    embeds = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    expected = official_lm(gill)(inputs_embeds=embeds).logits
    torch.testing.assert_close(gill.logits(gill.lm_states(embeds)), expected)


def test_img_rows_get_the_mean_norm_of_the_other_rows(gill):
    with torch.no_grad():
        gill.img_embeddings.mul_(torch.arange(1.0, 9.0)[:, None])
    direction = F.normalize(gill.img_embeddings, dim=1)
    gill.rescale_img_embeddings()
    others = torch.cat([gill.lm.get_input_embeddings().weight, gill.filler_rows])
    norms = gill.img_embeddings.norm(dim=1)
    torch.testing.assert_close(norms, others.norm(dim=1).mean().expand(8))
    torch.testing.assert_close(F.normalize(gill.img_embeddings, dim=1), direction)


def test_frozen_backbones_stay_in_evaluation_mode(gill):
    gill.train()
    assert gill.training and gill.mapper.training
    assert not any(m.training for m in [*gill.lm.modules(), *gill.vision.modules()])


def test_the_seed_alone_sets_the_start_values(backbones):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (
        build_gill(tiny_backbones.profile(), backbones, seed=s) for s in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.img_embeddings, again.img_embeddings)
    assert torch.equal(first.mapper.queries, again.mapper.queries)
    assert not torch.equal(first.mapper.queries, other.mapper.queries)


def test_a_prompt_longer_than_the_lm_can_read(gill):
    with pytest.raises(GillError, match="needs 98 positions, .* has 96"):
        gill.img_states(torch.zeros(1, 90, 16))


def test_img_ids_must_be_consecutive():
    with pytest.raises(GillError, match="8 consecutive ids"):
        GillConfig(img_token_ids=(5, 6, 7), prompt_width=8)


def test_sizes_come_from_profile_and_backbones(backbones):
    stub = SimpleNamespace(**vars(backbones))
    gill = build_gill(tiny_backbones.profile(num_img_tokens=4, num_visual_tokens=2), stub)
    assert gill.config.prompt_width == 8
    assert gill.config.img_token_ids == tuple(range(gill.own_rows + 1, gill.own_rows + 5))
    assert gill.visual_tokens(torch.zeros(3, 3, 16, 16)).shape == (3, 2, 16)
    assert gill.image_features(torch.zeros(3, 3, 16, 16)).shape == (3, 6)
