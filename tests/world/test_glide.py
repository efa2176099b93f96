"""The mini GLIDE: shapes, seeds, guidance, saving and loading, and its pretraining stage."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch

from gill_lite.errors import GillError
from gill_lite.files import DATA
from gill_lite.model.backbones import check_files
from gill_lite.pretraining import denoiser as stage_denoiser
from gill_lite.pretraining import glide as stage_glide
from gill_lite.pretraining import pretrain
from gill_lite.world.glide import load_glide
from gill_lite.world.probes import Probes
from gill_lite.world.scene import ATTRIBUTES

TINY = (16, 16, 16)
CLIP = DATA / "mini" / "clip"
TEXTS = ["a red ball .", "there is a small blue box on the left at the beach by day ."]


@pytest.fixture(scope="module")
def glide():
    made = stage_glide.build(0, TINY)
    for module in (made.unet, made.text_encoder):
        module.eval()
    return made


def heard(glide, texts):
    return glide.read(glide.token_ids(texts))


def draw(glide, texts=TEXTS, seeds=(1, 2), **options):
    return glide.draw(texts, seeds, num_inference_steps=3, **options)


def test_pictures_are_64_pixels_in_0_to_1(glide):
    pictures = draw(glide)
    assert pictures.shape == (2, 3, 64, 64) and pictures.dtype == torch.float32
    assert 0 <= pictures.min() < pictures.max() <= 1
    assert glide.draw([], []).shape == (0, 3, 64, 64)


def test_a_picture_hangs_on_its_own_text_and_seed_alone(glide):
    pictures = draw(glide)
    alone = draw(glide, TEXTS[:1], (1,))  # a shorter batch: no padding
    assert torch.allclose(alone[0], pictures[0], atol=1e-3)
    one_by_one = draw(glide, batch_size=1)
    assert torch.allclose(one_by_one, pictures, atol=1e-3)
    assert not torch.allclose(draw(glide, seeds=(3, 2))[0], pictures[0], atol=1e-2)
    assert torch.equal(draw(glide), pictures)


def test_guidance_of_zero_does_not_hear_the_text(glide):
    deaf = draw(glide, [TEXTS[1], TEXTS[0]], guidance_scale=0.0)
    assert torch.allclose(deaf, draw(glide, guidance_scale=0.0), atol=1e-3)
    heard = draw(glide, [TEXTS[1], TEXTS[0]], guidance_scale=3.0)
    assert not torch.allclose(heard, draw(glide, guidance_scale=3.0), atol=1e-3)


def test_padding_is_not_heard_and_long_texts_are_cut(glide):
    noisy = torch.randn(1, 48, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = glide.denoise(noisy, 500, heard(glide, TEXTS[:1]))
        padded = glide.denoise(noisy.repeat(2, 1, 1, 1), 500, heard(glide, TEXTS))[:1]
        cut = glide.denoise(noisy, 500, heard(glide, ["red " * 75]))
        longer = glide.denoise(noisy, 500, heard(glide, ["red " * 75 + "blue " * 20]))
    assert torch.allclose(alone, padded, atol=1e-4)
    assert torch.equal(cut, longer)


def test_both_ways_of_the_text_reach_the_picture(glide):
    """Cross-attention and the time embedding: the gradient of each is there."""
    noisy = torch.randn(1, 48, 16, 16, generator=torch.Generator().manual_seed(0))
    glide.denoise(noisy, 500, heard(glide, TEXTS[:1])).square().sum().backward()
    unet = glide.unet
    assert unet.class_embedding.linear_1.weight.grad.abs().max() > 0
    attention = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2
    assert attention.to_v.weight.grad.abs().max() > 0
    words = glide.text_encoder.get_input_embeddings().weight.grad
    red, blue = (glide.tokenizer.convert_tokens_to_ids(w) for w in ("red", "blue"))
    assert words[red].abs().max() > 0 == words[blue].abs().max()
    glide.unet.zero_grad()
    glide.text_encoder.zero_grad()


def test_the_last_time_is_noise_alone(glide):
    assert glide.scheduler.alphas_cumprod[-1] < 1e-6
    glide.scheduler.set_timesteps(4)
    assert glide.scheduler.timesteps.tolist() == [999, 749, 499, 249]


def test_saved_and_loaded_it_draws_the_same(glide, tmp_path):
    glide.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the library's own, of what it calls its options
        loaded = load_glide(tmp_path)
    assert torch.equal(draw(loaded), draw(glide))
    assert not any(p.requires_grad for p in loaded.unet.parameters())


def test_bad_input_is_one_sentence(glide, tmp_path):
    with pytest.raises(GillError, match="one seed a text is needed, got 2 and 1"):
        glide.draw(TEXTS, [1])
    with pytest.raises(GillError, match="holds no GLIDE .*gill-lite pretrain glide"):
        load_glide(tmp_path)
    glide.save_pretrained(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(GillError, match=r"cannot be loaded \(.*\); restore it"):
        load_glide(tmp_path)


# ---- its stage ---------------------------------------------------------------------------


@pytest.fixture
def small_stage(monkeypatch):
    """A stage of 16 channels, batches of 2 and 32 pictures."""
    monkeypatch.setattr(stage_denoiser, "NUM_IMAGES", 32)
    monkeypatch.setattr(stage_glide, "BATCH", 2)
    monkeypatch.setattr(stage_glide, "STEPS", 2)
    fake = np.random.default_rng(0).integers(0, 255, (32, 3, 64, 64), np.uint8)
    monkeypatch.setattr(stage_glide, "training_images", lambda work_dir: fake)
    build = stage_glide.build
    monkeypatch.setattr(stage_glide, "build", lambda seed=0: build(seed, TINY))


def weights(directory):
    from safetensors.torch import load_file

    return load_file(directory / "text_encoder" / "model.safetensors") | load_file(
        directory / "unet" / "diffusion_pytorch_model.safetensors"
    )


def test_training_moves_text_and_picture(small_stage, tmp_path):
    assert stage_glide.train(tmp_path, CLIP, tmp_path / "out") == {"steps": 2}
    made, fresh = weights(tmp_path / "out"), stage_glide.build(0)
    start = {**fresh.text_encoder.state_dict(), **fresh.unet.state_dict()}
    moved = [k for k in made if k in start and not torch.equal(made[k], start[k])]
    assert any("token_embedding" in k for k in moved) and any("conv_in" in k for k in moved)


def test_the_loss_reads_the_captions_the_denoiser_reads(small_stage, monkeypatch):
    from gill_lite.world.pictures import training_caption

    glide, told = stage_glide.build(0), []
    monkeypatch.setattr(stage_glide, "BATCH", 32)
    monkeypatch.setattr(glide, "token_ids", lambda texts: told.extend(texts) or texts)
    monkeypatch.setattr(glide, "read", lambda ids: ids)
    monkeypatch.setattr(glide, "denoise", lambda noisy, t, text: torch.zeros_like(noisy))
    loss = stage_glide.make_loss(glide, stage_glide.training_images(None))
    values = [float(loss(step, torch.Generator().manual_seed(step))) for step in range(4)]
    assert all(np.isfinite(values))
    wanted = {training_caption(i, step) for i in range(32) for step in range(4)} | {""}
    assert set(told) <= wanted
    assert 0 < told.count("") < 30  # a tenth of 128


def test_measures_name_the_split_and_every_attribute(glide):
    numbers = stage_glide.measure(glide, Probes().eval(), "novel", 6, num_inference_steps=1)
    assert set(numbers) == {f"novel_{n}" for n in (*ATTRIBUTES, "mean")}
    assert 0 <= numbers["novel_mean"] < 0.9


def test_it_joins_the_manifest_and_leaves_the_other_entries(small_stage, monkeypatch, tmp_path):
    """`gill-lite pretrain glide -o <weights>` adds its own files and entry, no more."""
    monkeypatch.setattr(
        pretrain, "_both_splits", lambda *a, **k: {"seen_mean": 0.96, "novel_mean": 0.5}
    )
    mini, work = tmp_path / "mini", tmp_path / "work"
    shutil.copytree(DATA / "mini", mini, ignore=shutil.ignore_patterns("joints", "glide"))
    before = json.loads((mini / "manifest.json").read_text())
    before["stages"].pop("glide", None)
    pretrain.run("glide", mini, work)
    after = check_files(mini)
    told = after["stages"].pop("glide")
    assert told["held_out"] == {"seen_mean": 0.96, "novel_mean": 0.5}
    assert told["missed"] == {"novel_mean": 0.5} and told["steps"] == 2
    assert after["stages"] == before["stages"]
    assert "glide/unet/diffusion_pytorch_model.safetensors" in after["files"]
    assert {weight.dtype for weight in weights(mini / "glide").values()} == {torch.float16}
