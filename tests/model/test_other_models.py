"""Other language models and generators by configuration: every one walks the same way.

A random model -> Gill -> a training step -> saved and loaded joints -> forced [IMG] tokens ->
a picture drawn from the mapper's prompt embeddings.
"""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gill_lite.answering import decode
from gill_lite.errors import GillError
from gill_lite.model import losses, tokens
from gill_lite.model.backbones import check_lm
from gill_lite.model.checkpoint import load_joints, save_joints
from gill_lite.model.gill import Batch, Gill, build_gill
from tests.helpers import tiny_backbones

CAPTIONS = ["a small red ball", "a big blue box at the beach by night", "a box", "it turned red"]
WORDS = len(tiny_backbones.WORDS) + 4
PADDED = WORDS + 30  # rows to a round number, as many LMs have: more than [IMG] ids there are

# name: (family, rows of the LM, other settings, the tokenizer's beginning-of-sequence token)
LMS = {
    "opt-350m": ("opt", WORDS, {}, "</s>"),
    "llama": ("llama", WORDS, {"tie_word_embeddings": False}, "</s>"),
    "llama, tied": ("llama", WORDS, {"tie_word_embeddings": True}, "</s>"),
    "llama, padded rows": ("llama", PADDED, {"tie_word_embeddings": False}, "</s>"),
    "qwen2": ("qwen2", PADDED, {"tie_word_embeddings": True}, None),
    "qwen3": ("qwen3", PADDED, {"tie_word_embeddings": False}, None),
    "gpt2": ("gpt2", WORDS, {}, "</s>"),
}


def backbones(lm=None, tokenizer=None, pipeline=None) -> SimpleNamespace:
    """The tiny backbones with one of them exchanged."""
    base = tiny_backbones.backbones()
    given = {"lm": lm, "tokenizer": tokenizer, "pipeline": pipeline}
    return SimpleNamespace(**{**vars(base), **{k: v for k, v in given.items() if v is not None}})


def with_lm(name: str) -> SimpleNamespace:
    family, rows, settings, bos = LMS[name]
    torch.manual_seed(0)
    lm = tiny_backbones.causal_lm(family, rows, **settings)
    return backbones(lm.requires_grad_(False), tiny_backbones.tokenizer(96, bos=bos))


