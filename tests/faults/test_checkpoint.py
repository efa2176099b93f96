"""What may lie in the place of a checkpoint, and numbers that must never get into one."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from gill_lite.cli.main import main
from gill_lite.errors import GillError
from gill_lite.files import DATA, sha256
from gill_lite.model.backbones import fingerprint
from gill_lite.training import data as train_data
from gill_lite.training.train import train
from tests.helpers import tiny_backbones, tiny_launch
from tests.helpers.evil import Evil
from tests.helpers.tiny_commands import (
    before_loss,
    bytes_of,
    pretrain,
    probes_of,
    sentence,
    small_probes,
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_probes(monkeypatch)


@pytest.fixture(scope="module")
def tiny():
    return tiny_backbones.backbones()


def joints(tiny, folder, features=None, steps=6, **changes) -> None:
    """Train joints on the tiny models, a checkpoint each step."""
    features = tiny_launch.features(tiny) if features is None else features
    options = {"image_features": features, "save_every": 1, "steps": steps, "keep": 9}
    pairs = list(enumerate(tiny_launch.CAPTIONS))
    train(tiny_backbones.profile(), tiny, pairs, folder, **{"seed": 3, **options, **changes})


# ---- what lies there -----------------------------------------------------------------------


def cut(path, evil):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def code(path, evil):
    torch.save({**torch.load(path, weights_only=True), "ema": evil}, path)


def plain_code(path, evil):
    path.write_bytes(pickle.dumps(evil))


def another_stage(path, evil):
    torch.save({"module": {"weight": torch.zeros(2)}, "step": 3, "done": False}, path)


@pytest.mark.parametrize("stands_there", [cut, code, plain_code, another_stage])
def test_what_is_no_checkpoint_of_a_stage_is_told_and_never_run(tmp_path, capsys, stands_there):
    work = tmp_path / "work"
    assert pretrain(work) == 0
    stands_there(work / "probes.pt", Evil(tmp_path / "ran"))
    assert pretrain(work) == 2
    said = sentence(capsys)
    assert said.startswith(f"{work}/probes.pt ") and "remove it" in said
    assert ("were not run" in said) == (stands_there is not another_stage)
    assert not (tmp_path / "ran").exists()
    before = probes_of(work)
    (work / "probes.pt").unlink()  # as the sentence says
    assert pretrain(work) == 0 and probes_of(work) == before


def test_the_pickle_would_run():
    """So the test above can fail."""
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(Evil("/no/such/folder/ran")))


def test_cut_pictures_are_told(tmp_path, capsys):
    work = tmp_path / "work"
    assert pretrain(work) == 0
    cut(work / "images-0.npy", None)
    assert pretrain(work) == 2
    said = sentence(capsys)
    assert said.startswith(f"{work}/images-0.npy is damaged") and "it is drawn anew" in said


def test_cut_features_are_told(tiny, tmp_path):
    path = tmp_path / f"features-{fingerprint(tiny)}.safetensors"
    save_file({"features": torch.zeros(20, 8)}, path)
    assert len(train_data.world_pairs(tiny, tmp_path)[1]) == 20
    cut(path, None)
    with pytest.raises(GillError, match=r"features-.* is damaged \(.*\); remove it, and"):
        train_data.world_pairs(tiny, tmp_path)


def test_a_cut_checkpoint_of_the_joints_is_told(tiny, tmp_path):
    joints(tiny, tmp_path / "out", steps=3)
    cut(tmp_path / "out" / "state-00000003.safetensors", None)
    with pytest.raises(GillError, match="state-00000003.safetensors cannot be read as safeten"):
        joints(tiny, tmp_path / "out")
    (tmp_path / "out" / "state-00000003.safetensors").unlink()
    joints(tiny, tmp_path / "out")
    joints(tiny, tmp_path / "whole")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_joints_that_are_a_pickle_are_refused_by_the_command(tmp_path, capsys):
    """Even where the configuration beside them names their sha256."""
    path, evil = tmp_path / "joints", Evil(tmp_path / "ran")
    path.mkdir()
    about = (DATA / "mini" / "joints" / "gill-0" / "config.json").read_text(encoding="utf-8")
    torch.save(evil, path / "joints.safetensors")
    known = sha256(DATA / "mini" / "joints" / "gill-0" / "joints.safetensors")
    assert known in about
    changed = about.replace(known, sha256(path / "joints.safetensors"))
    (path / "config.json").write_text(changed, encoding="utf-8")
    assert main(["chat", "hello", "--joints", str(path), "-o", str(tmp_path)]) == 2
    assert "joints.safetensors cannot be read as safetensors" in sentence(capsys)
    assert not (tmp_path / "ran").exists()


# ---- another configuration -----------------------------------------------------------------


def test_a_stage_of_another_seed_is_refused_with_the_difference(tmp_path, capsys, monkeypatch):
    work = tmp_path / "work"
    assert pretrain(work) == 0
    before = probes_of(work)
    assert pretrain(work, "--seed=1") == 2
    said = sentence(capsys)
    assert said.startswith(f"{work}/probes.pt was made by other settings (seed was 0 and is 1)")
    assert "choose another --work-dir" in said
    small_probes(monkeypatch, steps=9)
    assert pretrain(work) == 2 and "(steps was 6 and is 9)" in sentence(capsys)
    assert pretrain(tmp_path / "other", "--seed=1") == 0 and probes_of(work) == before
    assert probes_of(tmp_path / "other") != before


# ---- numbers that are none -----------------------------------------------------------------


def test_nan_in_a_loss_leaves_the_last_good_checkpoint(tiny, tmp_path):
    bad = tiny_launch.features(tiny)
    bad[7] = torch.nan
    with pytest.raises(GillError) as caught:
        joints(tiny, tmp_path / "out", bad)
    told = str(caught.value)
    step = int(told.split("stopped at step ")[1].split(":")[0])
    ids = [int(i) for i in told.split("pairs [")[1].split("]")[0].split(", ")]
    assert step > 0 and 7 in ids and len(ids) == 4 and "begin anew with --no-resume" in told
    newest = sorted((tmp_path / "out").glob("state-*"))[-1]
    joints(tiny, tmp_path / "whole")
    assert newest.name == f"state-{step:08d}.safetensors"
    assert newest.read_bytes() == (tmp_path / "whole" / newest.name).read_bytes()
    joints(tiny, tmp_path / "out")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [(lambda loss: loss * torch.nan, "the loss is nan"),
     (lambda loss: loss + (loss * 0).sqrt(), "its gradient nan long")],
    ids=["loss", "gradient"],
)  # fmt: skip
def test_nan_in_pretraining_leaves_the_last_good_checkpoint(
    tmp_path, monkeypatch, capsys, spoil, told
):
    with monkeypatch.context() as patch:
        before_loss(patch, 3, spoil)
        assert pretrain(tmp_path / "work") == 2
    said = sentence(capsys)
    assert said.startswith("stage probes: ") and "at step 3" in said and told in said
    assert "probes.pt stays as it was last saved" in said
    assert said.endswith("if it comes here again, begin anew with another --seed and --work-dir")
    assert [pretrain(tmp_path / "work"), pretrain(tmp_path / "whole")] == [0, 0]
    assert probes_of(tmp_path / "work") == probes_of(tmp_path / "whole")
