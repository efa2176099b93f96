"""The r [IMG] tokens: their ids, captions that end in them, and the label masks.

The tokenizer itself is never changed, so a literal "[IMG3]" or "<|image|>" that somebody
types stays plain text; the [IMG] tokens exist as ids only, behind the tokenizer's own.

Axes: B batch, T text positions, K visual tokens, R [IMG] tokens. Rows are padded on the
right; `lengths` counts a row's real positions, its R [IMG] tokens included.
Paper: Sec. 3 (learning to produce images); layout of the rows: official code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gill_lite.errors import GillError

IGNORE = -100  # the label that cross-entropy skips
VISUAL = -1  # in a training row: here stands a visual token, which has no id


class Captions(NamedTuple):
    """A batch of captions, each ending in the R [IMG] tokens, padded on the right."""

    input_ids: Tensor  # (B, T)
    lengths: Tensor  # (B,)


class Rows(NamedTuple):
    """What an LM pass of training reads and what it must predict."""

    input_ids: Tensor  # (B, T), or (B/2, longest pair) when joined; VISUAL at visual tokens
    labels: Tensor  # the same rows and positions, IGNORE where there is nothing to learn
    lengths: Tensor  # real positions of each row


def img_token_ids(tokenizer, num_img_tokens: int) -> tuple[int, ...]:
    """Ids of [IMG0] ... [IMG r-1]. The id before them is the official `<|image|>` token.

    They are behind every id the tokenizer gives, also where its ids have gaps.
    """
    first = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values())) + 1
    return tuple(range(first, first + num_img_tokens))


def encode_text(tokenizer, text: str, bos: bool = True) -> list[int]:
    """Token ids of plain text, behind the beginning-of-sequence id if `bos`.

    Special tokens written out in the text are read as plain text. Raises GillError for a text
    with halves of characters, as bytes that are no UTF-8 leave them on a command line.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise GillError(f"the text {text[:80]!a} is not Unicode; write it in UTF-8") from error
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    ids = tokenizer(text, **options).input_ids
    return bos_ids(tokenizer) + ids if bos else ids


def bos_ids(tokenizer) -> list[int]:
    """The beginning-of-sequence id as a list, empty for tokenizers without one."""
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def decode_text(tokenizer, ids: Sequence[int], img_ids: Sequence[int]) -> str:
    """Text of `ids`; [IMG] ids are left out."""
    return tokenizer.decode([i for i in ids if i not in set(img_ids)], skip_special_tokens=True)


def encode_captions(
    tokenizer, captions: Sequence[str], img_ids: Sequence[int], max_tokens: int
) -> Captions:
    """Training captions: text, cut so that it and all [IMG] tokens fit into `max_tokens`.

    Rows are padded to the longest of them. Raises GillError for an empty caption.
    """
    room = max_tokens - len(img_ids)
    if room < 2:
        raise GillError(
            f"max_caption_tokens={max_tokens} leaves no room for text beside "
            f"{len(img_ids)} [IMG] tokens; set it to at least {len(img_ids) + 2}"
        )
    for i, caption in enumerate(captions):
        if not caption.strip():
            raise GillError(f"caption {i} of the batch is empty; drop the pair or give it text")
    texts = tokenizer(list(captions), add_special_tokens=False, split_special_tokens=True).input_ids
    start = bos_ids(tokenizer)
    rows = [(start + list(text))[:room] + list(img_ids) for text in texts]
    return pad_rows(rows, pad_id(tokenizer))


def pad_id(tokenizer) -> int:
    """The id that fills up rows; the end-of-sequence id where a tokenizer has no pad token."""
    known = tokenizer.pad_token_id
    return tokenizer.eos_token_id if known is None else known


def pad_rows(rows: Sequence[Sequence[int]], fill: int) -> Captions:
    """Lists of ids as one tensor, padded on the right to the longest."""
    lengths = torch.tensor([len(row) for row in rows])  # (B,)
    input_ids = torch.full((len(rows), int(lengths.max())), fill)  # (B, T)
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = torch.tensor(row)
    return Captions(input_ids, lengths)


