"""Official model folders into ours and back: every bit, nothing unsafe, nothing half-written."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gill_lite.answering.decision import LinearDecision, load_decision
from gill_lite.answering.index import load_index
from gill_lite.cli import convert as cli_convert
from gill_lite.cli import main as cli
from gill_lite.errors import GillError
from gill_lite.fetching import convert
from gill_lite.model import official
from gill_lite.model.checkpoint import (
    load_joints,
    load_official,
    read_joints,
    save_joints,
    shapes_between,
    write_joints,
)
from gill_lite.model.config import GillConfig
from gill_lite.model.gill import build_gill
from tests.helpers import tiny_backbones
from tests.model.test_checkpoint import Evil

WIDTH, VISION, RET = 16, 8, 6  # those of tiny_backbones
URLS = [f"https://example.org/ä {i}.jpg" for i in range(7)]


@pytest.fixture(scope="module")
def backbones():
    return tiny_backbones.backbones()


def numbers(shape, seed: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def official_args(first: int, mode: str = "linear") -> dict:
    """What the official trainer writes down; linear mappers count each token's numbers."""
    width = 77 * 768 // 8 if mode == "linear" else 768
    ids = list(range(first, first + 8))
    return {
        **{"opt_version": "facebook/opt-tiny", "visual_encoder": "openai/clip-tiny"},
        **{"freeze_lm": True, "freeze_vm": True, "n_visual_tokens": 4, "ret_emb_dim": RET},
        **{"gen_emb_dim": width, "num_tokens": 8, "num_clip_tokens": 77, "text_fc_mode": mode},
        **{"ret_text_fc_mode": "linear", "text_emb_layers": [-1], "share_ret_gen": True},
        **{"norm_image_embed": "none", "retrieval_token_idx": ids, "gen_token_idx": ids},
    }


def pickled(path, names, rows) -> None:
    path.write_bytes(pickle.dumps({"paths": names, "embeddings": rows}))


@pytest.fixture
def source(tmp_path, backbones):
    """A whole official folder: arguments, weights, classifier, two files of embeddings."""
    return official_folder(tmp_path / "official", len(backbones.tokenizer) + 1)


def official_folder(folder, first: int, dtype=torch.float32, mode: str = "linear"):
    folder.mkdir()
    args = official_args(first, mode)
    (folder / official.ARGS).write_text(json.dumps(args))
    config = official.official_config(args, folder)
    shapes = official.under_official_names(shapes_between(config, WIDTH, VISION), config.mapper)
    state = {name: numbers(shape, i, dtype) for i, (name, shape) in enumerate(shapes.items())}
    torch.save({"state_dict": state}, folder / official.WEIGHTS)
    decision = {"1.weight": numbers((2, WIDTH), 90), "1.bias": numbers((2,), 91)}
    torch.save({"state_dict": decision}, folder / official.DECISION)
    rows = 3 * numbers((7, RET), 92).half().numpy()
    pickled(folder / "cc3m_1.npy", URLS[4:], rows[4:])  # a matrix
    pickled(folder / "cc3m_0.npy", URLS[:4], list(rows[:4]))  # or a list of vectors
    return folder


def state_of(folder) -> dict:
    return torch.load(folder / official.WEIGHTS, weights_only=True)["state_dict"]


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def nothing_else_in(folder, *names) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


# ---- there and back ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_official_and_back_keeps_every_bit(tmp_path, dtype, capsys):
    source = official_folder(tmp_path / "official", 30, dtype)
    ours = convert.convert(source, tmp_path / "ours", trust_pickle=True)
    back = convert.convert(ours, tmp_path / "back", to="official")
    before, after = state_of(source), state_of(back)
    assert before.keys() == after.keys() and len(before) == 10
    assert all(same_bits(before[name], after[name]) for name in before)
    assert json.loads((back / official.ARGS).read_text()) == official_args(30)
    one, other = (official.read_state(folder / official.DECISION) for folder in (source, back))
    assert one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)
    files = ("model_args.json", "pretrained_ckpt.pth.tar", "decision_model.pth.tar")
    assert nothing_else_in(back, *files, "provenance.json"), "no pickle is written"
    told = capsys.readouterr().out
    assert told.startswith(f"{ours / 'index'} is left out") and told.count("\n") == 1


