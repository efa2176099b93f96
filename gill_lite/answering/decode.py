"""Decoding: text, and [IMG0] that pulls the other [IMG] tokens behind it.

The official algorithm for one prompt, here for batches and with a KV cache: the values are
the same up to float noise. Axes: B batch, T positions, D LM width, R [IMG] tokens, V
vocabulary. Paper: Sec. 3 (inference); scale factors and the minimum of words: official code.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gill_lite.answering.answers import Sampling
from gill_lite.answering.fixed_steps import FixedSteps


class Decoded(NamedTuple):
    """What each of the B prompts was answered with."""

    ids: list[list[int]]  # new tokens, [IMG] tokens among them
    img_starts: list[list[int]]  # positions of each [IMG0] in `ids`
    img_hidden: list[Tensor]  # (images, R, D) states of the [IMG] tokens, a tensor a row


def pad_left(prompts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Prompts (T_i, D) as one batch: embeddings (B, T, D) and mask (B, T), text at the end."""
    longest = max(len(prompt) for prompt in prompts)
    embeds = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[-1])  # (B, T, D)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=embeds.device)  # (B, T)
    for i, prompt in enumerate(prompts):
        embeds[i, longest - len(prompt) :] = prompt
        mask[i, longest - len(prompt) :] = 1
    return embeds, mask


@torch.no_grad()
def generate(
    gill,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None = None,
    sampling: Sampling | None = None,
    generators: Sequence[torch.Generator] | None = None,
    watch: Callable[[list[list[int]]], None] | None = None,
    fixed: FixedSteps | None = None,
) -> Decoded:
    """Continue B prompts, given as embeddings (B, T, D) padded on the left.

    `attention_mask` (B, T) is 0 on padding. `generators`, one a row, make sampling depend on
    its row alone. `watch` is shown the rows' ids after each choice. `fixed` runs the LM on a GPU.
    Raises GillError when a prompt and its answer exceed the LM's positions.
    """
    sampling = sampling or Sampling()
    if attention_mask is None:
        attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.long)
    on_host, mask = attention_mask.cpu(), attention_mask.to(inputs_embeds.device)
    padded = bool((on_host == 0).any())  # else the LM is faster without a mask, and says the same
    img_ids = gill.config.img_token_ids
    gill.check_room(inputs_embeds, on_host, more=sampling.positions(len(img_ids)))
    rows = [_Row(sampling, img_ids) for _ in range(len(inputs_embeds))]
    lm_step, more = gill.lm_step, 0
    if fixed is not None:
        lm_step = fixed.for_answer(mask, sampling.most_positions(len(img_ids)))
    step = lm_step(inputs_embeds, mask if padded else None, None)
    while True:
        logits = gill.logits(step.last_hidden_state[:, -1]).float()  # (B, V)
        words = torch.tensor([row.words for row in rows], device=logits.device)  # (B,)
        shown = torch.tensor([row.images for row in rows], device=logits.device)  # (B,)
        chosen = choose(logits, words, img_ids, sampling, generators, shown).tolist()
        fed = torch.tensor([row.take(token) for row, token in zip(rows, chosen, strict=True)])
        if watch:
            watch([row.ids for row in rows])
        if not any(row.goes_on for row in rows):
            break
        more += 1
        gill.check_room(inputs_embeds, on_host, more)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        embeds = gill.embed(fed[:, None])  # (B, 1, D)
        step = lm_step(embeds, mask if padded else None, step.past_key_values)
        for row, state in zip(rows, step.last_hidden_state[:, 0], strict=True):
            row.keep(state)
    return _collect(rows, inputs_embeds.new_zeros(0, len(img_ids), inputs_embeds.shape[-1]))


