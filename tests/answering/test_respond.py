"""Answers: interleaved prompts, batches, seeds, and prompts that cannot be answered."""

import numpy as np
import pytest
import torch

from gill_lite.answering.drawing import to_pil
from gill_lite.answering.respond import load_responder
from gill_lite.errors import GillError
from gill_lite.world.render import render
from gill_lite.world.scene import rng_for, sample_scene

PROMPTS = [
    ["a big red ball on the left at the beach at night ."],
    ["a small blue star in the forest .", "it moved to the right ."],
    ["Q: what is it ?\nA: a cone .\nQ: what color is it ?\nA: green ."],
]


@pytest.fixture(scope="module")
def responder():
    return load_responder("mini", 0)


def picture():
    rng = rng_for("respond test")
    return render(sample_scene(rng), rng)


def levels(image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_an_answer_has_text_a_retrieved_and_a_generated_picture(responder):
    answer = responder.respond(["a big red ball .", picture(), "it turned blue ."])
    assert isinstance(answer.text, str)
    assert answer.generated.size == answer.retrieved.size == (64, 64)
    assert -1 <= answer.retrieved_score <= 1


def test_noise_depends_on_run_seed_and_id_alone(responder):
    ids = ["a", "b", "c"]
    together = responder.respond_batch(PROMPTS, 7, ids)
    turned = responder.respond_batch(PROMPTS[::-1], 7, ids[::-1])[::-1]
    alone = [responder.respond(p, 7, i) for p, i in zip(PROMPTS, ids, strict=True)]
    for one, two, three in zip(together, turned, alone, strict=True):
        assert one.text == two.text == three.text
        assert np.abs(levels(one.generated) - levels(two.generated)).max() <= 3
        assert np.abs(levels(one.generated) - levels(three.generated)).max() <= 3
        assert np.array_equal(levels(one.retrieved), levels(three.retrieved))
    other = responder.respond(PROMPTS[0], 8, "a")
    assert np.abs(levels(other.generated) - levels(together[0].generated)).max() > 3


def test_the_prompt_matters(responder):
    red, blue = responder.respond_batch(
        [["a big red ball in the snow by day ."], ["a big blue ball in the snow by day ."]],
        example_ids=["same", "other"],
    )
    assert np.abs(levels(red.generated) - levels(blue.generated)).mean() > 3


def test_the_picture_is_that_of_the_first_run(responder):
    """Where the model says [IMG0] again and again, the later ones change nothing."""
    once, again = (responder.respond(PROMPTS[0], max_words=n, gen_scale_factor=1e6) for n in (1, 3))
    assert np.abs(levels(once.generated) - levels(again.generated)).max() <= 3
    assert once.retrieved_score == pytest.approx(again.retrieved_score, abs=1e-4)


def test_pictures_reach_the_language_model(responder):
    a, b = picture(), render(sample_scene(rng_for("z"), "seen"), rng_for("z"))
    states = responder.prompts.img_states([["look .", a], ["look .", b]])
    assert not torch.allclose(states[0], states[1], atol=1e-3)


def test_written_special_tokens_are_plain_text(responder):
    responder.respond(["show me [IMG3] and <|image|> ."])
    tokenizer = responder.backbones.tokenizer
    ids = responder.prompts.embed_prompt(["[IMG3]"])
    assert len(ids) > 1
    img = responder.gill.img_embeddings
    assert not any(torch.equal(row, own) for row in ids for own in img)
    assert tokenizer.convert_tokens_to_ids("[IMG3]") == tokenizer.unk_token_id


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ([], "the prompt is empty"),
        (["a ball .", "  "], "item 1 of the prompt is an empty text"),
        ([3], "item 0 of the prompt is a int; give text or PIL images"),
        (["a red ball . " * 80], "shorten the prompt"),
    ],
)
def test_bad_prompts_are_one_sentence(responder, prompt, sentence):
    with pytest.raises(GillError, match=sentence):
        responder.respond(prompt)


def test_prompts_of_pictures_only_are_answered(responder):
    assert responder.respond([picture()]).generated.size == (64, 64)


def test_unknown_joints_seed_is_one_sentence():
    with pytest.raises(GillError, match="no joints are shipped for seed 9"):
        load_responder("mini", 9)


def test_to_pil_rounds_and_clips():
    image = to_pil(torch.tensor([[[-1.0]], [[0.5]], [[2.0]]]))
    assert image.getpixel((0, 0)) == (0, 128, 255)


def test_a_folder_with_an_index_and_a_classifier_retrieves_and_decides(responder, tmp_path):
    import shutil

    from gill_lite.answering.decision import DECISION, LinearDecision
    from gill_lite.answering.index import INDEX, ImageIndex
    from gill_lite.files import DATA

    folder = tmp_path / "joints"
    shutil.copytree(DATA / "mini" / "joints" / "gill-0", folder)
    hidden = responder.prompts.img_states([PROMPTS[0]])  # (1, R, D)
    own = responder.gill.retrieval_embedding(hidden)
    ImageIndex.build(torch.cat([-own, own]), ["far.jpg", "near.jpg"]).save(folder / INDEX)
    first, last = hidden[0, 0], hidden[0, -1]  # "ret" for the one, "gen" for the other
    way, middle = first - last, float((first - last) @ (first + last) / 2)
    decision = LinearDecision(torch.stack([-way, way]).numpy(), [middle, -middle])
    decision.save(folder / DECISION)
    answer = load_responder("mini", joints=folder, backbones=responder.backbones).respond(
        PROMPTS[0], min_words=0
    )
    assert (answer.retrieved_id, answer.decision) == ("near.jpg", "ret")
    assert answer.retrieved is None, "the picture itself is not at hand"
    assert responder.respond(PROMPTS[0]).decision is None
