"""Joints saved and loaded, and what is said of files that do not fit."""

import json
from pickle import dumps, loads
from types import SimpleNamespace

import pytest
import torch

from gill_lite.errors import GillError
from gill_lite.files import read_json
from gill_lite.model import checkpoint, official
from gill_lite.model.backbones import fingerprint
from gill_lite.model.config import GillConfig
from gill_lite.model.gill import build_gill
from gill_lite.model.mappers import MAPPERS
from gill_lite.profiles import PAPER
from tests.helpers import tiny_backbones
from tests.helpers.evil import Evil
from tests.helpers.places import RECORDINGS

PARTS = ("lm", "vision")


@pytest.fixture(scope="module")
def backbones():
    return tiny_backbones.backbones()


@pytest.fixture
def gill(backbones):
    return build_gill(tiny_backbones.profile(), backbones, seed=3)


def frozen(backbones):
    return backbones.lm, backbones.vision


@pytest.mark.parametrize("kind", MAPPERS)
def test_joints_come_back_bit_by_bit(backbones, tmp_path, kind):
    gill = build_gill(tiny_backbones.profile(), backbones, kind, seed=3)
    checkpoint.save_joints(gill, tmp_path, {"made": "by a test"})
    back = checkpoint.load_joints(tmp_path, *frozen(backbones))
    assert back.config == gill.config and not back.training
    theirs = back.trainable_parameters()
    for name, value in gill.trainable_parameters().items():
        assert torch.equal(value, theirs[name]), name


def test_half_precision_halves_the_file_and_loads_as_float(backbones, gill, tmp_path):
    checkpoint.save_joints(gill, tmp_path / "full", {})
    checkpoint.save_joints(gill, tmp_path / "half", {}, torch.float16)
    full, half = (
        (tmp_path / name / checkpoint.WEIGHTS).stat().st_size for name in ("full", "half")
    )
    numbers = sum(p.numel() for p in gill.trainable_parameters().values())
    assert abs((full - half) - 2 * numbers) < 64  # the headers differ by a few letters
    back = checkpoint.load_joints(tmp_path / "half", *frozen(backbones))
    assert back.img_embeddings.dtype == torch.float32
    torch.testing.assert_close(back.img_embeddings, gill.img_embeddings, rtol=1e-3, atol=1e-3)


def test_provenance_lies_in_both_files(backbones, gill, tmp_path):
    checkpoint.save_joints(gill, tmp_path, {"seed": 3})
    about = json.loads((tmp_path / checkpoint.CONFIG).read_text())
    inside = checkpoint.read_tensors(tmp_path / checkpoint.WEIGHTS)[1]
    assert about["provenance"] == inside["provenance"] == {"seed": 3}
    assert about["config"] == inside["config"]


def test_loading_leaves_the_random_state_alone(backbones, gill, tmp_path):
    checkpoint.save_joints(gill, tmp_path, {})
    state = torch.get_rng_state()
    checkpoint.load_joints(tmp_path, *frozen(backbones))
    assert torch.equal(state, torch.get_rng_state())


def test_tampered_weights_are_refused(backbones, gill, tmp_path):
    checkpoint.save_joints(gill, tmp_path, {})
    path = tmp_path / checkpoint.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(GillError, match="joints.safetensors is not the file"):
        checkpoint.load_joints(tmp_path, *frozen(backbones))


def test_missing_files_are_named(backbones, gill, tmp_path):
    with pytest.raises(GillError, match="config.json is missing"):
        checkpoint.load_joints(tmp_path, *frozen(backbones))
    checkpoint.save_joints(gill, tmp_path, {})
    (tmp_path / checkpoint.WEIGHTS).unlink()
    with pytest.raises(GillError, match="joints.safetensors does not exist"):
        checkpoint.load_joints(tmp_path, *frozen(backbones))


def test_a_configuration_of_another_kind_is_refused(backbones, gill, tmp_path):
    checkpoint.save_joints(gill, tmp_path, {})
    about = json.loads((tmp_path / checkpoint.CONFIG).read_text())
    about["config"]["wings"] = 2
    (tmp_path / checkpoint.CONFIG).write_text(json.dumps(about))
    with pytest.raises(GillError, match="does not describe a model .*wings"):
        checkpoint.load_joints(tmp_path, *frozen(backbones))


def test_joints_of_another_language_model_do_not_fit(backbones, gill, tmp_path):
    checkpoint.save_joints(gill, tmp_path, {})
    other = tiny_backbones.language_model(len(backbones.tokenizer), width=8)
    with pytest.raises(GillError, match=r"img_embeddings is \(8, 16\) but must be \(8, 8\)"):
        checkpoint.load_joints(tmp_path, other, backbones.vision)