class _Row:
    """One prompt's progress: what was said so far, [IMG] tokens still to be forced."""

    def __init__(self, sampling: Sampling, img_ids: Sequence[int]):
        self.sampling, self.img_ids = sampling, img_ids
        self.ids: list[int] = []
        self.states: list[Tensor] = []  # of [IMG] tokens, in order
        self.forced: deque[int] = deque()  # what must come before the next choice
        self.words, self.images, self.ended = 0, 0, sampling.max_words == 0
        self.begun = False  # whether anything but newlines was said
        self.closing = False  # a sentence has ended: nothing but a picture may follow
        self.last: int | None = None  # what the LM is fed; None: nothing more to say

    def take(self, token: int) -> int:
        """Accept a chosen token, or the forced [IMG] token in its place; give what to feed."""
        if self.forced:
            token = self.forced.popleft()
        elif self.ended or (self.closing and token != self.img_ids[0]):
            self.ended, self.last = True, None
            return 0
        else:
            self._choose(token)
        self.ids.append(token)
        self.last = token
        return token

    def _choose(self, token: int) -> None:
        """Count a token, and see what must follow it and whether the row ends with it."""
        sampling = self.sampling
        self.words += 1
        if token == self.img_ids[0]:
            self.images += 1
            self.forced.extend(self.img_ids[1:])
        newline = token in sampling.newline_ids
        stops = token in sampling.stop_ids or (newline and self.begun) or self.closing
        self.ended = stops or self.words == sampling.max_words
        self.begun = self.begun or not newline
        self.closing = token in sampling.sentence_ids

    @property
    def goes_on(self) -> bool:
        """Whether the LM must run again for this row."""
        return bool(self.forced) or not self.ended or self.last in self.img_ids

    def keep(self, state: Tensor) -> None:
        """Remember the LM's state if an [IMG] token was fed."""
        if self.last in self.img_ids:
            self.states.append(state)


def _collect(rows: Sequence[_Row], none: Tensor) -> Decoded:
    starts, hidden = [], []
    for row in rows:
        starts.append([i for i, token in enumerate(row.ids) if token == row.img_ids[0]])
        states = torch.stack(row.states) if row.states else none
        hidden.append(states.reshape(-1, len(row.img_ids), none.shape[-1]).float())
    return Decoded([row.ids for row in rows], starts, hidden)


def choose(
    logits: Tensor,
    words: Tensor,
    img_ids: Sequence[int],
    sampling: Sampling,
    generators: Sequence[torch.Generator] | None = None,
    shown: Tensor | None = None,
) -> Tensor:
    """The next token of each row (B,), from logits (B, V), words and pictures so far (B,)."""
    logits = scale_img_logit(logits, words, img_ids, sampling, shown)
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)  # (B,)
    probabilities = nucleus(logits / sampling.temperature, sampling.top_p)  # (B, V)
    generators = generators or [None] * len(logits)
    draws = [
        torch.multinomial(row.cpu(), 1, generator=generator)
        for row, generator in zip(probabilities, generators, strict=True)
    ]
    return torch.cat(draws)  # (B,)


def scale_img_logit(
    logits: Tensor, words: Tensor, img_ids: Sequence[int], sampling: Sampling,
    shown: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Apply the scale factors; rule out [IMG1] ..., and [IMG0] where no picture may come.

    That is before `min_words`, and where `shown` pictures (B,) are `max_images` already.
    """
    logits = logits.clone()
    first = logits[:, img_ids[0]].clone()  # (B,)
    for factor in (sampling.ret_scale_factor, sampling.gen_scale_factor):
        if factor > 1:
            first = first.abs() * factor
    barred = words < sampling.min_words  # (B,)
    if shown is not None and sampling.max_images is not None:
        barred = barred | (shown >= sampling.max_images)
    logits[:, list(img_ids)] = -torch.inf
    logits[:, img_ids[0]] = first.masked_fill(barred, -torch.inf)
    return logits


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Probabilities (B, V) of the fewest tokens that together hold more than `top_p`."""
    probabilities = logits.softmax(dim=-1)
    if top_p == 1:
        return probabilities
    ordered, index = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered  # (B, V) held by likelier tokens
    ordered = ordered.masked_fill(before > top_p, 0)
    return torch.zeros_like(probabilities).scatter(-1, index, ordered)
