"""Answers: interleaved prompts and answers, batches, seeds, and prompts that cannot be answered."""

import shutil

import numpy as np
import pytest
import torch

from benchmarks import reference
from gill_lite.answering import respond
from gill_lite.answering.answers import Generated, Retrieved, ShownPicture
from gill_lite.answering.decision import DECISION, LinearDecision
from gill_lite.answering.decode import Sampling
from gill_lite.answering.drawing import example_seed, to_pil
from gill_lite.answering.gallery import Gallery
from gill_lite.answering.index import INDEX, ImageIndex
from gill_lite.answering.respond import Responder, load_responder, picture_seeds
from gill_lite.errors import GillError
from gill_lite.model import mappers
from gill_lite.model.checkpoint import joints_folder
from gill_lite.model.gill import build_gill
from gill_lite.world.render import render
from gill_lite.world.scene import rng_for, sample_scene
from tests.helpers import tiny_backbones, tiny_evaluation

WHOLE = ["a small red ball on the left at the beach ."]  # the model goes on with a picture
HALF = ["a small red ball on the"]  # with words, then a picture
CHAT = ["do you like it ?"]  # with words alone
PROMPTS = [WHOLE, ["a small blue star in the forest .", "it moved to the right ."], HALF, CHAT]


@pytest.fixture(scope="module")
def responder():
    return load_responder("mini", 0)


def picture():
    rng = rng_for("respond test")
    return render(sample_scene(rng), rng)


def levels(image) -> np.ndarray:
    return np.asarray(image).astype(int)


def same_picture(one, other) -> bool:
    """Up to the float noise of another batch."""
    return np.abs(levels(one) - levels(other)).max() <= 3


def same_answer(one, other) -> bool:
    """Texts, pictures, candidates and their scores, in the same order."""
    if [type(x) for x in one] != [type(x) for x in other] or one.text != other.text:
        return False
    pairs = zip(one.pictures, other.pictures, strict=True)
    return all(
        [x.id for x in a.retrieved] == [x.id for x in b.retrieved]
        and [x.seed for x in a.generated] == [x.seed for x in b.generated]
        and np.allclose(scores(a), scores(b), atol=1e-3)
        and all(same_picture(x.image, y.image) for x, y in zip(a.generated, b.generated))
        and (a.decision, a.forced) == (b.decision, b.forced)
        for a, b in pairs
    )


def scores(shown: ShownPicture) -> list[float]:
    return [one.score for one in (*shown.retrieved, *shown.generated)]


# ---- the shipped model -------------------------------------------------------------------


def test_a_picture_stands_where_the_model_said_it(responder):
    kinds = [[type(x) for x in answer] for answer in responder.respond_batch(PROMPTS)]
    assert kinds[0] == [ShownPicture]
    assert kinds[2:] == [[str, ShownPicture], [str]]
    for answer in responder.respond_batch(PROMPTS):
        assert answer.text.count(".") <= 1, "the mini world's answers end with a sentence"
        for shown in answer.pictures:
            assert not shown.forced and shown.image is not None
            assert shown.retrieved[0].image.size == shown.generated[0].image.size == (64, 64)
            assert -1 <= shown.retrieved[0].score <= 1


def test_a_text_behind_a_picture_is_kept_where_it_has_a_word(responder):
    gill, encode = responder.gill, responder.backbones.tokenizer.encode
    img = list(gill.config.img_token_ids)
    for said, kept in (("it is night .", ["it is night ."]), (".", []), ("! .", [])):
        words = encode(said, add_special_tokens=False)
        assert responder._pieces([*img, *words], [0], ["run"]) == ["run", *kept]
        assert responder._pieces(words, [], []) == [responder._text(words)] != [""]


def test_batches_equal_singles_and_noise_depends_on_run_seed_and_id_alone(responder):
    ids, options = ["a", "b", "c", "d"], {"num_retrieved": 2, "num_generated": 2, "max_images": 2}
    together = responder.respond_batch(PROMPTS, 7, ids, force_image=True, **options)
    turned = responder.respond_batch(PROMPTS[::-1], 7, ids[::-1], force_image=True, **options)
    for i, answer in enumerate(together):
        alone = responder.respond(PROMPTS[i], 7, ids[i], force_image=True, **options)
        assert same_answer(answer, alone) and same_answer(answer, turned[::-1][i])
    other = responder.respond(WHOLE, 8, "a")
    assert not same_picture(other.generated, together[0].generated)
    assert other.text == together[0].text and other.retrieved_id == together[0].retrieved_id


