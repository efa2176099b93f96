"""The stages at tiny size: they train, go on after a kill to the very bytes, and say how made."""

import json
import math
import pickle
import shutil
from functools import partial

import pytest
import torch
from torch.nn.functional import normalize

from gill_lite.errors import GillError
from gill_lite.files import DATA, read_json, write_json
from gill_lite.model.backbones import check_files
from gill_lite.model.losses import retrieval_loss
from gill_lite.pretraining import autoencoder as stage_autoencoder
from gill_lite.pretraining import clip as stage_clip
from gill_lite.pretraining import denoiser as stage_denoiser
from gill_lite.pretraining import glide as stage_glide
from gill_lite.pretraining import lm as stage_lm
from gill_lite.pretraining import loop, pretrain
from gill_lite.pretraining import probes as stage_probes
from gill_lite.world import pictures
from gill_lite.world.scene import ATTRIBUTES

STEPS = 4
WEIGHTS = {
    "clip": "model.safetensors",
    "lm": "model.safetensors",
    "denoiser": "unet/diffusion_pytorch_model.safetensors",
    "glide": "unet/diffusion_pytorch_model.safetensors",
}


@pytest.fixture
def tiny(monkeypatch):
    """Sixteen pictures, batches of four, four steps, a checkpoint each; nothing is measured."""
    for module in (pictures, stage_clip, stage_denoiser, stage_autoencoder):
        monkeypatch.setattr(module, "NUM_IMAGES", 16)
    for module in (stage_clip, stage_denoiser, stage_glide, stage_lm):
        monkeypatch.setattr(module, "STEPS", STEPS)
        monkeypatch.setattr(module, "BATCH", 4)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(stage_clip, "COURSE", 2)
    monkeypatch.setattr(stage_denoiser, "CHANNELS", (16, 16))
    monkeypatch.setattr(stage_glide, "build", partial(stage_glide.build, channels=(16, 16, 16)))
    for module in (stage_clip, stage_lm):
        monkeypatch.setattr(module, "measure", lambda *model: {})
    reached = {n: dict.fromkeys(goals, 0.975) for n, goals in pretrain.TARGETS.items()}
    monkeypatch.setattr(pretrain, "remeasure", lambda directory, names: reached)


def killed_at(monkeypatch, step: int) -> None:
    """The next training stops before that step, once."""
    real, left = loop.one_cycle, [step]

    def rate(now, *schedule):
        if now in left:
            left.remove(now)
            raise KeyboardInterrupt
        return real(now, *schedule)

    monkeypatch.setattr(loop, "one_cycle", rate)


@pytest.mark.parametrize("stage", WEIGHTS)
def test_a_killed_stage_ends_with_the_same_bytes(tiny, monkeypatch, tmp_path, stage):
    shipped, made = DATA / "mini", []
    out = tmp_path / "weights"
    shutil.copytree(shipped, out, ignore=shutil.ignore_patterns("joints", "manifest.json", "lm"))
    for kill, folder in ((None, tmp_path / "whole"), (2, tmp_path / "cut")):
        if kill:
            killed_at(monkeypatch, kill)
            with pytest.raises(KeyboardInterrupt):
                pretrain.run(stage, out, folder, device="cpu")
        pretrain.run(stage, out, folder, device="cpu")
        made.append((folder / "out" / stage / WEIGHTS[stage]).read_bytes())
        losses = [json.loads(line) for line in open(folder / f"{stage}.jsonl", encoding="utf-8")]
        assert [row["step"] for row in losses if "loss" in row] == [0]
    assert made[0] == made[1]


def test_the_manifest_says_how_a_stage_was_made(tiny, tmp_path):
    out, command = tmp_path / "lm", "gill-lite pretrain lm --size 64x2"
    pretrain.run("lm", out, tmp_path / "work", device="cpu", size="64x2", command=command)
    stage = check_files(out)["stages"]["lm"]
    assert stage["command"] == command and stage["size"] == "64x2" and stage["device"] == "cpu"
    assert stage["steps"] == STEPS and stage["seed"] == 0 and stage["world"]
    assert stage["machine"]["processor"] and len(stage["git_commit"]) >= 7
    assert stage["seconds"] >= 0
    [(name, step, loss), *_] = stage["curve"]
    assert (name, step) == ("lm", 0) and loss > 0
    config = read_json(out / "lm" / "config.json", "configuration")
    assert (config["hidden_size"], config["num_hidden_layers"]) == (64, 2)


def test_the_denoiser_brings_its_clip_and_keeps_the_autoencoder(tiny, tmp_path):
    """The weights that need not change stay byte for byte."""
    out, work = tmp_path / "mini", tmp_path / "work"
    shutil.copytree(DATA / "mini", out, ignore=shutil.ignore_patterns("joints"))
    before = check_files(out)
    pretrain.run("clip", out, work, device="cpu")
    assert check_files(out) == before  # it waits for the denoiser
    pretrain.run("denoiser", out, work, device="cpu")
    after = check_files(out)
    changed = {n for n, about in after["files"].items() if before["files"].get(n) != about}
    assert {name.split("/")[0] for name in changed} == {"clip", "diffusion"}
    assert "diffusion/vae/diffusion_pytorch_model.safetensors" not in changed
    assert "clip/model.safetensors" in changed
    assert after["stages"]["lm"] == before["stages"]["lm"]
    assert after["stages"]["denoiser"]["missed"] == {"seen_mean": 0.975}
    own = stage_denoiser.build_pipeline(work / "out" / "clip", out / "diffusion" / "vae")
    tower = torch.load(work / "clip.pt", weights_only=True)["module"]
    words = own.text_encoder.get_input_embeddings().weight
    assert torch.equal(tower["0.text_model.embeddings.token_embedding.weight"], words)


