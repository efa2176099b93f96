"""Systems that draw, on the mini world's backbones: they train, come back, and draw by seed."""

import pytest
import torch

from gill_lite.family import DRAW, SYSTEMS, TEACH, drawing, system
from gill_lite.family.dalle import TEXT_SHARE, revive
from gill_lite.family.system import build, load, train
from gill_lite.files import read_json
from gill_lite.model.backbones import load_backbones
from gill_lite.model.vectors import picture_vectors, read_texts
from gill_lite.profiles import MINI
from gill_lite.world import pictures
from gill_lite.world.scene import ATTRIBUTES

TRAINED = [s.name for s in SYSTEMS.values() if s.trained_here and s.task in (DRAW, TEACH)]
PAINTERS = [s.name for s in SYSTEMS.values() if s.task in (DRAW, TEACH)] + ["gill"]


@pytest.fixture(scope="module")
def backbones():
    return load_backbones(MINI.replace(num_inference_steps=2))


@pytest.fixture(scope="module")
def family(backbones, tmp_path_factory):
    """Every system that draws, trained for a few steps on sixteen pictures."""
    root = tmp_path_factory.mktemp("family")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "NUM_IMAGES", 16)
        patch.setattr("gill_lite.training.data.NUM_IMAGES", 16)
        for task, steps in ((DRAW, 8), (TEACH, 4)):
            patch.setitem(system.BUDGETS, task, system.Budget(steps, 4))
        for name in TRAINED:
            train(name, 0, root, root / "work", device="cpu")
    return {name: load(name, 0, root, backbones) for name in PAINTERS}, root


@pytest.mark.parametrize("name", TRAINED)
def test_it_learns_and_comes_back(family, backbones, name):
    members, root = family
    about = read_json(root / f"{name}-0" / "config.json", "configuration")
    assert about["learned"] == sum(p.numel() for p in members[name].own_state().values()) > 0
    assert all(loss == loss for _, _, loss in about["curve"])
    fresh, kept = build(name, 0, root, backbones).own_state(), members[name].own_state()
    fresh = system.unpacked(system.packed(fresh))
    moved = [n for n in kept if not torch.equal(kept[n], fresh[n])]
    assert {n.split(".")[0] for n in moved} == {n.split(".")[0] for n in kept}


@pytest.mark.parametrize("name", PAINTERS)
def test_a_picture_hangs_on_its_prompt_and_seed_alone(family, name):
    member, prompts = family[0][name], [["a red ball ."], ["a big star at the beach ."]]
    both = member.draw(prompts, [3, 4])
    assert both.shape == (2, 3, 64, 64) and 0 <= both.min() and both.max() <= 1
    for i, seed in enumerate((3, 4)):  # the shorter text, too
        assert torch.allclose(both[[i]], member.draw(prompts[i : i + 1], [seed]), atol=1e-3)
    assert not torch.allclose(both[1:], member.draw(prompts[1:], [5]), atol=1e-3)


def test_examples_are_scored_by_what_probes_read(family):
    member = family[0]["sd"]
    for split in drawing.SPLITS:
        chosen = drawing.examples(split, 2)
        assert [e.example_id for e in chosen] == [e.example_id for e in drawing.examples(split, 3)][
            :2
        ]
        rows = drawing.score(member, chosen, chosen)
        for row in rows:
            marks = [row[f"right_{name}"] for name in ATTRIBUTES]
            assert (
                row["attribute_accuracy"] == pytest.approx(sum(marks) / 6)
                and -1 <= row["clip_similarity"] <= 1
            )
    assert all(value > 0 for value in drawing.facts(member, chosen).values())


def test_a_full_caption_names_all_and_a_story_has_its_pictures_between():
    full = drawing.examples("novel", 1)[0]
    assert all(value in " ".join(full.prompt) for value in full.scene.as_dict().values())
    words, pictured = (drawing.examples(split, 1)[0] for split in ("story", "story_pictures"))
    assert [isinstance(item, str) for item in pictured.prompt] == [True, False] * 4 + [True]
    assert drawing.joined([pictured.prompt]) == [" ".join(words.prompt)]
    assert words.scene == pictured.scene and torch.equal(words.picture, pictured.picture)