def test_a_forced_picture_is_that_of_the_evaluation_and_marked(responder):
    free, forced = responder.respond(CHAT), responder.respond(CHAT, 3, "x", force_image=True)
    assert free.pictures == [] and free.generated is free.retrieved is free.decision is None
    assert [type(x) for x in forced] == [ShownPicture, str] and forced.text == free.text
    assert forced.first.forced
    states = responder.prompts.img_states([CHAT])  # as GillDrawer does
    drawn = responder.drawing.draw(responder.gill.prompt_embeds(states), [example_seed(3, "x")])
    assert same_picture(forced.generated, to_pil(drawn[0]))
    said = responder.respond(WHOLE, force_image=True)
    assert not said.first.forced and len(said.pictures) == 1, "nothing is forced beside one said"


def test_candidates_have_seeds_of_their_own_and_are_ranked_by_the_retrieval_head(responder):
    shown = responder.respond(WHOLE, 5, "y", num_generated=3, num_retrieved=3).first
    assert {one.seed for one in shown.generated} == set(picture_seeds(5, "y", 0, 3))
    assert picture_seeds(5, "y", 0, 3)[0] == example_seed(5, "y"), "the evaluation's comes first"
    assert len(set(picture_seeds(5, "y", 0, 3) + picture_seeds(5, "y", 1, 3))) == 6
    for kind in (shown.generated, shown.retrieved):
        assert [one.score for one in kind] == sorted((one.score for one in kind), reverse=True)
    gill, prompts = responder.gill, responder.prompts
    query = gill.retrieval_embedding(prompts.img_states([WHOLE]))[0]  # it says [IMG0] at once
    for one in (*shown.generated, *shown.retrieved):
        own = gill.image_features(prompts.pixel_values([one.image]))[0].detach()
        assert one.score == pytest.approx(float(own @ query.detach()), abs=1e-4)
    alone = responder.respond(WHOLE, 5, "y").generated
    assert any(same_picture(alone, one.image) for one in shown.generated)


def test_guidance_and_steps_are_those_asked_for(responder):
    answer = responder.respond(WHOLE, guidance_scale=1.5, num_inference_steps=3).generated
    backbones = responder.backbones
    standard, usual = backbones.profile, responder.respond(WHOLE).generated
    backbones.profile = standard.replace(guidance_scale=1.5, num_inference_steps=3)
    try:
        assert levels(responder.respond(WHOLE).generated).tolist() == levels(answer).tolist()
    finally:
        backbones.profile = standard
    assert not same_picture(usual, answer)


def test_without_drawing_the_answer_is_the_same_but_for_its_drawn_pictures(responder):
    drawn, bare = (responder.respond(HALF, draw=draw) for draw in (True, False))
    assert bare.text == drawn.text and bare.retrieved_id == drawn.retrieved_id
    assert bare.generated is None and bare.first.image is bare.retrieved


def test_without_retrieving_the_answer_is_the_same_but_for_what_it_looked_up(responder):
    whole, bare = (responder.respond(HALF, retrieve=retrieve) for retrieve in (True, False))
    assert bare.text == whole.text and bare.retrieved is None and bare.retrieved_id is None
    assert bare.first.source == "gen" and bare.first.image is bare.generated
    assert bare.generated.tobytes() == whole.generated.tobytes()
    with pytest.raises(GillError, match="are drawn or retrieved; allow one of both"):
        responder.respond(HALF, retrieve=False, draw=False)


def test_what_was_seen_is_not_retrieved_again(responder):
    first = responder.respond(WHOLE, num_retrieved=2, draw=False).first
    seen = [one.id for one in first.retrieved]
    again = responder.respond(WHOLE, seen=seen, num_retrieved=2, draw=False).first
    assert len(again.retrieved) == 2 and not set(seen) & {one.id for one in again.retrieved}