@pytest.mark.parametrize(
    ("cores", "device", "beside"), [(1, "cpu", False), (5, "cpu", True), (5, "cuda", False)]
)
def test_all_stages_train_side_by_side_on_a_cpu_with_cores(
    monkeypatch, tmp_path, capsys, cores, device, beside
):
    begun, assembled = [], []

    def side_by_side(names, train, workers, threads):
        begun.append((workers, threads))
        again = pickle.loads(pickle.dumps(train))  # it has to reach another process
        assert (again.func, again.args) == (train.func, train.args)
        return ((name, train(name)) for name in names)

    monkeypatch.setattr(pretrain, "side_by_side", side_by_side)
    monkeypatch.setattr(pretrain, "chosen_device", lambda asked: device)
    monkeypatch.setattr(pretrain.provenance, "usable_cores", lambda: cores)
    monkeypatch.setattr(pretrain, "train_stage", lambda name, *of: {"reached": name})
    monkeypatch.setattr(pretrain, "assemble", lambda *of: assembled.append(of[-1]))
    pretrain.run(None, tmp_path / "mini", tmp_path / "work", size="64x2")
    assert begun == ([(2, 2)] if beside else [])
    assert assembled == [pretrain.STAGES]
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()] == list(pretrain.STAGES)
    for name in pretrain.STAGES:
        kept = read_json(tmp_path / "work" / "out" / name / pretrain.MEASURES, "measures")
        assert kept["reached"] == name and ("size" in kept) == (name == "lm")


def test_a_stage_without_what_it_needs_is_one_sentence(tmp_path):
    with pytest.raises(GillError, match="stage denoiser needs `gill-lite pretrain clip` first"):
        pretrain.run("denoiser", tmp_path / "mini", tmp_path / "work")


@pytest.mark.parametrize("measures", [{"world": "flat"}, {"steps": 3}])
def test_a_stage_does_not_stand_on_a_model_of_an_older_world(tmp_path, measures):
    own = tmp_path / "work" / "out" / "clip"
    write_json(own / pretrain.MEASURES, measures)
    with pytest.raises(
        GillError, match=r"out/clip is of an older world; .*gill-lite pretrain clip"
    ):
        pretrain.run("denoiser", tmp_path / "mini", tmp_path / "work")


@pytest.mark.parametrize("size", list(stage_lm.SIZES))
def test_the_ladder_has_its_sizes(size):
    model = stage_lm.build_model(stage_lm.build_tokenizer(), size=size)
    width, layers = map(int, size.split("x"))
    assert model.get_input_embeddings().weight.shape[1] == width
    assert len(model.model.decoder.layers) == layers
    spread = model.model.decoder.layers[0].fc1.weight.std().item()
    assert spread == pytest.approx(width**-0.5, rel=0.05)


def test_sizes_are_of_the_language_model_alone(tmp_path):
    with pytest.raises(GillError, match="only the language model comes in sizes, not clip"):
        pretrain.run("clip", tmp_path / "mini", tmp_path / "work", size="64x2")


def test_auto_is_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pretrain.chosen_device("auto") == pretrain.chosen_device("cuda") == "cuda"
    assert pretrain.chosen_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pretrain.chosen_device("auto") == "cpu"
    with pytest.raises(GillError, match="no GPU that torch can use; train with --device cpu"):
        pretrain.chosen_device("cuda")


def test_times_are_uniform_and_from_half_of_the_steps_on_denser_towards_noise():
    early, late = (
        stage_denoiser.times(step, 100, 20_000, torch.Generator().manual_seed(0)).float()
        for step in (49, 50)
    )
    assert early.mean() == pytest.approx(500, abs=10) and late.mean() == pytest.approx(667, abs=10)
    for times in (early, late):
        assert 0 <= times.min() and times.max() == 999


def test_the_losses_of_clip_and_of_the_probes_number_by_number():
    generator = torch.Generator().manual_seed(0)
    images, texts = normalize(torch.randn(2, 5, 3, generator=generator), dim=-1)
    for given, used in ((math.log(3), math.log(3)), (9.0, math.log(100))):  # it has an end
        found = stage_clip.contrast(images, texts, torch.tensor(given))
        torch.testing.assert_close(found, retrieval_loss(texts, images, torch.tensor(used)))
    logits = {name: torch.randn(5, 3, generator=generator) for name in "ab"}
    labels = torch.tensor([[0, 1], [2, 2], [1, 0], [1, 1], [0, 2]])
    chances = [logits[name].softmax(1)[range(5), labels[:, i]] for i, name in enumerate("ab")]
    expected = -torch.cat(chances).log().mean()
    torch.testing.assert_close(stage_probes.classification_loss(logits, labels), expected)


def test_the_language_models_masks_leave_out_the_padding_alone():
    tokenizer = stage_lm.build_tokenizer()
    ids, mask = stage_lm.token_pool(tokenizer, 0)[0]
    for row, real in zip(ids.tolist(), mask.tolist(), strict=True):
        length = sum(real)
        assert real == [True] * length + [False] * (len(row) - length)
        assert row[length - 1] == tokenizer.eos_token_id
        assert [i == tokenizer.pad_token_id for i in row] == [not r for r in real]


def test_the_course_in_labels_ends(tiny, monkeypatch, tmp_path):
    """The picture tower names attributes in the first steps, then learns from captions alone."""
    real, asked = stage_clip.classification_loss, []

    def watched(named, labels):
        asked.append(labels.shape)
        assert set(named) == set(ATTRIBUTES)
        return real(named, labels)

    monkeypatch.setattr(stage_clip, "classification_loss", watched)
    pretrain.run("clip", tmp_path / "mini", tmp_path / "work", device="cpu")
    assert asked == 2 * [(4, 6)]