def test_joints_of_other_backbones_of_the_same_size_are_refused(backbones, gill, tmp_path):
    profile = tiny_backbones.profile().replace(name="mini")
    mini = SimpleNamespace(**{**vars(backbones), "profile": profile})
    told = {"command": "gill-lite train --seed 3", "settings": {"backbones": fingerprint(mini)}}
    checkpoint.save_joints(gill, tmp_path, told)
    assert checkpoint.joints_for(mini, tmp_path).config == gill.config
    lm = tiny_backbones.language_model(len(backbones.tokenizer))
    lm.get_input_embeddings().weight.data += 1
    other = SimpleNamespace(**{**vars(mini), "lm": lm})
    with pytest.raises(GillError, match="other backbones.*make new ones with `gill-lite train --s"):
        checkpoint.joints_for(other, tmp_path)
    checkpoint.save_joints(gill, tmp_path, {})  # joints of elsewhere do not tell
    assert checkpoint.joints_for(other, tmp_path).config == gill.config


def test_a_broken_weight_file_is_named(tmp_path):
    path = tmp_path / "joints.safetensors"
    path.write_bytes(b"no weights")
    with pytest.raises(GillError, match="joints.safetensors cannot be read"):
        checkpoint.read_tensors(path)


# ---- the official format (the real recording: test_parity) --------------------------------

OFFICIAL = {"num_tokens": 8, "num_clip_tokens": 77, "ret_emb_dim": 6, "n_visual_tokens": 4}
OFFICIAL |= {"gen_emb_dim": 77, "text_fc_mode": "linear", "ret_text_fc_mode": "linear"}


@pytest.fixture
def folder(backbones, tmp_path):
    """A folder in the official format with a linear mapper, and the Gill it was made from."""
    gill = build_gill(tiny_backbones.profile(), backbones, "linear", seed=3)
    ids = list(gill.config.img_token_ids)
    args = {**OFFICIAL, "retrieval_token_idx": ids, "gen_token_idx": ids}
    (tmp_path / official.ARGS).write_text(json.dumps(args))
    state = tiny_backbones.official_state(gill)
    torch.save({"state_dict": state}, tmp_path / official.WEIGHTS)
    return tmp_path, gill, state, args


def loads_as(path, gill, backbones) -> bool:
    """Whether every joint of the official folder is the one of `gill`."""
    back = checkpoint.load_official(path, *frozen(backbones)).trainable_parameters()
    own = gill.trainable_parameters()
    return back.keys() == own.keys() and all(torch.equal(back[n], own[n]) for n in own)


def test_a_linear_official_model_loads(folder, backbones):
    path, gill, _, _ = folder
    assert loads_as(path, gill, backbones)
    back = checkpoint.load_official(path, *frozen(backbones))
    hidden = torch.randn(2, 8, 16)
    assert torch.equal(back.prompt_embeds(hidden), gill.prompt_embeds(hidden))
    assert not back.training


def test_names_of_parallel_training_and_both_names_at_once(folder, backbones):
    path, gill, state, _ = folder
    parallel = {f"module.{name}": value for name, value in state.items()}
    torch.save({"state_dict": parallel}, path / official.WEIGHTS)
    assert loads_as(path, gill, backbones)
    stale = {name: torch.zeros(3) for name in parallel}  # the official pruning leaves such behind
    torch.save({"state_dict": {**state, **stale}}, path / official.WEIGHTS)
    assert loads_as(path, gill, backbones)


def test_an_embedding_that_is_not_pruned_is_cut_to_the_img_rows(folder, backbones):
    path, gill, state, args = folder
    name, first = "model.input_embeddings.weight", args["gen_token_idx"][0]
    state[name] = torch.cat([torch.randn(first, 16), state[name]])
    torch.save({"state_dict": state, "epoch": 3}, path / official.WEIGHTS)
    assert loads_as(path, gill, backbones)
    state[name] = torch.cat([state[name], torch.zeros(1, 16)])  # which rows, nobody knows
    torch.save({"state_dict": state}, path / official.WEIGHTS)
    with pytest.raises(GillError, match=rf"{name} is \({len(state[name])}, 16\) but must be"):
        checkpoint.load_official(path, *frozen(backbones))


def test_a_file_with_the_frozen_models_in_it_is_told_to_be_pruned(folder, backbones):
    path, _, state, _ = folder
    state["model.lm.model.decoder.layers.0.fc1.weight"] = torch.zeros(2)
    torch.save({"state_dict": state}, path / official.WEIGHTS)
    with pytest.raises(GillError, match="1 tensors of the frozen models, .*prune_model_ckpt"):
        checkpoint.load_official(path, *frozen(backbones))