def test_word_and_step_are_told_as_they_come(responder):
    told, steps = [], []
    watch = {"on_text": told.append, "on_step": lambda step, latents: steps.append(latents)}
    answer = responder.respond(HALF, **watch)
    places = [None if isinstance(piece, ShownPicture) else piece for piece in answer]
    assert told[-1] == places, "None stands where a picture will be"
    texts = [" ".join(piece for piece in pieces if piece) for pieces in told]
    assert texts[-1] == answer.text and all(b.startswith(a) for a, b in zip(texts, texts[1:]))
    assert len(steps) == responder.profile.num_inference_steps
    assert same_picture(to_pil(responder.drawing.decode(steps[-1])[0]), answer.generated)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_decision_ships_with_the_joints_and_says_why(responder, seed):
    one = load_responder("mini", seed, backbones=responder.backbones)
    for shown in (
        answer.first for answer in one.respond_batch(PROMPTS, draw=False, force_image=True)
    ):
        generate, retrieve = shown.probabilities
        assert generate + retrieve == pytest.approx(1)
        assert shown.decision == ("gen" if generate > retrieve else "ret")


def test_the_picture_to_show_is_of_the_kind_decided_for_or_of_the_kind_there_is():
    found, made = Retrieved("found", 0.5, "a"), Generated("made", 0.4, 7)
    both = {"retrieved": (found,), "generated": (made,)}
    assert ShownPicture(**both, decision="ret").image == "found"
    assert ShownPicture(**both, decision="gen").image == ShownPicture(**both).image == "made"
    assert ShownPicture(generated=(made,), decision="ret").image == "made"
    assert ShownPicture(retrieved=(found,), decision="gen").source == "ret"
    assert ShownPicture(decision="gen").source is ShownPicture().image is None


def test_the_prompt_matters(responder):
    red, blue = responder.respond_batch(
        [["a big red ball in the snow by day ."], ["a big blue ball in the snow by day ."]],
        example_ids=["same", "other"],
    )
    assert np.abs(levels(red.generated) - levels(blue.generated)).mean() > 3


def test_pictures_reach_the_language_model(responder):
    a, b = picture(), render(sample_scene(rng_for("z"), "seen"), rng_for("z"))
    states = responder.prompts.img_states([["look .", a], ["look .", b]])
    assert not torch.allclose(states[0], states[1], atol=1e-3)


def test_prompts_of_pictures_only_are_answered(responder):
    assert responder.respond([picture()], force_image=True).generated.size == (64, 64)


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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_word": 3}, "an answer has no setting 'max_word'; did you mean 'max_words'"),
        ({"num_generated": 0}, "num_generated must be at least 1, not 0"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, not 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be finite"),
        ({"max_images": -1}, "max_images must be at least 0, not -1"),
        ({"max_images": 0, "force_image": True}, "force_image asks for a picture"),
        ({"top_p": 0.5}, "top_p needs a temperature"),
    ],
)
def test_settings_that_mean_nothing_are_one_sentence(responder, options, sentence):
    with pytest.raises(GillError, match=sentence):
        responder.respond_batch([WHOLE], **options)


def test_a_folder_with_an_index_and_a_classifier_retrieves_and_decides(responder, tmp_path):
    folder = tmp_path / "joints"
    shutil.copytree(joints_folder("gill", 0), folder)
    hidden = responder.prompts.img_states([WHOLE])  # (1, R, D)
    own = responder.gill.retrieval_embedding(hidden)
    ImageIndex.build(torch.cat([-own, own]), ["far.png", "near.png"]).save(folder / INDEX)
    picture().save(folder / "far.png")
    first, last = hidden[0, 0], hidden[0, -1]  # "ret" for the one, "gen" for the other
    way, middle = first - last, float((first - last) @ (first + last) / 2)
    decision = LinearDecision(torch.stack([-way, way]).numpy(), [middle, -middle])
    decision.save(folder / DECISION)
    options = {"joints": folder, "backbones": responder.backbones}
    shown = load_responder("mini", images=folder, **options).respond(WHOLE).first
    assert (shown.decision, shown.retrieved[0].id) == ("ret", "far.png")
    assert shown.passed_over == ("near.png",), "its picture is not at hand"
    nothing = load_responder("mini", **options).respond(WHOLE)
    assert nothing.first.passed_over == ("near.png", "far.png") and nothing.retrieved is None
    assert nothing.first.image is nothing.generated, "the other kind is shown"


