"""Each loss against its equation, written out number by number; the step against three passes."""

import math

import pytest
import torch
import torch.nn.functional as F

from gill_lite.model import losses, tokens
from gill_lite.model.gill import Batch, build_gill
from gill_lite.model.tokens import IGNORE
from tests.helpers import tiny_backbones


def test_caption_loss_is_the_mean_negative_log_probability_of_labelled_tokens():
    logits = torch.tensor([[[1.0, 2.0, 0.5], [0.0, 0.0, 0.0], [3.0, -1.0, 0.0]]])
    targets = torch.tensor([[1, IGNORE, 0]])
    first = -math.log(math.exp(2) / (math.exp(1) + math.exp(2) + math.exp(0.5)))
    last = -math.log(math.exp(3) / (math.exp(3) + math.exp(-1) + 1))
    assert math.isclose(
        losses.caption_loss(logits, targets).item(), (first + last) / 2, abs_tol=1e-6
    )


def test_retrieval_loss_is_the_mean_of_both_directions():
    text = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    image = torch.tensor([[0.0, 1.0], [0.6, -0.8]])
    scale = math.log(2.0)
    cosine = [[0.0, 0.6], [0.8, -0.28]]  # text by image; the directions differ
    e = [[math.exp(2 * value) for value in row] for row in cosine]
    text_to_image = sum(-math.log(e[i][i] / sum(e[i])) for i in range(2)) / 2
    columns = [[e[0][j], e[1][j]] for j in range(2)]
    image_to_text = sum(-math.log(columns[j][j] / sum(columns[j])) for j in range(2)) / 2
    got = losses.retrieval_loss(text, image, torch.tensor(scale)).item()
    assert math.isclose(got, (text_to_image + image_to_text) / 2, abs_tol=1e-6)


def test_retrieval_loss_is_symmetric_only_in_its_two_sides():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 3, generator=generator) for _ in range(2))
    scale = torch.tensor(0.3)
    torch.testing.assert_close(
        losses.retrieval_loss(a, b, scale), losses.retrieval_loss(b, a, scale)
    )
    shuffled = losses.retrieval_loss(a, b.flip(0), scale)
    assert not torch.isclose(losses.retrieval_loss(a, b, scale), shuffled)


def test_generation_loss_is_the_norm_and_not_its_square():
    predicted = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])  # norms 5 and 1
    target = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
    assert losses.generation_loss(predicted, target).item() == 3.0


def test_the_diffusion_loss_is_that_of_the_velocity():
    """The mixture and the target are those of Diffusers' scheduler."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler()
    latents, noise, said = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times, seen = torch.tensor([3, 700]), []

    def denoise(noisy, times):
        seen.append((noisy, times))
        return said

    got = losses.diffusion_loss(denoise, latents, noise, times, scheduler.alphas_cumprod)
    expected = (said - scheduler.get_velocity(latents, noise, times)).square().mean()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(seen[0][0], scheduler.add_noise(latents, noise, times))
    assert seen[0][1] is times


def test_generation_loss_has_a_gradient_where_it_is_zero():
    predicted = torch.ones(1, 2, 3, requires_grad=True)
    losses.generation_loss(predicted, torch.ones(1, 2, 3)).backward()
    assert torch.equal(predicted.grad, torch.zeros(1, 2, 3))


# The official step runs the LM three times: captioning, retrieval, generation ------------

CAPTIONS = ["a small red ball", "a big blue box at the beach by night", "a box", "it turned red"]


def read(gill, pieces):
    """The LM over one row alone: its last states (T, D) and next-token logits (T, V)."""
    table = [gill.lm.get_input_embeddings().weight, gill.filler_rows, gill.img_embeddings]
    table = torch.cat(table)  # (V, D), as the official code's resized vocabulary
    embeds = [piece if piece.is_floating_point() else table[piece] for piece in pieces]
    states = gill.lm.base_model(inputs_embeds=torch.cat(embeds)[None]).last_hidden_state[0]
    return states, states @ table.T


def one_row(gill, batch, captions, task, group):
    """Embeddings or ids, labels, and ends of the captions of one row; official layout."""
    num_img, visual = gill.config.num_img_tokens, gill.visual_tokens(batch.images)
    pieces, labels, ends = [], [], []
    for place, i in enumerate(group):
        ids = captions.input_ids[i, : captions.lengths[i]]
        ids = ids[1:] if place else ids  # the second caption of a row has no BOS
        if task == "captioning":  # visual tokens and text, which alone is labelled
            pieces += [visual[i], ids[:-num_img]]
            labels += [IGNORE] * len(visual[i]) + ids[:-num_img].tolist()
        else:  # text and [IMG] tokens; labels end at the row's first [IMG0]
            pieces.append(ids)
            count = 0 if place else len(ids) - num_img + 1
            labels += ids[:count].tolist() + [IGNORE] * (len(ids) - count)
        ends.append(len(labels))
    return pieces, labels, ends


def one_pass(gill, batch, captions, task, join):
    """Mean LM loss of one pass, its rows one by one, and the states before each caption's end."""
    num_img = gill.config.num_img_tokens
    log_probabilities, hidden = [], []
    for group in [(0, 1), (2, 3)] if join else [(0,), (1,), (2,), (3,)]:
        pieces, labels, ends = one_row(gill, batch, captions, task, group)
        states, logits = read(gill, pieces)
        for position, label in enumerate(labels[1:]):
            if label != IGNORE:
                log_probabilities.append(logits[position].log_softmax(dim=0)[label])
        hidden += [states[end - num_img : end] for end in ends]
    return -torch.stack(log_probabilities).mean(), hidden