def test_codes_are_a_language_of_pictures(family):
    dalle = family[0]["dalle"]
    codes = torch.randint(512, (2, 64), generator=torch.Generator().manual_seed(0))
    drawn = dalle.pictures(codes)
    assert drawn.shape == (2, 3, 64, 64) and dalle.codes(drawn).shape == (2, 64)
    seen = []
    noise = [torch.Generator().manual_seed(0)]
    again = dalle.sample(["a red ball ."], noise, watch=lambda so_far: seen.append(so_far.shape[1]))
    assert seen == list(range(1, 65)) and again.shape == (1, 64)


def test_reading_on_is_what_was_learned(family):
    """The logits of the sampling loop, with its cache, are those of the training's single pass."""
    dalle, texts = family[0]["dalle"], ["a red ball .", "a big blue star at the beach ."]
    asked = []
    real = torch.multinomial
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch, "multinomial", lambda row, *a, **k: asked.append(row) or real(row, *a, **k)
        )
        codes = dalle.sample(texts, [torch.Generator().manual_seed(i) for i in range(2)])
    ids, mask, places = dalle.read(texts)
    where = torch.arange(64).expand_as(codes)
    logits = dalle.lm(
        input_ids=torch.cat([ids, codes + dalle.words], 1),
        attention_mask=torch.cat([mask, torch.ones_like(codes)], 1),
        position_ids=torch.cat([places, where], 1),
    ).logits[:, ids.shape[1] - 1 : -1, dalle.words :]
    chances = torch.stack(asked).view(64, 2, -1).transpose(0, 1)
    assert torch.allclose(logits.softmax(-1), chances, atol=1e-4)


def test_words_and_codes_are_learned_by_their_shares(family):
    """Every word but a text's first, the beginning of the picture not; every code."""
    dalle, codes = family[0]["dalle"], torch.arange(128).view(2, 64)
    texts, words, coded = ["a red ball .", "a big blue star at the beach ."], [], []
    for ids, real, places, own in zip(*dalle.read(texts), codes, strict=True):
        ids, places = ids[real == 1], places[real == 1]  # without the padding
        whole = torch.cat([ids, own + dalle.words])
        position = torch.cat([places, torch.arange(64)])
        logits = dalle.lm(input_ids=whole[None], position_ids=position[None]).logits[0].float()
        lost = -logits.log_softmax(-1)[range(len(whole) - 1), whole[1:]]  # of each next token
        t = len(ids) - 1  # of the token that a picture begins with, which nothing says
        words, coded = [*words, lost[: t - 1]], [*coded, lost[t:]]
    text, picture = torch.cat(words).mean(), torch.cat(coded).mean()
    expected = TEXT_SHARE * text + (1 - TEXT_SHARE) * picture
    assert torch.allclose(dalle.lm_loss(texts, codes), expected, atol=1e-4)


def test_codes_that_nothing_uses_are_moved_to_where_the_latents_are():
    from diffusers.models.autoencoders.vae import VectorQuantizer

    quantize = VectorQuantizer(8, 2, beta=0.25)
    quantize.embedding.weight.data = torch.tensor([[0.0, 0.0]] + [[50.0, 50.0]] * 7)
    latents = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    revive(quantize, latents, torch.Generator().manual_seed(0))
    assert quantize.embedding.weight[0].tolist() == [0, 0] and quantize.embedding.weight.max() < 10
    assert len(quantize(latents)[2][2].unique()) > 4


def test_variations_are_of_one_vector_and_differ(family):
    unclip, picture = family[0]["unclip"], drawing.examples("seen", 1)[0].picture
    a, b = unclip.variations(picture, [0, 1])
    assert a.shape == (3, 64, 64) and not torch.equal(a, b)


def test_texts_and_pictures_are_vectors_of_one_length(backbones):
    told = read_texts(backbones, ["a red ball .", ""])
    width = told.vectors.shape[1]
    seen = picture_vectors(
        backbones.vision, torch.randn(3, backbones.vision.config.vision_config.hidden_size)
    )
    for vectors in (told.vectors, seen):
        assert torch.allclose(vectors.norm(dim=1), torch.tensor(width**0.5), atol=1e-3)
    assert told.mask.sum(1).tolist() == [6, 2]  # start, words, the end


def test_a_teacher_of_the_picture_has_one_slot(family):
    members = family[0]
    shapes = {
        n: members[n].slots([["a red ball ."]]).shape[1] for n in ("taught_text", "taught_picture")
    }
    assert shapes == {"taught_text": 77, "taught_picture": 1}