# ---- against the plain form --------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "least"),
    [*((prompt, 1) for prompt in PROMPTS[:3]), (["look .", picture(), "it turned blue ."], 0)],
)
def test_an_answer_is_that_of_the_plain_form(responder, prompt, least, monkeypatch):
    monkeypatch.setattr(responder, "_ends", {})  # the plain form decodes to `max_words`
    options = {"max_words": 6, "max_images": None}
    got = responder.respond(prompt, example_id="e", num_retrieved=3, **options)
    with torch.no_grad():
        plain = reference.answer(responder, prompt, "e", Sampling(**options), 3)
    assert [type(x) is str for x in got] == [type(x) is str for x in plain]
    assert len(got.pictures) >= least
    for ours, theirs in zip(got, plain, strict=True):
        if isinstance(ours, str):
            assert ours == theirs
            continue
        hidden, cosines, rows, drawn = theirs
        assert [one.id for one in ours.retrieved] == [str(int(row)) for row in rows]
        torch.testing.assert_close(
            torch.tensor([one.score for one in ours.retrieved]), cosines, rtol=0, atol=1e-4
        )
        chances = responder.decision.decide(hidden[:1].numpy()).probabilities[0]
        assert ours.probabilities == pytest.approx(tuple(chances), abs=1e-4)
        assert same_picture(ours.generated[0].image, to_pil(drawn))


def test_the_score_is_that_of_the_plain_form_and_prefers_sense(responder):
    prompts = [WHOLE, ["look .", picture(), "it turned blue ."], ["a ball .", "it is red ."]]
    for prompt in prompts:
        theirs = reference.log_likelihood(responder, prompt)
        assert responder.score(prompt) == pytest.approx(theirs, abs=1e-4)
    assert responder.score(WHOLE) > responder.score(["beach left the small at on ball a the red ."])
    for prompt in ([picture()], [""], ["a ball ." * 99]):
        with pytest.raises(GillError):
            responder.score(prompt)


# ---- what the model says, made up ---------------------------------------------------------


@pytest.fixture
def says(monkeypatch):
    """A tiny responder whose model says what it is told, one list of words a prompt."""
    words = [*tiny_backbones.WORDS, ".", "\n"]
    monkeypatch.setattr(tiny_backbones, "WORDS", words)

    def make(*scripts, **profile):
        tiny = tiny_evaluation.backbones(num_img_tokens=3, **profile)
        gill = build_gill(tiny.profile, tiny)
        first = gill.config.img_token_ids[0]
        index = ImageIndex.build(torch.eye(4, 6), "abcd")
        gallery = Gallery(index, {name: picture() for name in "abcd"})
        ids = [[t for w in script for t in img_or_word(w, first, tiny)] for script in scripts]
        step = iter(range(99))

        def logits(hidden):
            now, favoured = next(step), torch.zeros(len(hidden), first + 3)
            for row, script in enumerate(ids):
                favoured[row, (script + [2] * 99)[now]] = 10.0  # 2 ends a text
            return favoured

        monkeypatch.setattr(gill, "logits", logits)
        return Responder(tiny, gill, gallery)

    def img_or_word(word, first, tiny):
        return [first] * 3 if word == "IMG" else [tiny.tokenizer.get_vocab()[word]]

    return make


def told(answer) -> list:
    return [item if isinstance(item, str) else "IMG" for item in answer]


def test_answers_end_at_a_newline_at_the_end_of_text_or_at_max_words(says):
    rows = [["a", "ball", "\n", "box"], ["a", "</s>", "box"], ["red"] * 9, ["\n", "a", "\n", "b"]]
    rows[3][3] = "box"
    responder = says(*rows)
    answers = responder.respond_batch([["a ball"]] * 4, max_words=5)
    assert [told(answer) for answer in answers] == [["a ball"], ["a"], ["red " * 4 + "red"], ["a"]]


