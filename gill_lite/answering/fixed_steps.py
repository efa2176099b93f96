"""Decoding on a GPU: a cache of fixed size, and the LM's later steps compiled around it.

A step of the LM is some thousand small kernels, and a GPU is done with each before the host has
launched the next. Steps of one shape are compiled and captured once (transformers' StaticCache,
`torch.compile`) and then launched as a whole. Tokens are those of `Gill.lm_step`.
Axes: B prompts, T positions of the prompts, N positions of the cache.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST = 256  # positions of a cache; longer ones are twice as long each, so that few are compiled


class Step(NamedTuple):
    """What `decode.generate` reads of a step."""

    last_hidden_state: Tensor
    past_key_values: object


class FixedSteps:
    """Steps of `gill`'s LM; caches and compiled steps are kept for later answers.

    options: of `torch.compile`.
    """

    def __init__(self, gill, **options):
        self.gill, self.lm = gill, gill.lm.base_model
        options = options or {"mode": "reduce-overhead"}  # CUDA graphs
        self.compiled = torch.compile(self.lm, dynamic=False, **options)
        self.caches: dict[tuple[int, int], Any] = {}

    def for_answer(self, attention_mask: Tensor, more: int):
        """What stands in for `Gill.lm_step` in one answer of at most `more` positions.

        attention_mask: of the prompts (B, T).
        """
        rows, read = attention_mask.shape
        size = max(SHORTEST, 1 << (read + more - 1).bit_length())  # N
        mask = F.pad(attention_mask, (0, size - read), value=1)  # (B, N); causal: none looks ahead
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # (B, N)
        cache, done = self.cache(rows, size), 0
        dtype = self.gill.lm.get_input_embeddings().weight.dtype

        def lm_step(inputs_embeds: Tensor, *_) -> Step:
            nonlocal done
            run = self.compiled if done else self.lm  # the prompt has a length of its own
            start, done = done, done + inputs_embeds.shape[1]
            torch.compiler.cudagraph_mark_step_begin()
            found = run(
                inputs_embeds=inputs_embeds.to(dtype), attention_mask=mask,
                position_ids=positions[:, start:done], past_key_values=cache, use_cache=True,
            )  # fmt: skip
            return Step(found.last_hidden_state.clone(), cache)  # the next step writes over it

        return lm_step

    def cache(self, rows: int, size: int):
        """An empty cache for `rows` prompts and `size` positions, always the same one."""
        from transformers import StaticCache

        key = rows, size
        if key not in self.caches:
            self.caches[key] = StaticCache(config=self.gill.lm.config, max_cache_len=size)
        self.caches[key].reset()
        return self.caches[key]


def fixed_steps(gill) -> FixedSteps | None:
    """How decoding of `gill` is fast: fixed steps on a GPU, None for the plain ones elsewhere.

    A quantised LM's kernels are not compiled.
    """
    on_gpu = gill.logit_scale.device.type == "cuda"
    return FixedSteps(gill) if on_gpu and not getattr(gill.lm, "is_quantized", False) else None