def three_passes(gill, batch, captions, join_captioning, join_img):
    """1 x captioning + 0.5 x LM loss in each of the other two + InfoNCE + mean slot distance."""
    captioning, _ = one_pass(gill, batch, captions, "captioning", join_captioning)
    retrieval_lm, hidden = one_pass(gill, batch, captions, "retrieval", join_img)
    hidden = torch.stack(hidden)  # (B, R, D)
    text = F.normalize(gill.ret_head(hidden[:, 0]), dim=-1)
    image = F.normalize(gill.visual_fc(batch.images), dim=-1)
    logits = gill.logit_scale.exp() * text @ image.T
    rows, columns = logits.log_softmax(dim=1).diag(), logits.log_softmax(dim=0).diag()
    info_nce = -(rows.mean() + columns.mean()) / 2
    generation_lm, hidden = one_pass(gill, batch, captions, "generation", join_img)
    hidden = torch.stack(hidden)
    predicted = gill.mapper(hidden, gill.img_embeddings.expand_as(hidden))
    distance = (predicted - batch.prompt_targets).pow(2).sum(dim=-1).sqrt().mean()
    return captioning + 0.5 * retrieval_lm + info_nce + 0.5 * generation_lm + distance


@pytest.mark.parametrize("join_captioning", [False, True])
@pytest.mark.parametrize("join_img", [False, True])
def test_two_passes_give_loss_and_gradient_of_the_official_three(join_captioning, join_img):
    backbones = tiny_backbones.backbones()
    backbones.lm.double()
    gill = build_gill(tiny_backbones.profile(), backbones).double()
    img_ids = gill.config.img_token_ids
    captions = tokens.encode_captions(backbones.tokenizer, CAPTIONS, img_ids, 24)
    generator = torch.Generator().manual_seed(0)
    shapes = (4, 8), (4, 77, 8)
    images, targets = (torch.randn(s, generator=generator).double() for s in shapes)
    batch = Batch.of(gill.config, images, captions, targets, join_captioning, join_img)
    joints = list(gill.trainable_parameters().values())
    three = three_passes(gill, batch, captions, join_captioning, join_img)
    two = losses.objective(gill(batch), targets, lm_loss_weight=0.5).total
    assert abs(two.item() - three.item()) < 1e-10
    for ours, theirs in zip(*(torch.autograd.grad(t, joints) for t in (two, three)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_bfloat16_embeddings_are_compared_in_float32():
    a, b = (torch.randn(4, 8).bfloat16() for _ in range(2))
    got = losses.retrieval_loss(a, b, torch.tensor(0.0))
    assert got.dtype == torch.float32
    assert got == losses.retrieval_loss(a.float(), b.float(), torch.tensor(0.0))
