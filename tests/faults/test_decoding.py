"""Prompts, words and votes at their edges: answered, or refused in one sentence, never NaN."""

import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gill_lite.answering import gallery, respond
from gill_lite.answering.answers import Response
from gill_lite.answering.decode import Sampling, generate, pad_left
from gill_lite.answering.respond import Responder
from gill_lite.cli import main as cli
from gill_lite.datasets.images import open_image
from gill_lite.errors import GillError
from gill_lite.evaluation import metrics
from gill_lite.experiments.deciding import choices, votes
from gill_lite.model import tokens
from gill_lite.model.gill import build_gill
from gill_lite.report.intervals import mean_interval, paired_interval
from gill_lite.training.data import Examples
from gill_lite.training.train import make_batch
from tests.helpers import tiny_backbones, tiny_evaluation

LONG = "a red ball " * 80  # the tiny language model reads 256 words


@pytest.fixture(scope="module")
def responder():
    """GILL with random weights, drawing 16x16 pixels."""
    tiny = tiny_evaluation.backbones()
    tiny.pipeline.set_progress_bar_config(disable=True)
    return Responder(tiny, build_gill(tiny.profile, tiny))


@pytest.fixture
def chat(responder, tmp_path, monkeypatch, capsys):
    """`chat(messages, lines)` is `gill-lite chat`; its status, stdout and stderr."""
    monkeypatch.setattr(gallery, "DRAWN", 3)
    monkeypatch.setattr(respond, "load_responder", lambda *_, **__: responder)

    def run(messages=(), lines=()):
        lines = iter([*lines, ""])
        monkeypatch.setattr("builtins.input", lambda _: next(lines))
        status = cli.main(["chat", "--force-image", *messages, "-o", str(tmp_path / "answers")])
        return status, *capsys.readouterr()

    return run


# ---- prompts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        (["cat.PNG"], "item 0 of the prompt is 'cat.PNG', the path of a picture, which would be"),
        (["a ball .", ""], "item 1 of the prompt is an empty text; leave it out"),
        ([LONG], "answer included, but the language model has 256; shorten the prompt"),
        ([LONG[:600]] * 3, "answer included, but the language model has 256; shorten the prompt"),
        (["\udcff\udcfe"], "the text '\\udcff\\udcfe' is not Unicode"),  # bytes that are no UTF-8
    ],
    ids=["path", "empty", "long", "long in parts", "no text"],
)
def test_a_prompt_that_cannot_be_answered_is_one_sentence(chat, messages, sentence):
    status, out, err = chat(messages)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("gill-lite: ") and sentence in err


def test_a_conversation_outlives_a_line_that_is_too_long(chat):
    status, out, err = chat(lines=["a red ball .", LONG, "a box ."])
    assert (status, err) == (0, "") and out.count("shorten the prompt") == 1
    assert "turn01_1_generated1.png" in out and "turn02_1_generated1.png" in out


def test_a_conversation_goes_on_behind_an_answer_without_words(chat, responder, monkeypatch):
    prompts = []

    def speechless(prompt, *_, **__):
        prompts.append(list(prompt))
        return Response()

    monkeypatch.setattr(responder, "respond", speechless)
    status, out, err = chat(lines=["a red ball .", "a box ."])
    assert (status, err, out.count("(no words and no picture)")) == (0, "", 2)
    assert prompts == [["a red ball ."], ["a red ball .", "a box ."]]


