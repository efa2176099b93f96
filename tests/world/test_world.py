"""The drawn world: scenes, pictures, words, and the corpus made of them."""

import hashlib

import numpy as np
import pytest

from gill_lite.pretraining import loop as training
from gill_lite.world import language
from gill_lite.world.pictures import training_scene
from gill_lite.world.render import render
from gill_lite.world.scene import (
    ATTRIBUTES,
    Scene,
    all_scenes,
    is_novel,
    rng_for,
    sample_scene,
)

SCENE = Scene("star", "yellow", "big", "middle", "snow", "night")


def picture_hash(*key) -> str:
    return hashlib.sha256(render(SCENE, rng_for(*key)).tobytes()).hexdigest()


def test_a_tenth_of_the_scenes_is_novel():
    novel = all_scenes("novel")
    assert len(all_scenes()) == 1152
    assert 0.08 < len(novel) / 1152 < 0.12
    assert not set(novel) & set(all_scenes("seen"))


@pytest.mark.parametrize("split", ["seen", "novel"])
def test_samples_keep_to_their_split(split):
    rng = rng_for("split", split)
    assert {is_novel(sample_scene(rng, split)) for _ in range(200)} == {split == "novel"}


def test_same_key_same_picture_other_key_other_picture():
    assert picture_hash("a") == picture_hash("a") != picture_hash("b")


@pytest.mark.parametrize("name", list(ATTRIBUTES))
def test_every_attribute_changes_the_picture(name):
    seen = {
        render(SCENE.change(**{name: value}), rng_for("fixed")).tobytes()
        for value in ATTRIBUTES[name]
    }
    assert len(seen) == len(ATTRIBUTES[name])


def test_a_change_in_a_story_is_told():
    changes = 0
    for i in range(200):
        told = language.story(rng_for("change test", i))
        for before, after, text in zip(
            told.scenes, told.scenes[1:], told.captions[1:], strict=False
        ):
            for name, value in after.as_dict().items():
                if getattr(before, name) != value:
                    changes += 1
                    assert value in text.split(), text
    assert changes > 200


def test_dialogues_have_ten_rounds_that_answer_with_the_truth():
    for i in range(100):
        rng = rng_for("dialogue test", i)
        scene = sample_scene(rng)
        rounds, topics = language.dialogue_with_topics(scene, rng)
        assert len(rounds) == len(topics) == 10
        for (question, answer), name in zip(rounds, topics, strict=True):
            assert question.endswith("?")
            words = set(answer.split())
            for other, values in ATTRIBUTES.items():
                wrong = (set(values) & words) - {getattr(scene, other)}
                assert not wrong, (name, question, answer)


def test_training_groups_are_near_misses_and_never_novel():
    for group in range(60):
        scenes = [training_scene(4 * group + i) for i in range(4)]
        assert not any(map(is_novel, scenes))
        base = scenes[0].labels()
        for near in scenes[1:]:
            assert sum(np.array(near.labels()) != base) == 1


def test_fit_resumed_after_a_kill_ends_bit_identical(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)

    def run(folder, kill_at=None):
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)

        def loss_fn(step, generator):
            if step == kill_at:
                raise KeyboardInterrupt
            return (module(torch.randn(4, 3, generator=generator)) - 1).square().mean()

        folder.mkdir(exist_ok=True)
        training.fit("toy", module, loss_fn, folder, steps=9, lr=0.1, warmup=2, average=0.9)
        return module

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", kill_at=5)
    resumed = run(tmp_path / "cut")
    assert torch.equal(whole.weight, resumed.weight)


def test_fit_stops_at_a_loss_that_is_not_finite(tmp_path):
    import torch

    from gill_lite.errors import GillError

    module = torch.nn.Linear(1, 1)
    with pytest.raises(GillError, match="stage toy: the loss is nan at step 0"):
        training.fit("toy", module, lambda s, g: module.weight.sum() * float("nan"), tmp_path,
                     steps=2, lr=0.1)  # fmt: skip


def test_tokenizers_keep_one_word_one_token():
    from gill_lite.pretraining import clip as stage_clip
    from gill_lite.pretraining import lm as stage_lm

    lm, clip = stage_lm.build_tokenizer(), stage_clip.build_tokenizer()
    text = "Q: is it a small red ball ?\nA: yes ."
    words = ["q", ":", "is", "it", "a", "small", "red", "ball", "?", "a", ":", "yes", "."]
    assert lm.tokenize(text) == words
    assert lm(text).input_ids[0] == lm.bos_token_id == 2
    ids = clip("a red ball").input_ids
    assert ids[0] == clip.bos_token_id and ids[-1] == clip.eos_token_id != 2


@pytest.mark.parametrize("stage", ["clips", "all"])
def test_unknown_stage_is_one_sentence(stage, tmp_path):
    from gill_lite.errors import GillError
    from gill_lite.pretraining import pretrain

    with pytest.raises(
        GillError, match=f"unknown stage '{stage}'; the stages are clip, autoencoder"
    ):
        pretrain.run(stage, tmp_path / "out", tmp_path / "work")
    assert not list(tmp_path.iterdir())