def test_a_sentence_ends_an_answer_where_the_profile_says_so(says):
    row = ["a", ".", "IMG", "box"]
    assert told(says(row).respond(["a ball"])) == ["a .", "IMG"], "the picture behind it belongs"
    other = says(row, answer_ends=()).respond(["a ball"])
    assert told(other) == ["a .", "IMG", "box"]
    assert told(says(["a", ".", "box"]).respond(["a ball"])) == ["a ."]


def test_every_run_becomes_a_picture_up_to_max_images_and_texts_are_kept(says):
    row, words = ["a", "IMG", "ball", "IMG", "IMG", "box"], {"max_words": 9}
    every = says(row).respond(["a ball"], max_images=None, num_retrieved=2, **words)
    assert told(every) == ["a", "IMG", "ball", "IMG", "IMG", "box"]
    assert every.text == "a ball box"
    ids = [one.id for shown in every.pictures for one in shown.retrieved]
    assert sorted(ids) == list("abcd"), "none twice, and the third picture finds nothing more"
    seeds = [shown.generated[0].seed for shown in every.pictures]
    assert seeds == [picture_seeds(0, "0", place, 1)[0] for place in range(3)]
    assert len(set(seeds)) == 3
    alone = says(row).respond(["a ball"], max_images=1, num_retrieved=2, **words)
    cosines = [[one.score for one in answer.first.retrieved] for answer in (every, alone)]
    assert cosines[0] == pytest.approx(cosines[1]), "a run's own states, not a later one's"
    assert says(row).respond(["a ball"], max_images=0, **words).pictures == []


def test_no_picture_is_said_beyond_max_images(says):
    responder = says(["IMG", *["IMG"] * 5])
    shown = responder.respond(["a ball"], max_images=1, max_words=4, ret_scale_factor=9.0)
    assert len(shown.pictures) == 1, "a scale factor does not bring what is ruled out"


def test_joints_that_only_retrieve_draw_nothing(monkeypatch):
    tiny = tiny_evaluation.backbones()
    gill = build_gill(tiny.profile, tiny, mapper=mappers.RETRIEVAL_ONLY)
    gallery = Gallery(ImageIndex.build(torch.eye(2, 6), "ab"), {"a": picture(), "b": picture()})
    shown = Responder(tiny, gill, gallery).respond(["a ball"], force_image=True).first
    assert shown.generated == () and shown.source == "ret"


# ---- loading -----------------------------------------------------------------------------


def test_unknown_joints_seed_is_one_sentence():
    with pytest.raises(GillError, match="no joints are shipped for seed 9"):
        load_responder("mini", 9)
    with pytest.raises(GillError, match="no joints are shipped for .* the profile 'paper'"):
        load_responder("paper")


@pytest.mark.parametrize(
    ("profile", "gpu", "given", "expected"),
    [
        ("paper", True, {}, ("cuda", "bfloat16", "none")),
        ("paper", False, {}, ("cpu", "bfloat16", "none")),
        ("mini", True, {}, ("cpu", "float32", "none")),
        ("paper", False, {"dtype": "fp32", "quantize": "4bit"}, ("cpu", "fp32", "4bit")),
        ("mini", True, {"device": "cuda:0", "dtype": "bf16"}, ("cuda:0", "bf16", "none")),
    ],
)
def test_a_gpu_and_bfloat16_are_taken_where_there_is_one(
    monkeypatch, tmp_path, profile, gpu, given, expected
):
    asked = []

    def load_backbones(profile, device, dtype, quantize):
        asked.append((device, dtype, quantize))
        raise GillError("loaded")

    monkeypatch.setattr("gill_lite.model.backbones.load_backbones", load_backbones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    if gpu:  # a GPU that takes tensors
        monkeypatch.setattr(respond.torch, "empty", lambda *size, **where: None)
    with pytest.raises(GillError, match="loaded"):
        load_responder(profile, joints=tmp_path, **given)
    assert asked == [expected]


@pytest.mark.parametrize("device", ["nonsense", "cuda:77"])
def test_a_device_that_is_not_there_is_one_sentence(device):
    with pytest.raises(GillError, match=f"the device '{device}' cannot be used .*; try cpu"):
        load_responder("mini", device=device)


def test_to_pil_rounds_and_clips():
    image = to_pil(torch.tensor([[[-1.0]], [[0.5]], [[2.0]]]))
    assert image.getpixel((0, 0)) == (0, 128, 255)