def picture(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 65535, (32, 24), dtype=np.uint16)
    image, options = Image.fromarray(noise), {}
    if kind != "16 bits":
        image = Image.fromarray((noise // 257).astype(np.uint8)).convert("RGB")
    if kind == "turned":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    if kind == "transparent":
        image.putalpha(Image.fromarray((noise % 256).astype(np.uint8)))
    content = io.BytesIO()
    image.save(content, "PNG", **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["16 bits", "turned", "transparent"])
def test_a_picture_given_as_such_is_read_as_its_file_is(responder, tmp_path, kind):
    (tmp_path / "x.png").write_bytes(picture(kind))
    given = responder.prompts.embed_prompt([Image.open(tmp_path / "x.png")])
    assert torch.equal(given, responder.prompts.embed_prompt([open_image(tmp_path / "x.png")]))


def test_a_picture_cut_off_and_given_as_such_is_one_sentence(responder):
    cut = Image.open(io.BytesIO(picture("plain")[:-400]))
    with pytest.raises(GillError, match="item 1 of the prompt is damaged or cut off") as caught:
        responder.respond(["look .", cut])
    assert "\n" not in str(caught.value)


def test_the_smallest_picture_is_answered(responder):
    answer = responder.respond([Image.new("RGB", (1, 1), "red")], force_image=True)
    assert answer.generated.size == (16, 16)


# ---- words -------------------------------------------------------------------------------

SPECIAL = ["[IMG0]", "[IMG0] [IMG1] [IMG2]", "<|image|>", "a [IMG0]ball<|image|>", "</s><pad>"]
ODD = [*SPECIAL, "x" * 10_000, "a ball " * 2_000, "\U0001f469\u200d\U0001f680" * 40,
       "\u0645\u0631\u062d\u0628\u0627 " * 40, "nan", '"', "\t a \t"]  # fmt: skip


def test_training_rows_end_in_all_img_tokens_and_hold_no_other(responder):
    tiny, gill = responder.backbones, responder.gill
    img_ids = gill.config.img_token_ids
    examples = Examples(list(range(len(ODD))), torch.zeros(len(ODD), 8), ODD)
    ids, _, lengths = make_batch(gill, tiny, examples, max_tokens=24).img_rows
    assert lengths.max() == 24
    for row, length in zip(ids.tolist(), lengths.tolist(), strict=True):
        text, img = row[: length - len(img_ids)], row[length - len(img_ids) : length]
        assert tuple(img) == img_ids and len(text) >= 2
        assert max(text) < len(tiny.tokenizer), "neither [IMG] nor <|image|>"
        assert text.count(tiny.tokenizer.eos_token_id) == 1, "the one that opens the text"


@pytest.mark.parametrize("text", SPECIAL)
def test_special_tokens_are_plain_text_where_the_tokenizer_knows_them(text):
    """Such as one saved by the official code, which adds them to the vocabulary."""
    tokenizer = tiny_backbones.tokenizer()
    special = ["<|image|>", "[IMG0]", "[IMG1]", "[IMG2]"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    ids = tokens.encode_text(tokenizer, text, bos=False)
    assert ids and not set(ids) & set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


def test_the_token_behind_the_vocabulary_is_no_text():
    """`<|image|>` has an id, before [IMG0]; should the model say it, nothing is shown."""
    tokenizer = tiny_backbones.tokenizer()
    img_ids = tokens.img_token_ids(tokenizer, 3)
    said = tokens.encode_text(tokenizer, "a ball", bos=False) + [img_ids[0] - 1]
    assert tokens.decode_text(tokenizer, said, img_ids) == "a ball"


@pytest.fixture(scope="module", params=[1, 3], ids=["r=1", "r=3"])
def gill(request):
    profile = tiny_backbones.profile(num_img_tokens=request.param)
    return build_gill(profile, tiny_backbones.backbones())


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(1)
    return pad_left([torch.randn(n, 16, generator=generator) for n in (5, 2, 9)])


def test_img0_as_the_only_word_brings_all_img_tokens(gill, prompts):
    got = generate(gill, *prompts, Sampling(max_words=1, ret_scale_factor=1e6))
    img_ids = list(gill.config.img_token_ids)
    assert got.ids == [img_ids] * 3 and got.img_starts == [[0]] * 3
    forced = gill.img_states(*prompts)  # (B, R, D)
    torch.testing.assert_close(torch.cat(got.img_hidden), forced, rtol=1e-4, atol=1e-4)


def test_img0_on_the_last_word_brings_all_img_tokens(gill, prompts):
    got = generate(gill, *prompts, Sampling(max_words=3, min_words=2, ret_scale_factor=1e6))
    img_ids = list(gill.config.img_token_ids)
    for ids, starts, hidden in zip(*got, strict=True):
        assert ids[2:] == img_ids and max(ids[:2]) < img_ids[0] and starts == [2]
        assert hidden.shape == (1, len(img_ids), 16) and hidden.isfinite().all()


def test_one_word_before_any_img0_is_text(gill, prompts):
    got = generate(gill, *prompts, Sampling(max_words=1, min_words=1, ret_scale_factor=1e6))
    assert all(len(ids) == 1 and ids[0] < gill.config.img_token_ids[0] for ids in got.ids)
    assert got.img_starts == [[], [], []]


@pytest.mark.parametrize("factors", [(1e5, 1.0), (1e5, 1e5), (1.0, 1.0)])
def test_cold_sampling_is_greedy_whatever_the_scale(gill, prompts, factors):
    ret, gen = factors
    options = {"max_words": 4, "ret_scale_factor": ret, "gen_scale_factor": gen}
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    cold = generate(gill, *prompts, Sampling(temperature=0.01, **options), generators)
    greedy = generate(gill, *prompts, Sampling(**options))
    assert cold.ids == greedy.ids
    assert all(hidden.isfinite().all() for hidden in cold.img_hidden)


def test_an_answer_of_one_word(responder):
    prompt = ["a red ball ."]
    said = responder.respond(prompt, max_words=1, min_words=1)
    assert len(said.text.split()) <= 1 and said.pictures == []
    shown = responder.respond(prompt, max_words=1, gen_scale_factor=1e6, temperature=0.01)
    assert shown.text == "" and shown.generated.size == (16, 16)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_words": -1}, "max_words must be at least 0, not -1"),
        ({"temperature": math.nan}, "temperature must be at least 0 .* not nan"),
        ({"temperature": math.inf}, "temperature must be at least 0 .* not inf"),
        ({"gen_scale_factor": math.inf}, "the scale factors of .IMG0. must be finite"),
        ({"ret_scale_factor": math.nan}, "the scale factors of .IMG0. must be finite"),
    ],
)
def test_settings_that_mean_nothing_are_refused(responder, options, sentence):
    with pytest.raises(GillError, match=sentence):
        responder.respond(["a red ball ."], **options)


# ---- numbers that do not exist -----------------------------------------------------------


def test_no_examples_are_undefined_over_seeds_too():
    assert str(mean_interval(np.empty((0, 3)))) == "undefined (no examples)"
    assert str(paired_interval(np.empty((0, 3)), [])) == "undefined (no examples)"


def answers_of(labels) -> pd.DataFrame:
    columns = {"label": labels, "gen": "gen", "seed": 0}
    return pd.DataFrame(columns, index=range(len(labels)))


def test_macro_f1_of_one_class_is_undefined():
    scenes = ["beach", "beach", "snow", "snow"]
    alike = choices.f1_interval(answers_of(["gen"] * 4), scenes, "gen")
    assert str(alike) == "undefined (all labels are alike)" and alike.n == 4
    both = choices.f1_interval(answers_of(["gen", "ret", "ret", "same"]), scenes, "gen")
    assert both.mean == pytest.approx((2 * 1 / (1 + 3) + 0) / 2)


def test_kappa_of_votes_that_are_all_alike_is_undefined():
    alike = [votes.voted(["gen", "gen"]) for _ in range(3)]
    assert votes.pairwise_kappas(alike) == []
    with pytest.raises(GillError, match="kappa is undefined: all votes are one and the same"):
        votes.agreement(alike)
    three = [votes.voted(cast) for cast in (["gen", "gen", "ret"], ["gen", "gen", "gen"])]
    assert votes.pairwise_kappas(three) == pytest.approx([0, 0]), "the first two are left out"
    with pytest.raises(GillError, match="kappa is undefined"):
        votes.agreement([])


def test_pictures_of_one_colour_have_their_distances():
    grey, white = torch.full((4, 3, 64, 64), 0.5), torch.ones(4, 3, 64, 64)
    one, other = (pixels.mean(dim=(2, 3)) for pixels in (grey, white))
    assert metrics.frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(other, one) == pytest.approx(3 * 0.25)
    import lpips

    module = lpips.LPIPS(pretrained=False, pnet_rand=True, net="squeeze", verbose=False).eval()
    black = torch.zeros(4, 3, 64, 64)
    for one, other in ((black, black), (grey, grey), (black, grey)):
        distance = metrics.lpips_distance(module, one, other)
        assert np.isfinite(distance).all() and (np.abs(distance) < 1e-6).all() == (one is other)
    nothing = torch.zeros(4, 8)  # what a network may make of an empty picture
    with pytest.raises(GillError, match="CLIP similarity is undefined: row 0"):
        metrics.clip_similarity(nothing, nothing)
