"""How the world tells: what could be known before any model is run, and how it reads."""

from statistics import mean

import pytest

from gill_lite.world import corpus, language, oracle, telling
from gill_lite.world.scene import ATTRIBUTES, Scene, all_scenes, is_novel, rng_for, sample_scene

SCENE = Scene("star", "yellow", "big", "middle", "snow", "night")


def captions(count: int) -> list[str]:
    rngs = [rng_for("short", i) for i in range(count)]
    return [language.caption(sample_scene(rng), rng) for rng in rngs]


# ---- the oracle ----


def test_one_who_knows_nothing_guesses():
    chance = mean(1 / len(values) for values in ATTRIBUTES.values())
    assert oracle.share_known(SCENE, {}) == pytest.approx(chance)
    assert oracle.share_known(SCENE, SCENE.as_dict()) == 1
    assert oracle.share_known(SCENE, {**SCENE.as_dict(), "size": "small"}) == pytest.approx(5 / 6)


def test_of_two_values_the_later_is_the_present():
    said = oracle.said("the red ball at the beach turned blue .")
    assert said == {"color": "blue", "shape": "ball", "place": "beach"}
    assert oracle.said("we had a nice time .") == {}


@pytest.mark.parametrize("split", ["seen", "novel"])
def test_pictures_are_worth_about_as_much_as_words(split):
    """Set before any model was trained: DESIGN's numbers, and the balance of the paper's table."""
    one, five, pictures = oracle.of_stories(split).values()
    assert (one, five, pictures) == pytest.approx((0.39, 0.73, 1.0), abs=0.02)
    assert 0.8 <= (five - one) / (pictures - five) <= 1.3


def test_dialogues_tell_more_and_more():
    one, five, ten = oracle.of_dialogues().values()
    assert (one, five, ten) == pytest.approx((0.41, 0.67, 0.95), abs=0.02)


# ---- the texts ----


def test_captions_are_one_short_sentence():
    told = captions(2000)
    assert all(text.count(".") == 1 and text.endswith(" .") for text in told)
    words = [len([word for word in text.split() if word.isalpha()]) for text in told]
    assert mean(words) == pytest.approx(10, abs=1) and max(words) < 20


def test_some_captions_are_fragments_and_some_are_events():
    told = captions(2000)
    events = [text for text in told if {"that", "painted"} & set(text.split())]
    assert 0.06 < len(events) / len(told) < 0.2
    fragments = [text for text in told if text.split()[0] in ("red", "small", "ball")]
    assert len(fragments) > 40


def test_captions_of_every_form_name_what_they_are_asked_to():
    for i in range(400):
        rng = rng_for("caption test", i)
        scene = sample_scene(rng)
        names = [n for n in ATTRIBUTES if rng.random() < 0.5] or ["color"]
        said = oracle.said(language.caption(scene, rng, names))
        assert said == {name: getattr(scene, name) for name in names}


@pytest.mark.parametrize("split", ["seen", "novel"])
def test_stories_state_only_what_their_scenes_show(split):
    for i in range(200):
        told = language.story(rng_for("story test", i), split)
        assert len(told.captions) == len(told.scenes) == 5
        known: dict[str, str] = {}
        for text, scene, stated in zip(told.captions, told.scenes, told.stated, strict=True):
            known |= oracle.said(text)
            assert known == stated == {name: getattr(scene, name) for name in stated}, text


def test_the_last_scene_of_a_novel_story_was_never_trained():
    told = [language.story(rng_for("novel", i), "novel") for i in range(100)]
    assert all(is_novel(story.scenes[-1]) for story in told)
    assert any(not is_novel(scene) for story in told for scene in story.scenes)
    assert len({story.scenes[-1] for story in told}) > len(all_scenes("novel")) / 4


def test_stories_tell_with_the_chances_they_are_given():
    stories = [language.story(rng_for("chances", i)) for i in range(1000)]
    opened = mean(len(story.stated[0]) for story in stories) / len(ATTRIBUTES)
    assert opened == pytest.approx(telling.OPENING, abs=0.02)
    steps = [pair for story in stories for pair in zip(story.scenes, story.scenes[1:])]
    changed = mean(before != after for before, after in steps)
    assert 0.85 * telling.CHANGE < changed <= 1.05 * telling.CHANGE  # not into a novel scene


def test_sentences_that_narrate_are_many_and_tell_nothing():
    assert len(set(telling.NARRATIVE)) >= 20
    assert not any(oracle.said(text) for text in (*telling.NARRATIVE, *language.BEGINNINGS))


def test_restatements_are_whole_sentences_mostly():
    told = [corpus.restatement(SCENE.as_dict(), rng_for("again", i)) for i in range(1200)]
    key_words = [text for text in told if text.count(",") == 5]
    assert 0 < len(key_words) / len(told) <= 1 / 6
    assert all(oracle.said(text) == SCENE.as_dict() for text in told)


def test_documents_repeat_and_stay_in_the_vocabulary():
    words = set(corpus.vocabulary())
    assert len(words) < 180
    for key in range(200):
        text = corpus.document(key)
        assert text == corpus.document(key)
        assert set(text.lower().replace(":", " : ").split()) <= words