def test_the_gill_mapper_goes_there_and_back_too(tmp_path):
    source = official_folder(tmp_path / "official", 30, torch.bfloat16, "gill_mapper")
    ours = convert.convert(source, tmp_path / "ours", trust_pickle=True)
    config = read_joints(ours).config
    assert (config.mapper, config.prompt_width, config.mapper_width) == ("gill", 768, 512)
    before, after = state_of(source), state_of(convert.convert(ours, tmp_path / "b", "official"))
    assert before.keys() == after.keys() and len(before) > 100
    assert all(same_bits(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_ours_and_back_keeps_every_bit(tmp_path, dtype):
    config = GillConfig(tuple(range(30, 38)), 768, ret_dim=RET, mapper="linear")
    shapes = shapes_between(config, WIDTH, VISION)
    joints = {name: numbers(shape, i, dtype) for i, (name, shape) in enumerate(shapes.items())}
    about = {"settings": {"lm": "facebook/opt-tiny", "vision": "openai/clip-tiny"}}
    ours = write_joints(tmp_path / "ours", joints, config, about)
    LinearDecision(numbers((2, WIDTH), 1), numbers((2,), 2)).save(ours / "decision.safetensors")
    made = convert.convert(ours, tmp_path / "official", to="official")
    args = json.loads((made / official.ARGS).read_text())
    assert {**official_args(30), **args} == official_args(30)
    back = convert.convert(made, tmp_path / "back")
    saved = read_joints(back)
    assert saved.config == config and saved.joints.keys() == joints.keys()
    assert all(same_bits(saved.joints[name], joints[name]) for name in joints)
    assert (back / "decision.safetensors").read_bytes() == (
        ours / "decision.safetensors"
    ).read_bytes()


def test_the_command_line_does_both_and_says_where_things_come_from(tmp_path, monkeypatch, capsys):
    source = official_folder(tmp_path / "official", 30)
    monkeypatch.chdir(tmp_path)
    typed = ["convert", "official", "-o", "out/ours", "--trust-pickle"]
    assert cli.main(typed) == 0
    assert "wrote out/ours" in capsys.readouterr().out
    ours = tmp_path / "out" / "ours"
    assert nothing_else_in(
        ours, "joints.safetensors", "config.json", "decision.safetensors", "index"
    )
    assert nothing_else_in(ours / "index", "embeddings.safetensors", "ids.jsonl")
    about = read_joints(ours).provenance
    assert about["command"] == "gill-lite convert official -o out/ours --trust-pickle"
    assert about["sources"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.iterdir()
    }
    assert len(about["sources"]) == 5
    assert cli.main(["convert", "out/ours", "-o", "back", "--to", "official"]) == 0
    before, after = state_of(source), state_of(tmp_path / "back")
    assert all(same_bits(before[name], after[name]) for name in before)
    history = json.loads((tmp_path / "back" / "provenance.json").read_text())
    assert history["earlier"] == about and "joints.safetensors" in history["sources"]
    assert cli.main(["convert", "back", "-o", "again", "--trust-pickle"]) == 0
    assert read_joints(tmp_path / "again").provenance["earlier"] == history


def test_command_line_and_library_know_the_same_formats():
    assert cli_convert.FORMATS == convert.FORMATS


# ---- what is in the folder -----------------------------------------------------------------


def test_a_converted_folder_is_the_official_model(tmp_path, source, backbones):
    ours = convert.convert(source, tmp_path / "ours", trust_pickle=True)
    loaded = load_joints(ours, backbones.lm, backbones.vision)
    direct = load_official(source, lm=backbones.lm, vision=backbones.vision)
    assert loaded.config == direct.config and not loaded.training
    theirs = direct.trainable_parameters()
    for name, value in loaded.trainable_parameters().items():
        assert torch.equal(value, theirs[name]), name
    hidden = numbers((3, 8, WIDTH), 5)
    one, other = (load_decision(f).decide(hidden[:, 0].numpy()) for f in (source, ours))
    weight, bias = numbers((2, WIDTH), 90), numbers((2,), 91)
    expected = (hidden[:, 0] @ weight.T + bias).argmax(1).tolist()
    assert one.answers == other.answers == [("gen", "ret")[i] for i in expected]


def test_both_indices_answer_by_cosine_in_the_files_precision(tmp_path, source):
    ours = convert.convert(source, tmp_path / "ours", trust_pickle=True)
    rows, queries = 3 * numbers((7, RET), 92).half(), numbers((4, RET), 7)
    cosine = torch.cosine_similarity(queries[:, None], rows.float()[None], dim=-1)
    expected = cosine.sort(dim=1, descending=True)
    for index in (load_index(ours), load_index(source, trust_pickle=True)):
        assert index.ids == URLS and index.embeddings.dtype == torch.float16
        torch.testing.assert_close(index.embeddings.float().norm(dim=1), torch.ones(7), **HALF)
        hits = index.search(queries, k=7)
        torch.testing.assert_close(hits.scores, expected.values, **HALF)
        assert hits.ids[0] == [URLS[i] for i in expected.indices[0]]


HALF = {"rtol": 0, "atol": 1e-3}


def test_a_folder_without_classifier_and_images(tmp_path, source, backbones):
    for path in (*source.glob("cc3m*"), source / official.DECISION):
        path.unlink()
    ours = convert.convert(source, tmp_path / "ours")
    assert nothing_else_in(ours, "joints.safetensors", "config.json")
    assert load_decision(ours) is load_index(ours) is load_decision(source) is None
    assert load_index(source) is None
    assert load_joints(ours, backbones.lm, backbones.vision).config.mapper == "linear"


@pytest.mark.parametrize(
    "rows",
    [
        numbers((7, RET), 1, torch.bfloat16),
        [row for row in numbers((7, RET), 1, torch.bfloat16)],
        numbers((7, RET), 1, torch.bfloat16).float().numpy(),
    ],
)
def test_tensors_are_read_as_well_bfloat16_as_float32(tmp_path, rows):
    """The official script that embeds more images stores tensors."""
    pickled(tmp_path / "cc3m.npy", URLS, rows)
    names, array = official.read_embeddings(tmp_path / "cc3m.npy")
    assert names == URLS and array.dtype == np.float32
    assert np.array_equal(array, numbers((7, RET), 1, torch.bfloat16).float().numpy())


def test_a_dict_saved_by_numpy_is_read_as_well(tmp_path):
    np.save(tmp_path / "cc3m.npy", {"paths": URLS, "embeddings": np.ones((7, RET))})
    assert official.read_embeddings(tmp_path / "cc3m.npy")[1].shape == (7, RET)


def test_no_language_model_and_no_clip_is_loaded(tmp_path):
    official_folder(tmp_path / "official", 30)
    code = (
        "import sys; from pathlib import Path; from gill_lite.fetching.convert import convert; "
        "folder = Path(sys.argv[1]); "
        "ours = convert(folder / 'official', folder / 'ours', trust_pickle=True); "
        "convert(ours, folder / 'back', to='official'); "
        "print({'transformers', 'diffusers'} & set(sys.modules))"
    )
    typed, root = [sys.executable, "-c", code, str(tmp_path)], Path(__file__).parents[1]
    done = subprocess.run(typed, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


# ---- nothing unsafe ------------------------------------------------------------------------


def test_embeddings_are_not_opened_without_trust(tmp_path, source, capsys):
    (source / "cc3m_0.npy").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    says = "cc3m_0.npy holds the embeddings .* Python pickle, .*any code.*--trust-pickle"
    with pytest.raises(GillError, match=says):
        load_index(source)
    assert cli.main(["convert", str(source), "-o", str(tmp_path / "ours")]) == 2
    told = capsys.readouterr().err
    assert "--trust-pickle" in told and told.count("\n") == 1
    assert nothing_else_in(tmp_path, "official")
    with pytest.raises(GillError, match="no pickled dict of 'paths' and 'embeddings'"):
        load_index(source, trust_pickle=True)
    assert (tmp_path / "ran").exists(), "trusted, its code runs: that is what trust means"


def test_the_folder_of_the_first_release_with_embeddings_as_its_script_writes_them(
    tmp_path, source
):
    args = json.loads((source / official.ARGS).read_text())
    count = args.pop("num_tokens")
    args |= {"num_gen_tokens": count, "num_ret_tokens": count}
    (source / official.ARGS).write_text(json.dumps(args))
    (source / "cc3m_0.npy").unlink()
    (source / "cc3m_1.npy").unlink()
    rows = list(numbers((7, RET), 92).bfloat16())  # tensors
    pickled(source / "cc3m_embeddings.pkl", URLS, rows)
    with pytest.raises(GillError, match="cc3m_embeddings.pkl holds the embeddings"):
        load_index(source)
    ours = convert.convert(source, tmp_path / "ours", trust_pickle=True)
    assert read_joints(ours).config.num_img_tokens == count
    assert list(load_index(ours).ids) == list(URLS)


@pytest.mark.parametrize("name", [official.WEIGHTS, official.DECISION])
def test_code_in_weights_never_runs_trusted_or_not(tmp_path, source, name):
    for save in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        save({"state_dict": {"1.bias": Evil(tmp_path / "ran")}}, source / name)
        with pytest.raises(GillError, match=f"{name} is no weight file"):
            convert.convert(source, tmp_path / "ours", trust_pickle=True)
    assert nothing_else_in(tmp_path, "official")


# ---- what does not fit ---------------------------------------------------------------------


def test_all_faults_of_the_weights_are_listed_without_a_backbone(tmp_path, source):
    state = state_of(source)
    state["model.surprise"] = state.pop("model.logit_scale")
    state["model.visual_fc.bias"] = torch.zeros(5)
    torch.save({"state_dict": state}, source / official.WEIGHTS)
    with pytest.raises(GillError) as error:
        convert.convert(source, tmp_path / "ours", trust_pickle=True)
    assert str(error.value).split(": ", 1)[1].split("; ") == [
        "missing model.logit_scale",
        "model.visual_fc.bias is (5,) but must be (6,)",
        "unknown model.surprise",
    ]
    torch.save({"state_dict": {}}, source / official.WEIGHTS)
    with pytest.raises(GillError) as error:
        convert.convert(source, tmp_path / "ours", trust_pickle=True)
    assert str(error.value).count("missing model.") == 10


@pytest.mark.parametrize(
    "record, message",
    [
        ({"paths": URLS}, r"no pickled dict of 'paths' and 'embeddings' \('embeddings'\)"),
        ({"paths": URLS[:3], "embeddings": np.ones((7, RET))}, "each of its 3 paths, not float64"),
        ({"paths": URLS, "embeddings": np.ones((7, RET), int)}, "of its 7 paths, not int64"),
        ({"paths": [b"x"] * 7, "embeddings": np.ones((7, RET))}, "'paths' must be texts"),
        ({"paths": URLS, "embeddings": np.eye(7, RET)}, "embedding 6 is zero or not finite"),
        ({"paths": URLS, "embeddings": np.full((7, RET), np.nan)}, "embedding 0 is zero or not"),
        ({"paths": URLS, "embeddings": np.ones((7, 5), np.float16)}, "of width 5, .* of width 6"),
        ({"paths": URLS, "embeddings": np.ones((7, RET))}, "float64 of width 6, .*needs float16"),
    ],
)
def test_embeddings_that_cannot_be_used_leave_nothing_behind(tmp_path, source, record, message):
    (source / "cc3m_1.npy").write_bytes(pickle.dumps(record))
    with pytest.raises(GillError, match=f"cc3m_1.npy.*{message}"):
        convert.convert(source, tmp_path / "ours", trust_pickle=True)
    assert nothing_else_in(tmp_path, "official")


def test_files_without_a_single_embedding(tmp_path, source):
    (source / "cc3m_1.npy").unlink()
    pickled(source / "cc3m_0.npy", [], np.ones((0, RET)))
    with pytest.raises(GillError, match="cc3m_0.npy holds no embedding"):
        convert.convert(source, tmp_path / "ours", trust_pickle=True)


def test_a_classifier_of_another_model(tmp_path, source):
    decision = {"1.weight": torch.zeros(2, 4096), "1.bias": torch.zeros(2)}
    torch.save({"state_dict": decision}, source / official.DECISION)
    with pytest.raises(GillError, match="reads states of width 4096, but the model's have 16"):
        convert.convert(source, tmp_path / "ours", trust_pickle=True)


def test_models_that_the_official_code_cannot_build(tmp_path, backbones):
    for mapper, message in (
        (
            "gill",
            r"prompt_width=8 \(must be 768\), mapper_width=8 \(must be 512\), mapper_layers=1",
        ),
        ("linear", r"prompt_width=8 \(must be 768\)"),
        ("mlp", "the official model has no mapper 'mlp'"),
    ):
        gill = build_gill(tiny_backbones.profile(), backbones, mapper)
        about = {"settings": {"lm": "a", "vision": "b"}}
        save_joints(gill, tmp_path / mapper, about)
        with pytest.raises(GillError, match=message):
            convert.convert(tmp_path / mapper, tmp_path / "made", to="official")
        save_joints(gill, tmp_path / mapper, {})
        with pytest.raises(GillError, match="does not say which LM and CLIP"):
            convert.convert(tmp_path / mapper, tmp_path / "made", to="official")
    assert not (tmp_path / "made").exists()


def test_the_wrong_direction_and_the_wrong_folder_are_told(tmp_path, source):
    ours = convert.convert(source, tmp_path / "ours", trust_pickle=True)
    with pytest.raises(GillError, match="ours/model_args.json is missing, .*official model's"):
        convert.convert(ours, tmp_path / "made")
    with pytest.raises(GillError, match="official/config.json is missing, .*gill-lite model's"):
        convert.convert(source, tmp_path / "made", to="official")
    with pytest.raises(GillError, match="to must be one of gill-lite, official, not 'onnx'"):
        convert.convert(source, tmp_path / "made", to="onnx")
    assert nothing_else_in(tmp_path, "official", "ours")


# ---- nothing half-written ------------------------------------------------------------------


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_conversion_that_stops_midway_leaves_nothing(tmp_path, source, monkeypatch, fault):
    def stop(tensors, path, metadata):
        path.write_bytes(b"half")
        assert (path.parent.parent / "joints.safetensors").is_file(), "midway"
        raise fault

    monkeypatch.setattr(convert, "save_file", stop)
    expected = GillError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if expected is GillError else None):
        convert.convert(source, tmp_path / "ours", trust_pickle=True)
    assert nothing_else_in(tmp_path, "official")


def test_what_is_there_already_is_not_touched(tmp_path, source):
    target = tmp_path / "ours"
    target.mkdir()
    (target / "mine.txt").write_text("keep")
    with pytest.raises(GillError, match="ours is there already and not empty"):
        convert.convert(source, target, trust_pickle=True)
    assert nothing_else_in(target, "mine.txt") and nothing_else_in(tmp_path, "official", "ours")
    (target / "mine.txt").unlink()
    assert (convert.convert(source, target, trust_pickle=True) / "joints.safetensors").is_file()
    (tmp_path / "file").write_text("x")
    with pytest.raises(GillError, match="cannot write .*below"):
        convert.convert(source, tmp_path / "file" / "below", trust_pickle=True)


def test_a_broken_index_is_named(tmp_path, source):
    ours = convert.convert(source, tmp_path / "ours", trust_pickle=True)
    (ours / "index" / "ids.jsonl").write_text('{"id": "a"}\n{"id"\n')
    with pytest.raises(GillError, match="ids.jsonl is missing or broken"):
        load_index(ours)
    (ours / "index" / "ids.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(GillError, match="has not one id for each embedding"):
        load_index(ours)
