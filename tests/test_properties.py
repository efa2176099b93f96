"""What holds for any captions, prompts and shapes: rows, masks, order, padding, truncation.

A batch computes what its rows compute alone; every run of [IMG] tokens is whole; the losses see
the labels they should, and no others. The examples drawn are the same in every run.
"""

import csv
from functools import cache
from typing import NamedTuple
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from gill_lite.answering import decision, decode
from gill_lite.answering.gallery import Gallery
from gill_lite.answering.index import ImageIndex
from gill_lite.answering.respond import Responder
from gill_lite.datasets.captions import pairs_dataset, read_captions
from gill_lite.errors import GillError
from gill_lite.model import gill as model
from gill_lite.model import losses, tokens
from gill_lite.model.gill import Batch
from gill_lite.model.tokens import IGNORE, Captions
from gill_lite.profiles import PAPER
from gill_lite.training import data as train_data
from gill_lite.training.processes import split_batch
from gill_lite.training.step import label_counts
from tests.helpers import tiny_backbones, tiny_evaluation

WORDS = [*tiny_backbones.WORDS, "[IMG0]", "[IMG1]", "<|image|>", "</s>", "zebra"]


def texts(words: int = 30):
    """Captions of up to so many words; typed [IMG] tokens are among them."""
    return st.lists(st.sampled_from(WORDS), min_size=1, max_size=words).map(" ".join)


def few(count: int):
    """So many drawn examples, the same ones in every run."""
    slow = [HealthCheck.too_slow]
    return settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=slow)