def captioning_rows(captions: Captions, config, join: bool = False) -> Rows:
    """Rows of the captioning pass (paper Eq. 1): K visual tokens, then the caption's text."""
    ids, lengths = captions
    visual = ids.new_full((len(ids), config.num_visual_tokens), VISUAL)  # (B, K)
    rows = Rows(
        torch.cat([visual, ids], dim=1),  # (B, K+T)
        caption_labels(captions, config.num_visual_tokens, config.num_img_tokens),
        lengths + config.num_visual_tokens - config.num_img_tokens,
    )
    return join_rows(rows, config.num_visual_tokens if config.has_bos else None) if join else rows


def img_rows(captions: Captions, config, join: bool = False) -> Rows:
    """Rows of the pass that retrieval and generation share (paper Eq. 2): text, [IMG] tokens."""
    ids, lengths = captions
    if not join:
        return Rows(ids, img_labels(captions, config.num_img_tokens), lengths)
    whole = Rows(ids, masked_labels(ids, lengths), lengths)
    rows = join_rows(whole, 0 if config.has_bos else None)
    return rows._replace(labels=end_after_first_img(rows.labels, config.img_token_ids))


def caption_labels(captions: Captions, num_visual: int, num_img: int) -> Tensor:
    """Labels of the captioning pass (B, K+T): the caption's text, nothing else."""
    ids, lengths = captions
    text = masked_labels(ids, lengths - num_img)  # (B, T)
    visual = ids.new_full((len(ids), num_visual), IGNORE)  # (B, K)
    return torch.cat([visual, text], dim=1)  # (B, K+T)


def img_labels(captions: Captions, num_img: int) -> Tensor:
    """Labels of the retrieval and generation pass (B, T): the text and [IMG0]."""
    return masked_labels(captions.input_ids, captions.lengths - num_img + 1)  # (B, T)


def masked_labels(ids: Tensor, counts: Tensor) -> Tensor:
    """The first `counts[i]` ids of each row, IGNORE behind them."""
    position = torch.arange(ids.shape[1], device=ids.device)  # (T,)
    return ids.masked_fill(position >= counts[:, None], IGNORE)  # (B, T)


def join_rows(rows: Rows, drop: int | None) -> Rows:
    """Join rows 2i and 2i+1 into one; position `drop` of the second (its BOS) is left out.

    The result is (B/2, longest pair): first row, second row, padding.
    """
    if len(rows.lengths) % 2:
        raise GillError(f"only an even batch can be joined in pairs, not {len(rows.lengths)} rows")
    first, second = rows.lengths[0::2, None], rows.lengths[1::2, None]  # (B/2, 1)
    total = first + second - int(drop is not None)
    width = rows.labels.shape[1]
    position = torch.arange(int(total.max()), device=total.device)  # (longest pair,)
    in_first = position < first  # (B/2, longest pair)
    later = position - first
    if drop is not None:
        later = later + (later >= drop)
    source = torch.where(in_first, position, width + later)
    padding = position >= total
    source = source.masked_fill(padding, 0)
    ids, labels = (
        column.reshape(len(first), 2 * width).gather(1, source).masked_fill(padding, fill)
        for column, fill in ((rows.input_ids, 0), (rows.labels, IGNORE))
    )
    return Rows(ids, labels, total[:, 0])


def end_after_first_img(labels: Tensor, img_ids: Sequence[int]) -> Tensor:
    """Labels end at each row's first [IMG1], as in the official code.

    In a joined row this leaves the first caption only.
    """
    if len(img_ids) < 2:
        return labels
    later_img = torch.tensor(img_ids[1:], device=labels.device)
    seen = torch.isin(labels, later_img).cumsum(dim=1) > 0  # (B, T)
    return labels.masked_fill(seen, IGNORE)


def img_positions(rows: Rows, img_ids: Sequence[int]) -> Tensor:
    """Where [IMG] tokens stand, a mask (B, T); row by row the R of each caption, in order."""
    position = torch.arange(rows.input_ids.shape[1], device=rows.lengths.device)  # (T,)
    return (rows.input_ids >= img_ids[0]) & (position < rows.lengths[:, None])
