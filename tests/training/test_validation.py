"""Held-out pairs while training: what is written down, the best joints kept, nothing disturbed."""

import json

import pytest
import torch
from safetensors.torch import load_file

from gill_lite.cli.main import main
from gill_lite.errors import GillError
from gill_lite.model.gill import build_gill
from gill_lite.training import validation
from gill_lite.training.train import train
from gill_lite.training.validation import BEST, LOG, Validation, recall
from tests.helpers import tiny_backbones

WORDS = ["a small red ball", "a big blue box", "a ball at the beach", "a box by night", "it turned"]
PAIRS = [(i, f"{WORDS[i % 5]} {WORDS[i % 3]}") for i in range(10)]


@pytest.fixture(scope="module")
def backbones():
    return tiny_backbones.backbones()


@pytest.fixture(scope="module")
def features(backbones):
    width = backbones.vision.config.vision_config.hidden_size
    return torch.randn(10, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def run(backbones, features, tmp_path):
    """train() on the tiny pairs with a look at them every two steps; `where` is a folder's name."""

    def call(where, steps=6, every: int | None = 2):
        profile, folder = tiny_backbones.profile(), tmp_path / where
        held = Validation(profile, backbones, PAIRS[:7], every, features) if every else None
        options = {"image_features": features, "save_every": 2, "validation": held}
        train(profile, backbones, PAIRS, folder, seed=1, steps=steps, **options)
        return folder

    return call


def rows_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_recall_counts_pictures_that_are_nearer_than_the_own():
    images = torch.eye(3)
    texts = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1.0]])  # the second is of the first
    assert recall(texts, images) == {"recall_at_1": pytest.approx(2 / 3), "recall_at_5": 1.0}


def test_losses_are_those_of_the_whole_set_however_it_is_cut(backbones, features):
    gill = build_gill(tiny_backbones.profile(), backbones, seed=1)
    profile = tiny_backbones.profile()
    cut, whole = (Validation(profile, backbones, PAIRS[:6], 1, features) for _ in range(2))
    cut.parts, whole.parts = [range(0, 2), range(2, 6)], [range(0, 6)]
    one, other = cut.measure(gill), whole.measure(gill)
    for name in ("captioning", "img_lm", "generation", "recall_at_1"):
        assert one[name] == pytest.approx(other[name], rel=1e-5), name
    assert one["retrieval"] != pytest.approx(other["retrieval"])  # other pairs are compared


def test_training_is_not_disturbed_by_looking(run):
    looked, alone = run("looked"), run("alone", every=None)
    one, other = (load_file(folder / "joints.safetensors") for folder in (looked, alone))
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert not (alone / LOG).exists() and not (alone / BEST).exists()


def test_the_joints_with_the_lowest_loss_are_kept(run, monkeypatch):
    losses = iter([3.0, 1.0, 2.0])
    measure = Validation.measure
    monkeypatch.setattr(
        Validation, "measure", lambda self, gill: {**measure(self, gill), "loss": next(losses)}
    )
    folder = run("best")
    assert [row["step"] for row in rows_of(folder)] == [2, 4, 6]
    about = json.loads((folder / BEST / "config.json").read_text())["provenance"]
    assert about["step"] == 4 and about["validation"]["loss"] == 1.0
    best, last = (load_file(f / "joints.safetensors") for f in (folder / BEST, folder))
    assert any(not torch.equal(best[name], last[name]) for name in last)


def test_a_run_that_goes_on_has_the_rows_of_one_that_was_not_stopped(run):
    whole, stopped = run("whole"), run("stopped", steps=4)
    (stopped / LOG).write_text("".join(f"{json.dumps(row)}\n" for row in rows_of(stopped)[:1]))
    run("stopped")  # the row of step 4 was lost with the kill
    assert rows_of(stopped) == rows_of(whole)


def test_one_pair_is_too_few(backbones):
    with pytest.raises(GillError, match="two held-out pairs or more, not 1"):
        Validation(tiny_backbones.profile(), backbones, PAIRS[:1], 1)


def test_held_out_pictures_of_the_world_are_not_trained_on(backbones):
    pairs, features = validation.held_out_pairs(backbones, count=3)
    assert [i for i, _ in pairs] == [0, 1, 2] and len(features) == 3
    assert all(isinstance(text, str) and text for _, text in pairs)


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--val-captions", "x.tsv"], "--val-captions FILE.tsv and --val-images DIR belong"),
        (["--profile", "paper", "--shards", "x.tar", "--val-every", "5"], "needs held-out pairs"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(options, sentence, capsys):
    assert main(["train", *options]) == 2
    assert sentence in capsys.readouterr().err