def numbers(seed: int, *shape) -> torch.Tensor:
    """Standard normal numbers in float64, so that float noise is far below what is compared."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64)


def assert_same(ours, theirs) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@cache
def tokenizer(bos: bool):
    return tiny_backbones.tokenizer(96, bos="</s>" if bos else None)


@few(60)
@given(st.lists(texts(), min_size=1), st.integers(1, 8), st.integers(2, 40), st.booleans())
def test_a_cut_row_keeps_its_whole_run_and_equals_its_caption_alone(captions, num_img, room, bos):
    img_ids = tokens.img_token_ids(tokenizer(bos), num_img)
    assert img_ids == tuple(range(img_ids[0], img_ids[0] + num_img))
    rows = tokens.encode_captions(tokenizer(bos), captions, img_ids, room + num_img)
    assert rows.input_ids.shape == (len(captions), rows.lengths.max())
    for caption, ids, length in zip(captions, *rows, strict=True):
        text = tokens.encode_text(tokenizer(bos), caption)
        assert max(text) < img_ids[0], "what somebody types is never an [IMG] token"
        assert ids[:length].tolist() == text[:room] + list(img_ids)
        assert (ids[length:] == tokens.pad_id(tokenizer(bos))).all()
        alone = tokens.encode_captions(tokenizer(bos), [caption], img_ids, room + num_img)
        assert torch.equal(alone.input_ids[0], ids[:length])


@cache
def gill_of(num_img: int, bos: bool):
    """A tiny Gill in float64."""
    backbones = tiny_backbones.backbones()
    backbones.tokenizer = tokenizer(bos)
    profile = tiny_backbones.profile(num_img_tokens=num_img)
    return model.build_gill(profile, backbones).double()


@st.composite
def batches(draw):
    """A model, two or four pairs for it, cut somewhere, and whether captions are joined."""
    num_img, bos, join = draw(st.sampled_from([1, 3, 8])), draw(st.booleans()), draw(st.booleans())
    gill, count = gill_of(num_img, bos), draw(st.sampled_from([2, 4]))
    captions = draw(st.lists(texts(), min_size=count, max_size=count))
    room = num_img + draw(st.integers(2, 16))
    captions = tokens.encode_captions(tokenizer(bos), captions, gill.config.img_token_ids, room)
    return gill, Pairs(numbers(0, count, 8), captions, numbers(1, count, 77, 8)), join


class Pairs(NamedTuple):
    """What a batch is made of."""

    images: torch.Tensor
    captions: Captions
    prompt_targets: torch.Tensor

    def some(self, rows) -> "Pairs":
        """These pairs of them."""
        captions = Captions(*(column[rows] for column in self.captions))
        return Pairs(self.images[rows], captions, self.prompt_targets[rows])

    def batch(self, gill, join: bool) -> Batch:
        """The batch that a step reads."""
        return Batch.of(gill.config, *self, join, join)


def labels_by_hand(config, captions: Captions, join: bool) -> tuple[list, list]:
    """What the captioning pass and the [IMG] pass must learn to say, row by row."""
    said, read = [], []
    for i, (ids, length) in enumerate(zip(*captions, strict=True)):
        second = join and i % 2 == 1
        text = ids[: length - config.num_img_tokens].tolist()[second and config.has_bos :]
        run = [config.img_token_ids[0]] + [IGNORE] * (config.num_img_tokens - 1)
        if not second:
            said, read = [*said, []], [*read, []]
        said[-1] += [IGNORE] * config.num_visual_tokens + text
        over = second and len(run) > 1  # labels end at a row's first [IMG1]; a run of one has none
        read[-1] += [IGNORE] * len(text + run) if over else text + run
    return said, read


@few(80)
@given(batches())
def test_the_losses_see_the_text_and_one_img_token_and_nothing_else(drawn):
    gill, pairs, join = drawn
    batch, counts = pairs.batch(gill, join), []
    by_hand = labels_by_hand(gill.config, pairs.captions, join)
    said, read = batch.captioning_rows.labels, batch.img_rows.labels
    for expected, found in zip(by_hand, (said, read), strict=True):
        padded = [row + [IGNORE] * (found.shape[1] - len(row)) for row in expected]
        assert found.tolist() == padded
        counts.append(sum(label != IGNORE for row in expected for label in row[1:]))
    assert label_counts(batch).tolist() == [*counts, len(batch.images)]


def turned(pairs: Pairs, join: bool, data) -> tuple[Pairs, list[int]]:
    """The pairs in another order and padded otherwise, and that order; joined ones stay pairs."""
    units = torch.arange(len(pairs.images)).reshape(-1, 1 + join)
    order = units[data.draw(st.permutations(range(len(units))))].flatten()
    other = pairs.some(order)
    ids = F.pad(other.captions.input_ids, (0, data.draw(st.integers(0, 7))))  # (B, T)
    real = torch.arange(ids.shape[1]) < other.captions.lengths[:, None]
    ids = torch.where(real, ids, data.draw(st.integers(0, int(ids.max()))))  # [IMG] ids, too
    return other._replace(captions=other.captions._replace(input_ids=ids)), order.tolist()


def objective(gill, batch: Batch) -> losses.Losses:
    return losses.objective(gill(batch), batch.prompt_targets)


@few(80)
@given(batches(), st.data())
def test_a_batch_in_any_order_and_padding_computes_what_its_rows_compute_alone(drawn, data):
    gill, pairs, join = drawn
    other, order = turned(pairs, join, data)
    batch = other.batch(gill, join)
    with mock.patch.object(model, "ROWS_TOGETHER", data.draw(st.integers(1, 4))):
        whole, hidden = objective(gill, batch), gill.img_pass(batch.img_rows).hidden
    vectors = gill.retrieval_embedding(hidden), gill.image_features(other.images)
    assert_same(whole.retrieval, losses.retrieval_loss(*vectors, gill.logit_scale))
    everywhere, sums = label_counts(pairs.batch(gill, join)), 0
    for first in range(0, len(order), 1 + join):
        own = pairs.some(order[first : first + 1 + join]).batch(gill, join)
        alone, counts = objective(gill, own), label_counts(own)
        parts = torch.stack([alone.captioning, alone.img_lm, alone.generation])
        sums += parts.detach() * counts.double() / everywhere
        assert_same(hidden[first : first + 1 + join], gill.img_pass(own.img_rows).hidden)
    assert_same(torch.stack([whole.captioning, whole.img_lm, whole.generation]).detach(), sums)


@few(60)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 2), min_size=1, max_size=4), st.integers(0, 99))
def test_padding_left_and_right_of_a_prompt_is_never_read(pads, seed):
    gill, longest = gill_of(3, True), 9
    embeds = 5 * numbers(seed, len(pads), longest, 16)
    place = torch.arange(longest)
    mask = torch.stack([(place >= a) & (place < longest - b) for a, b in pads]).long()
    states = gill.img_states(embeds, mask)
    for row, own, state in zip(embeds, mask, states, strict=True):
        assert_same(gill.img_states(row[own == 1][None])[0], state)


SAMPLINGS = st.builds(
    lambda heat, **options: decode.Sampling(temperature=heat[0], top_p=heat[1], **options),
    heat=st.sampled_from([(0.0, 1.0), (1.0, 1.0), (2.0, 0.8)]),
    max_words=st.integers(0, 5),
    min_words=st.integers(0, 2),
    ret_scale_factor=st.sampled_from([1.0, 1.5, 1e6]),
    gen_scale_factor=st.sampled_from([0.5, 2.0]),
    stop_ids=st.sets(st.integers(0, 23), max_size=8).map(tuple),  # [IMG0] is 23
)


@few(80)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), SAMPLINGS, st.data())
def test_answers_hold_whole_runs_and_depend_on_their_own_row_alone(lengths, sampling, data):
    gill = gill_of(3, True)
    prompts = [numbers(i, length, 16) for i, length in enumerate(lengths)]
    order = data.draw(st.permutations(range(len(prompts))))

    def answer(rows):
        noise = [torch.Generator().manual_seed(7 + i) for i in rows]
        return decode.generate(gill, *decode.pad_left([prompts[i] for i in rows]), sampling, noise)

    together = answer(order)
    for i, ids, starts, hidden in zip(order, *together, strict=True):
        alone = answer([i])
        assert (ids, starts) == (alone.ids[0], alone.img_starts[0])
        runs = {start + k: img_id for start in starts for k, img_id in enumerate((23, 24, 25))}
        assert runs == {place: token for place, token in enumerate(ids) if token >= 23}
        assert len(ids) - 2 * len(starts) <= sampling.max_words, "a run is one word"
        fed = torch.cat([prompts[i], gill.embed(torch.tensor(ids, dtype=torch.long))])
        states = gill.lm_states(fed[None])[0, len(prompts[i]) :]  # (T, D), without a cache
        expected = states[sorted(runs)].reshape(len(starts), 3, 16).float()
        torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)


@cache
def responder() -> Responder:
    """A tiny one with five pictures to retrieve."""
    tiny = tiny_evaluation.backbones()
    index = ImageIndex.build(numbers(0, 5, 6).float(), "abcde")
    decider = decision.LinearDecision(numbers(1, 2, 16), [0, 0])
    gallery = Gallery(index, {name: picture(level) for level, name in enumerate("abcde")})
    return Responder(tiny, model.build_gill(tiny.profile, tiny), gallery, decider)


def picture(level: int) -> Image.Image:
    return Image.new("RGB", (16 + level, 24), (40 * level, 90, 250 - 40 * level))


PROMPTS = st.lists(st.one_of(texts(9), st.integers(0, 5).map(picture)), min_size=1, max_size=5)


@few(50)
@given(st.lists(PROMPTS, min_size=1, max_size=3))
@example([[picture(0)], [picture(0), picture(1)], ["a", picture(2), picture(2), "a", picture(0)]])
def test_items_are_interleaved_in_order_and_text_starts_once(prompts):
    gill, together = responder().gill, responder().prompts.img_states(prompts)  # (B, R, D)
    for prompt, found in zip(prompts, responder().prompts.embed_prompts(prompts), strict=True):
        pieces, started = [], False
        for item in prompt:
            if isinstance(item, str):
                ids = tokens.encode_text(responder().backbones.tokenizer, item)[started:]
                pieces.append(gill.embed(torch.tensor(ids, dtype=torch.long)))
                started = True
            else:
                pieces.append(gill.visual_tokens(responder().prompts.pixel_values([item]))[0])
        torch.testing.assert_close(found, torch.cat(pieces).detach())
        shown = [isinstance(x, Image.Image) for x, p in zip(prompt, pieces, strict=True) for _ in p]
        assert (responder().prompts.label_ids(prompt) == IGNORE).tolist() == shown
    for prompt, states in zip(prompts, together, strict=True):
        alone = responder().prompts.img_states([prompt])[0]  # (R, D)
        torch.testing.assert_close(states, alone, rtol=1e-4, atol=1e-4)


@few(30)
@given(PROMPTS, st.sampled_from(["", " ", "\n\t"]), st.data())
def test_an_empty_text_is_refused_wherever_it_stands(prompt, empty, data):
    place = data.draw(st.integers(0, len(prompt)))
    with pytest.raises(GillError, match=f"item {place} of the prompt is an empty text"):
        responder().prompts.embed_prompts([["a"], [*prompt[:place], empty, *prompt[place:]]])


@few(12)
@given(
    st.lists(PROMPTS, min_size=2, max_size=3),
    st.sampled_from([1.0, 1e6]),
    st.integers(1, 3),
    st.booleans(),
    st.data(),
)
def test_mixed_prompts_are_answered_as_each_alone(prompts, factor, most, forced, data):
    order = data.draw(st.permutations(range(len(prompts))))
    options = {"max_words": 4, "gen_scale_factor": factor, "max_images": most}
    options |= {"force_image": forced, "num_generated": 2, "num_retrieved": 2}
    names = [f"example {i}" for i in order]
    together = responder().respond_batch([prompts[i] for i in order], 3, names, **options)
    for i, name, answer in zip(order, names, together, strict=True):
        alone = responder().respond(prompts[i], 3, name, **options)
        assert [type(item) for item in answer] == [type(item) for item in alone]
        assert answer.text == alone.text
        for ours, theirs in zip(answer.pictures, alone.pictures, strict=True):
            assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)
            same_candidates(ours.retrieved, theirs.retrieved)
            same_candidates(*(sorted(x.generated, key=lambda c: c.seed) for x in (ours, theirs)))


def same_candidates(ours, theirs) -> None:
    """The same pictures and scores, up to the float noise of another batch."""
    for one, other in zip(ours, theirs, strict=True):
        assert one[2] == other[2] and one.score == pytest.approx(other.score, abs=1e-4)
        levels = zip(one.image.tobytes(), other.image.tobytes(), strict=True)
        assert max(abs(a - b) for a, b in levels) <= 2  # of 255


@few(50)
@given(*[st.integers(1, 3)] * 2, *[st.integers(0, 4)] * 3, st.integers(0, 99))
def test_parts_make_up_the_batch_in_whole_pairs(processes, micro, more, left, start, seed):
    batch_size = 2 * (processes * micro + more)
    profile, size, steps = PAPER.replace(batch_size=batch_size), 2 * batch_size + left, 6
    whole = [[i for _, i in rows] for rows in train_data.Order(size, batch_size, seed, 0, steps)]
    numbered = [(i, str(i)) for i in range(size)]
    loading, pieces = train_data.Loading(numbered, None, torch.arange(size)), [[] for _ in whole]
    for process in range(processes):
        part = split_batch(profile, process, processes, micro)
        order = train_data.Order(size, batch_size, seed, start, steps, part.own)
        for step, own in enumerate(loading.batches(order), start):
            assert own.images.tolist() == [int(c) for c in own.captions] == own.ids
            cut = [own.ids[which] for which in part.micro_batches]
            assert all(len(piece) % 2 == 0 for piece in cut)
            pieces[step] += sum(cut, [])
    assert pieces[start:] == whole[start:], "and a later start goes on"


LINES = st.characters(exclude_categories=["Cs", "Cc"])  # quotes too, no tab and no line break
NAMES = st.sampled_from(["0.png", "1.png", "2.png", "gone.png", "../1.png"])
ROWS = st.lists(st.tuples(st.one_of(st.just(" "), st.text(LINES, min_size=1)), NAMES), max_size=8)


@few(60)
@given(ROWS, st.booleans())
def test_usable_pairs_keep_caption_picture_and_order(tmp_path_factory, rows, swapped):
    folder = tmp_path_factory.getbasetemp()  # one for all examples
    for level in range(3):
        picture(level).save(folder / f"{level}.png")
    rows = [*rows, ("a \"red\" ball, 'big'", "2.png")]
    usable = [(text, name) for text, name in rows if text.strip() and name[0] in "012"]
    path = folder / "pairs.tsv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows(row[::-1] if swapped else row for row in [("caption", "image"), *rows])
    reading = read_captions(path, folder, max_skipped=0.9)
    assert [(pair.caption, pair.image) for pair in reading.examples] == usable
    assert reading.eligible == len(rows) == len(usable) + reading.skipped.total()
    pairs = pairs_dataset(path, folder, max_skipped=0.9)
    found = [pairs[i] for i in reversed(range(len(pairs)))][::-1]
    assert [(caption, image.tobytes()) for image, caption in found] == [
        (caption, picture(int(name[0])).tobytes()) for caption, name in usable
    ]
