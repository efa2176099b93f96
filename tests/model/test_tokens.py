"""Token ids, captions and label masks, against rows worked out by hand or position by position."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gill_lite.errors import GillError
from gill_lite.model import tokens
from gill_lite.model.tokens import IGNORE, VISUAL, Captions, Rows
from tests.helpers import tiny_backbones

IMG = (20, 21, 22)  # R = 3


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_backbones.tokenizer()


def test_ids_are_the_official_ones():
    class Opt:
        def __len__(self):
            return 50265  # OPT's tokenizer

        def get_vocab(self):
            return {"<s>": 0, "last": 50264}

    assert tokens.img_token_ids(Opt(), 8) == tuple(range(50266, 50274))


def test_ids_lie_behind_a_vocabulary_with_gaps():
    class Gaps:
        def __len__(self):
            return 3

        def get_vocab(self):
            return {"a": 0, "b": 1, "<far>": 90}

    assert tokens.img_token_ids(Gaps(), 2) == (92, 93)


@pytest.mark.parametrize("text", ["[IMG3]", "<|image|>", "a ball </s>", "<pad>", "[IMG0][IMG1]"])
def test_special_tokens_in_text_are_plain_text(tokenizer, text):
    start, *rest = tokens.encode_text(tokenizer, text)
    assert start == tokenizer.bos_token_id
    special = {tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id}
    assert rest and not special & set(rest)
    assert max(rest) < len(tokenizer) < min(tokens.img_token_ids(tokenizer, 8))


def test_text_may_go_on_without_bos(tokenizer):
    with_bos = tokens.encode_text(tokenizer, "a red ball")
    assert tokens.encode_text(tokenizer, "a red ball", bos=False) == with_bos[1:]


def test_tokenizers_without_bos_get_none():
    assert tokens.bos_ids(SimpleNamespace(bos_token_id=None)) == []


def test_long_captions_are_cut_and_keep_all_img_tokens(tokenizer):
    words = "a small red ball at the beach"
    got = tokens.encode_captions(tokenizer, [words, "a box"], IMG, max_tokens=8)
    full = tokens.encode_text(tokenizer, words)
    assert got.input_ids[0].tolist() == full[:5] + list(IMG)
    short = tokens.encode_text(tokenizer, "a box") + list(IMG)
    assert got.input_ids[1].tolist() == short + [tokenizer.pad_token_id] * 2
    assert got.lengths.tolist() == [8, 6]


def test_captions_that_cannot_be_used(tokenizer):
    with pytest.raises(GillError, match="max_caption_tokens=4"):
        tokens.encode_captions(tokenizer, ["a box"], IMG, max_tokens=4)
    with pytest.raises(GillError, match="caption 1 of the batch is empty"):
        tokens.encode_captions(tokenizer, ["a box", "  "], IMG, max_tokens=9)


def test_decoded_text_has_no_img_tokens(tokenizer):
    ids = tokens.encode_text(tokenizer, "a red ball") + list(IMG)
    assert tokens.decode_text(tokenizer, ids, IMG).split() == ["a", "red", "ball"]


CAPTIONS = Captions(
    torch.tensor([[2, 5, 6, 20, 21, 22, 1], [2, 7, 8, 9, 20, 21, 22]]), torch.tensor([6, 7])
)


def test_caption_labels():
    x = IGNORE
    expected = [[x, x, 2, 5, 6, x, x, x, x], [x, x, 2, 7, 8, 9, x, x, x]]
    assert tokens.caption_labels(CAPTIONS, num_visual=2, num_img=3).tolist() == expected


def test_img_labels_end_at_the_first_img_token():
    x = IGNORE
    labels = tokens.masked_labels(*CAPTIONS)
    expected = [[2, 5, 6, 20, x, x, x], [2, 7, 8, 9, 20, x, x]]
    assert tokens.end_after_first_img(labels, IMG).tolist() == expected
    assert tokens.img_labels(CAPTIONS, num_img=3).tolist() == expected


def rows_of(lengths, width):
    """Rows whose labels say where they come from, 100 * row + position; ids are 1000 more."""
    labels = 100 * torch.arange(1, len(lengths) + 1)[:, None] + torch.arange(width)
    return Rows(labels + 1000, labels, torch.tensor(lengths))


@given(
    lengths=st.lists(st.integers(2, 6), min_size=2, max_size=6).filter(lambda x: len(x) % 2 == 0),
    drop=st.sampled_from([None, 0, 1]),
)
def test_joined_rows_are_first_then_second_without_its_bos(lengths, drop):
    rows = rows_of(lengths, 6)
    joined = tokens.join_rows(rows, drop)
    for i in range(len(lengths) // 2):
        first = rows.labels[2 * i, : lengths[2 * i]].tolist()
        second = rows.labels[2 * i + 1, : lengths[2 * i + 1]].tolist()
        if drop is not None:
            del second[drop]
        expected = first + second
        assert joined.lengths[i] == len(expected)
        assert joined.labels[i, : len(expected)].tolist() == expected
        assert (joined.input_ids[i, : len(expected)] - 1000).tolist() == expected
        assert (joined.labels[i, len(expected) :] == IGNORE).all()
    assert joined.labels.shape[1] == joined.lengths.max()


def config(**changes):
    sizes = {"num_visual_tokens": 2, "num_img_tokens": 3, "img_token_ids": IMG, "has_bos": True}
    return SimpleNamespace(**{**sizes, **changes})


def test_rows_of_the_captioning_pass_begin_with_visual_tokens():
    v, x = VISUAL, IGNORE
    rows = tokens.captioning_rows(CAPTIONS, config())
    assert rows.input_ids[0].tolist() == [v, v, 2, 5, 6, 20, 21, 22, 1]
    assert rows.labels[0].tolist() == [x, x, 2, 5, 6, x, x, x, x]
    assert rows.lengths.tolist() == [5, 6], "[IMG] tokens are not read"
    joined = tokens.captioning_rows(CAPTIONS, config(), join=True)
    assert joined.input_ids.tolist() == [[v, v, 2, 5, 6, v, v, 7, 8, 9]]
    assert joined.labels.tolist() == [[x, x, 2, 5, 6, x, x, 7, 8, 9]]


def test_joined_labels_hold_the_first_caption_only():
    rows = tokens.img_rows(CAPTIONS, config(), join=True)
    assert rows.input_ids.tolist() == [[2, 5, 6, 20, 21, 22, 7, 8, 9, 20, 21, 22]]
    assert rows.labels.tolist() == [[2, 5, 6, 20] + [IGNORE] * 8]


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("bos", [False, True])
def test_img_positions_point_at_the_img_tokens(join, bos):
    padded = Captions(torch.cat([CAPTIONS.input_ids, torch.full((2, 1), 21)], 1), CAPTIONS.lengths)
    rows = tokens.img_rows(padded, config(has_bos=bos), join)
    where = tokens.img_positions(rows, IMG)
    assert rows.input_ids[where].tolist() == [*IMG, *IMG], "none of the padding"
    assert where.shape == rows.input_ids.shape


def test_an_odd_batch_cannot_be_joined():
    with pytest.raises(GillError, match="not 3 rows"):
        tokens.join_rows(rows_of([2, 3, 4], 4), 0)