def batch_for(gill, backbones, join: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(0)
    captions = tokens.encode_captions(
        backbones.tokenizer, CAPTIONS, gill.config.img_token_ids, max_tokens=24
    )
    targets = backbones.pipeline.encode_prompt(CAPTIONS, "cpu", 1, False)[0].detach().float()
    images = torch.randn(4, 3, 16, 16, generator=generator)
    return Batch.of(gill.config, images, captions, targets, join, join)


def losses_of(gill, backbones, join: bool = False) -> losses.Losses:
    batch = batch_for(gill, backbones, join)
    return losses.objective(gill(batch), batch.prompt_targets)


def train_a_step(gill, backbones, join: bool):
    """Losses of a step; checks that exactly the joints get gradients, and takes the step."""
    gill.train()
    found = losses_of(gill, backbones, join)
    found.total.backward()
    assert all(torch.isfinite(value) for value in found)
    with_gradient = {n for n, p in gill.named_parameters() if p.grad is not None}
    assert with_gradient == set(gill.trainable_parameters())
    assert all(torch.isfinite(p.grad).all() for p in gill.trainable_parameters().values())
    torch.optim.AdamW(gill.trainable_parameters().values(), lr=1e-3).step()
    gill.rescale_img_embeddings()
    return gill.eval()


def prompts(gill, backbones) -> tuple[torch.Tensor, torch.Tensor]:
    """Two prompts of different length, the second behind a picture."""
    ids = [tokens.encode_text(backbones.tokenizer, text) for text in ("a red box", "it turned")]
    text = [gill.embed(torch.tensor(each)) for each in ids]
    image = gill.visual_tokens(torch.zeros(1, 3, 16, 16))[0]
    return decode.pad_left([text[0], torch.cat([image.to(text[1]), text[1]])])


@torch.no_grad()
def draw(gill, backbones) -> torch.Tensor:
    """Pictures (2, 3, 16, 16) from the [IMG] tokens forced behind the prompts."""
    embeds = gill.prompt_embeds(gill.img_states(*prompts(gill, backbones)))
    assert embeds.shape == (2, 77, backbones.pipeline.unet.config.cross_attention_dim)
    nothing = backbones.pipeline.encode_prompt([""], "cpu", 1, False)[0].expand_as(embeds)
    return backbones.pipeline(
        prompt_embeds=embeds, negative_prompt_embeds=nothing, num_inference_steps=2,
        generator=torch.Generator().manual_seed(0), output_type="pt",
    ).images  # fmt: skip


def walk(backbones, folder, join: bool = True) -> Gill:
    gill = build_gill(tiny_backbones.profile(), backbones)
    trained = train_a_step(gill, backbones, join)
    loaded = load_joints(save_joints(trained, folder, {}), backbones.lm, backbones.vision)
    pictures = draw(loaded, backbones)
    assert pictures.shape == (2, 3, 16, 16) and torch.isfinite(pictures).all()
    assert torch.equal(pictures, draw(trained, backbones))
    return loaded


@pytest.mark.parametrize("name", LMS)
@pytest.mark.parametrize("join", [False, True])
def test_other_language_models_walk(name, join, tmp_path):
    base = with_lm(name)
    base.pipeline.set_progress_bar_config(disable=True)
    check_lm(base.lm, base.tokenizer, name)
    gill = walk(base, tmp_path, join)
    assert gill.config.has_bos == (LMS[name][3] is not None)
    embeds, mask = prompts(gill, base)
    answer = decode.generate(gill, embeds, mask, decode.Sampling(max_words=3, ret_scale_factor=1e6))
    assert [len(ids) for ids in answer.ids] == [24, 24]  # [IMG0] three times, each with its seven
    torch.testing.assert_close(
        torch.stack([states[0] for states in answer.img_hidden]),
        gill.img_states(embeds, mask), rtol=1e-3, atol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("name", LMS)
def test_states_and_logits_are_those_of_the_language_model_itself(name):
    """Alone, and padded on the left beside a longer prompt; the head may be tied or not."""
    base = with_lm(name)
    gill = build_gill(tiny_backbones.profile(), base)
    ids = torch.tensor([[5, 6, 7, 8]])
    theirs = base.lm(input_ids=ids).logits
    own = gill.logits(gill.lm_states(gill.embed(ids)))[..., :WORDS]
    torch.testing.assert_close(own, theirs[..., :WORDS], rtol=1e-4, atol=1e-5)
    longer = torch.randn(9, gill.img_embeddings.shape[1])
    embeds, mask = decode.pad_left([gill.embed(ids)[0], longer])
    beside = gill.logits(gill.lm_states(embeds, mask))[0, -4:, :WORDS]
    torch.testing.assert_close(beside, theirs[0, :, :WORDS], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["llama, padded rows", "qwen2"])
def test_img_ids_take_the_joints_rows_and_not_the_unused_rows_of_the_lm(name):
    base = with_lm(name)
    gill = build_gill(tiny_backbones.profile(), base)
    first, *_, last = gill.config.img_token_ids
    assert WORDS < first and last < PADDED  # they would be rows of the LM's own
    assert torch.equal(gill.embed(torch.tensor([[first, last]]))[0], gill.img_embeddings[[0, -1]])
    states = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    logits = gill.logits(states)
    assert logits.shape == (1, last + 1)  # the unused rows behind cannot be chosen
    torch.testing.assert_close(logits[:, first:], states @ gill.img_embeddings.T)


def test_a_head_with_a_bias_is_followed():
    base = with_lm("llama")
    head = base.lm.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.randn(WORDS), requires_grad=False)
    check_lm(base.lm, base.tokenizer, "biased")
    gill = build_gill(tiny_backbones.profile(), base)
    ids = torch.tensor([[5, 6, 7]])
    own = gill.logits(gill.lm_states(gill.embed(ids)))[..., :WORDS]
    torch.testing.assert_close(own, base.lm(input_ids=ids).logits)


# ---- bf16 --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["opt", "llama, padded rows"])
def test_joints_stay_in_fp32_around_a_bf16_language_model(family, tmp_path):
    base = tiny_backbones.backbones() if family == "opt" else with_lm(family)
    exact = build_gill(tiny_backbones.profile(), base)
    expected = losses_of(exact, base)
    for module in (base.lm, base.vision, base.pipeline.unet, base.pipeline.vae,
                   base.pipeline.text_encoder):  # fmt: skip
        module.bfloat16().requires_grad_(False)
    gill = walk(base, tmp_path)
    assert {p.dtype for p in gill.trainable_parameters().values()} == {torch.float32}
    assert gill.embed(torch.tensor([[5, gill.config.img_token_ids[0]]])).dtype == torch.bfloat16
    assert gill.filler_rows.dtype == torch.bfloat16
    again = build_gill(tiny_backbones.profile(), base)
    for ours, theirs in zip(losses_of(again, base), expected, strict=True):
        assert abs(ours - theirs) < 0.05 * abs(theirs)  # what eight bits of mantissa leave


# ---- generators --------------------------------------------------------------------------


@pytest.mark.parametrize("width", [768, 1024], ids=["Stable Diffusion 1.x", "2.x"])
def test_generators_of_both_prompt_widths_walk(width, tmp_path):
    pipeline = tiny_backbones.pipeline(tiny_backbones.text_encoder_config(width))
    pipeline.set_progress_bar_config(disable=True)
    gill = walk(backbones(pipeline=pipeline), tmp_path)
    assert gill.config.prompt_width == width


def test_generators_the_mapper_cannot_speak_to_are_refused():
    base = tiny_backbones.backbones()
    profile = tiny_backbones.profile()
    base.pipeline.unet.register_to_config(cross_attention_dim=2048)
    with pytest.raises(GillError, match="77 slots of width 8, but its denoiser reads width 2048"):
        build_gill(profile, base)
    base.pipeline.unet.register_to_config(cross_attention_dim=8)
    with pytest.raises(GillError, match="profile has 40 slots"):
        build_gill(profile.replace(prompt_slots=40), base)
    base.pipeline = SimpleNamespace(text_encoder_2=object(), text_encoder=object())
    with pytest.raises(GillError, match="reads two text encoders .* Stable Diffusion 1.x or 2.x"):
        build_gill(profile, base)


# ---- language models the joints cannot stand on --------------------------------------------


def refuses(lm, says: str, tokenizer=None) -> None:
    with pytest.raises(GillError, match=says) as caught:
        check_lm(lm, tokenizer or tiny_backbones.tokenizer(), "some/model")
    assert "some/model" in str(caught.value) and "\n" not in str(caught.value)


def test_language_models_that_compute_otherwise_are_refused():
    from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

    small = {"vocab_size": WORDS, "hidden_size": 16}
    refuses(BloomForCausalLM(BloomConfig(n_layer=1, n_head=2, **small)), "position_ids")
    mamba = MambaForCausalLM(MambaConfig(num_hidden_layers=1, state_size=4, **small))
    refuses(mamba, "does not take .*past_key_values")
    unpadded = SimpleNamespace(pad_token_id=None, eos_token_id=None)
    llama = tiny_backbones.causal_lm("llama", WORDS)
    refuses(llama, "neither a pad nor an end-of-sequence token", unpadded)


def test_language_models_that_cap_or_scale_are_refused():
    from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

    small = {"vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 32}
    small |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    granite = GraniteForCausalLM(GraniteConfig(logits_scaling=8.0, **small)).eval()
    refuses(granite, "scales or caps its logits")
    gemma = Gemma2ForCausalLM(Gemma2Config(head_dim=8, **small)).eval()
    refuses(gemma, "scales its embeddings")
    llama = tiny_backbones.causal_lm("llama", WORDS)
    llama.lm_head.register_forward_hook(lambda *call: 5 * torch.tanh(call[-1] / 5))
    refuses(llama, "scales or caps its logits")


def test_a_two_row_step_equals_two_steps_of_one_row():
    """Nothing of a row's loss depends on the padding beside it, also with rotary positions."""
    base = with_lm("llama")
    gill = build_gill(tiny_backbones.profile(), base)
    ids, labels, lengths = rows = batch_for(gill, base).img_rows
    alone = []
    for i in range(4):
        own = slice(i, i + 1), slice(int(lengths[i]))
        alone.append(gill.img_pass(tokens.Rows(ids[own], labels[own], lengths[i : i + 1])).hidden)
    together = gill.img_pass(rows).hidden
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert F.cosine_similarity(together[0, 0], together[1, 0], dim=0) < 0.999