def test_official_names_that_do_not_fit_are_all_listed(folder, backbones):
    path, _, state, _ = folder
    state["model.surprise"] = state.pop("model.logit_scale")
    state["model.visual_fc.bias"] = torch.zeros(5)
    torch.save({"state_dict": state}, path / official.WEIGHTS)
    with pytest.raises(GillError) as error:
        checkpoint.load_official(path, *frozen(backbones))
    faults = str(error.value).split(": ", 1)[1].split("; ")
    assert faults == [
        "missing model.logit_scale",
        "model.visual_fc.bias is (5,) but must be (6,)",
        "unknown model.surprise",
    ]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"text_fc_mode": "wavenet"}, "text_fc_mode='wavenet' is not supported"),
        ({"share_ret_gen": False}, "share_ret_gen=False is not supported"),
        ({"text_emb_layers": [-1, 3]}, "text_emb_layers=.-1, 3. is not supported"),
        ({"gen_token_idx": [1]}, "must share their .IMG. tokens"),
        ({"retrieval_token_idx": 5, "gen_token_idx": 5}, "must be a list of token ids, not 5"),
        ({"num_tokens": None}, "lacks num_tokens"),
        ({"ret_emb_dim": "6"}, "ret_emb_dim must be whole numbers above 0"),
    ],
)
def test_official_arguments_that_we_do_not_know(folder, backbones, change, message):
    path, _, _, args = folder
    args = {name: value for name, value in {**args, **change}.items() if value is not None}
    (path / official.ARGS).write_text(json.dumps(args))
    with pytest.raises(GillError, match=message):
        checkpoint.load_official(path, *frozen(backbones))


def test_the_official_models_own_arguments_are_the_papers_sizes():
    config = official.official_config(read_json(RECORDINGS / "model_args.json"), RECORDINGS)
    for name in ("num_visual_tokens", "num_img_tokens", "ret_dim", "prompt_slots"):
        assert getattr(config, name) == getattr(PAPER, name)
    assert (config.mapper, config.prompt_width) == ("gill", 768)
    assert config.img_token_ids == tuple(range(50266, 50274)), "behind <|image|>"


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(dumps(value))])
@pytest.mark.parametrize("where", ["whole", "state_dict", "tensor"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(folder, backbones, save, where):
    path, _, state, _ = folder
    evil = Evil(path / "ran")
    inside = {"whole": evil, "state_dict": {"state_dict": evil}}
    inside["tensor"] = {"state_dict": {**state, "model.logit_scale": evil}}
    save(inside[where], path / official.WEIGHTS)
    with pytest.raises(GillError, match="which are refused and were not run") as error:
        checkpoint.load_official(path, *frozen(backbones))
    assert "\n" not in str(error.value) and not (path / "ran").exists()
    torch.load(path / official.WEIGHTS, weights_only=False) if save is torch.save else loads(
        (path / official.WEIGHTS).read_bytes()
    )
    assert (path / "ran").exists(), "the code in the file would have run"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is no weight file"),
        (b"<!doctype html><html>not found</html>", "is no weight file"),
        ({"model.logit_scale": torch.ones(())}, "holds no 'state_dict'"),
        (
            {"state_dict": {"epoch": 3, 5: torch.ones(1)}},
            "must hold named tensors alone, .*5, epoch",
        ),
        (None, "is missing; `gill-lite fetch gill` brings it"),
    ],
)
def test_files_that_hold_no_weights(folder, backbones, content, message):
    path = folder[0] / official.WEIGHTS
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save(content, path)
    with pytest.raises(GillError, match=f"{official.WEIGHTS}.*{message}"):
        checkpoint.load_official(folder[0], *frozen(backbones))


def test_the_transformer_mappers_of_our_own_have_no_official_name(backbones):
    gill = build_gill(tiny_backbones.profile(), backbones, "encoder")
    with pytest.raises(GillError, match="official model has no mapper 'encoder'"):
        tiny_backbones.official_state(gill)


def test_sizes_of_the_paper_are_known_without_a_backbone():
    config = GillConfig(tuple(range(50_266, 50_274)), prompt_width=768)
    state = torch.get_rng_state()
    shapes = checkpoint.shapes_between(config, width=4096, vision_width=1024)
    assert sum(shape.numel() for shape in shapes.values()) == 50_096_385  # DESIGN, official code
    assert torch.equal(state, torch.get_rng_state())


def test_shapes_are_those_of_a_model_with_backbones(backbones, gill):
    assert checkpoint.shapes_between(gill.config, 16, 8) == checkpoint.joint_shapes(gill)
