"""Systems that see, on the mini world's backbones: they train, are kept, come back, and answer."""

import pytest
import torch

from gill_lite.errors import GillError
from gill_lite.family import SEE, SYSTEMS, system
from gill_lite.family.system import MANIFEST, build, load, train
from gill_lite.files import read_json
from gill_lite.model.backbones import check_files, load_backbones
from gill_lite.pretraining import loop
from gill_lite.profiles import MINI
from gill_lite.world import pictures

TRAINED = [s.name for s in SYSTEMS.values() if s.trained_here and s.task == SEE]
ANSWERING = ["limber"]


@pytest.fixture(scope="module")
def backbones():
    return load_backbones(MINI)


@pytest.fixture
def tiny(monkeypatch):
    """Sixteen pictures, four steps of four pairs, a checkpoint each."""
    monkeypatch.setattr(pictures, "NUM_IMAGES", 16)
    monkeypatch.setattr(system, "STEPS", 4)
    monkeypatch.setattr(system, "BATCH", 4)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)


def trained(name: str, folder):
    return train(name, 0, folder, folder / "work", device="cpu", command=f"gill-lite family {name}")


@pytest.fixture
def limber(tiny, tmp_path):
    return trained("limber", tmp_path)


def test_a_system_is_kept_with_how_it_was_made_and_comes_back(limber, backbones, tmp_path):
    about = read_json(tmp_path / MANIFEST)["systems"]["limber-0"]
    assert about["command"] == "gill-lite family limber" and about["seconds"] >= 0
    assert about["steps"] == {"align": 4} and about["pairs"] == 16
    assert len(about["git_commit"]) >= 7 and about["curve"]
    width = backbones.lm.get_input_embeddings().embedding_dim
    assert about["learned"] == (128 + 1) * MINI.num_visual_tokens * width
    assert check_files(tmp_path)
    again, fresh = (make("limber", 0, tmp_path, backbones) for make in (load, build))
    kept, blank = again.own_state(), fresh.own_state()
    assert kept.keys() == blank.keys() == {"visual.weight", "visual.bias"}
    assert not torch.allclose(kept["visual.weight"], blank["visual.weight"])
    assert not any(p.requires_grad for p in again.parameters())


def test_a_killed_training_ends_with_the_same_bytes(tiny, limber, tmp_path, monkeypatch):
    left, real = [2], loop.one_cycle

    def rate(step, *schedule):
        if step in left:
            left.remove(step)
            raise KeyboardInterrupt
        return real(step, *schedule)

    monkeypatch.setattr(loop, "one_cycle", rate)
    with pytest.raises(KeyboardInterrupt):
        trained("limber", tmp_path / "cut")
    folder = trained("limber", tmp_path / "cut")
    assert (folder / "model.safetensors").read_bytes() == (
        limber / "model.safetensors"
    ).read_bytes()


def test_weights_that_are_missing_or_of_another_system_are_one_sentence(limber, tmp_path):
    with pytest.raises(GillError, match="gill-lite family limber --seed 1` makes it"):
        load("limber", 1, tmp_path)
    (limber / "model.safetensors").write_bytes(b"none")
    with pytest.raises(GillError, match="does not hold a limber"):
        load("limber", 0, tmp_path)


@pytest.mark.parametrize("name, said", [("frog", "there is no system 'frog'"),
                                        ("clip", "learns nothing here"),
                                        ("gill", "made by `gill-lite train`")])  # fmt: skip
def test_what_cannot_be_trained_is_one_sentence(name, said, tmp_path):
    with pytest.raises(GillError, match=said):
        train(name, 0, tmp_path, tmp_path)
