"""Token ids, captions and label masks, against rows worked out by hand or position by position."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gill_lite.errors import GillError
from gill_lite.model import tokens
from gill_lite.model.tokens import IGNORE, Captions, Rows
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
    """Rows whose labels and embeddings say where they come from: 100 * row + position."""
    labels = 100 * torch.arange(1, len(lengths) + 1)[:, None] + torch.arange(width)
    return Rows(labels[..., None].float(), labels, torch.tensor(lengths))


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
        assert joined.embeds[i, : len(expected), 0].tolist() == expected
        assert (joined.labels[i, len(expected) :] == IGNORE).all()
    assert joined.labels.shape[1] == joined.lengths.max()


def test_joined_labels_hold_the_first_caption_only():
    rows = Rows(torch.zeros(2, 7, 1), tokens.masked_labels(*CAPTIONS), CAPTIONS.lengths)
    labels = tokens.end_after_first_img(tokens.join_rows(rows, 0).labels, IMG)
    assert labels.tolist() == [[2, 5, 6, 20] + [IGNORE] * 8]


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("drop", [None, 0])
def test_img_positions_point_at_the_img_tokens(joined, drop):
    rows = Rows(torch.zeros(2, 7, 1), tokens.masked_labels(*CAPTIONS), CAPTIONS.lengths)
    if joined:
        rows = tokens.join_rows(rows, drop)
    where = tokens.img_positions(CAPTIONS.lengths, 3, joined, drop is not None)
    assert rows.labels[where].tolist() == [list(IMG)] * 2


def test_an_odd_batch_cannot_be_joined():
    with pytest.raises(GillError, match="not 3 rows"):
        tokens.join_rows(rows_of([2, 3, 4], 4), 0)
