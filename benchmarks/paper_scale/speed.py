"""How fast a model trains, decodes and draws, and how much of a GPU's memory it takes.

Every function runs the code that training and answering run, on any backbones and any device.
Axes: B batch, T positions, D LM width, L prompt-embedding slots, E prompt-embedding width.
"""

import itertools
import math
import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from gill_lite.answering import decode
from gill_lite.answering.index import ImageIndex
from gill_lite.errors import GillError
from gill_lite.training.data import Examples
from gill_lite.training.processes import split_batch
from gill_lite.training.step import Stepper
from gill_lite.training.train import coming

WARMUP = 3  # runs that are not counted: kernels are chosen, memory is taken


class Timing(NamedTuple):
    """Several runs of the same thing."""

    seconds: list[float]  # of each run
    peak: int | None  # bytes of tensors on the GPU at most, None on a CPU
    last: Any  # what the last run returned

    @property
    def median(self) -> float:
        """Seconds of the run in the middle."""
        return statistics.median(self.seconds)


def timed(run, device, repeats: int, what: str, warmup: int | None = None) -> Timing:
    """Time `run()` on `device` after WARMUP runs, or as many; the GPU's work is waited for."""
    warmup = WARMUP if warmup is None else warmup
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in tqdm(range(warmup + repeats), desc=what, leave=False):
        _wait(device)
        started = time.perf_counter()
        last = run()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else None
    return Timing(seconds[warmup:], peak, last)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- training ------------------------------------------------------------------------------


def random_examples(profile, tokenizer, image_size: int) -> Examples:
    """A batch of noise pictures and random captions, long enough to be cut."""
    rng = np.random.default_rng(0)
    known = sorted(word for word in tokenizer.get_vocab() if word.isalnum())
    size = profile.batch_size
    words = rng.choice(known, (size, profile.max_caption_tokens))
    pixels = torch.randn(size, 3, image_size, image_size)  # (B, 3, H, W)
    return Examples(list(range(size)), pixels, [" ".join(row) for row in words])


def train_timing(
    profile, gill, backbones, repeats: int, micro_batches: int = 1, mixed_precision: str = "bf16"
) -> Timing:
    """Whole steps of `profile.batch_size` pairs, from text and pixels to changed joints.

    The generator's text embeddings are computed in each step. Steps are taken behind the warm-up
    of the learning rate, some with joined captions. Raises GillError for a loss that is not finite.
    """
    part = split_batch(profile, micro_batches=micro_batches)
    stepper = Stepper(profile, gill, part, mixed_precision)
    vision = getattr(backbones.vision.config, "vision_config", backbones.vision.config)
    examples = random_examples(profile, backbones.tokenizer, vision.image_size)
    made = coming(stepper, backbones, itertools.repeat(examples), 0, profile.warmup_steps)
    made = enumerate(made, profile.warmup_steps)
    waiting = [next(made)]

    def step() -> dict[str, float]:
        stepper.start(*waiting.pop())
        waiting.append(next(made))
        row = stepper.finish()
        if not all(math.isfinite(value) for value in row.values()):
            raise GillError("a training step was not finite; its time would mean nothing")
        return row

    timing = timed(step, gill.logit_scale.device, repeats, "training")
    gill.zero_grad(set_to_none=True)
    gill.eval()
    return timing


# ---- answering -----------------------------------------------------------------------------


@torch.no_grad()
def decode_timing(
    gill, batch_size: int, prompt_tokens: int, new_tokens: int, repeats: int, fixed=None
) -> tuple[Timing, Timing]:
    """Reading random prompts with one token chosen; then `new_tokens` - 1 more, KV cache in use.

    Every row gets `new_tokens` words: none ends early and [IMG0] is ruled out.
    """
    device = gill.logit_scale.device
    ids = torch.randint(gill.own_rows, (batch_size, prompt_tokens), device=device)  # (B, T)
    embeds = gill.embed(ids)  # (B, T, D)

    def answer(count: int) -> decode.Decoded:
        return decode.generate(
            gill,
            embeds,
            sampling=decode.Sampling(max_words=count, min_words=count),
            fixed=fixed,
        )

    what = f"decoding, batch {batch_size}"
    first = timed(lambda: answer(1), device, repeats, what)
    whole = timed(lambda: answer(new_tokens), device, repeats, what)
    rest = [seconds - first.median for seconds in whole.seconds]
    return first, whole._replace(seconds=rest)


@torch.no_grad()
def draw_timing(responder, batch_size: int, repeats: int, warmup: int | None = None) -> Timing:
    """Pictures of random prompt embeddings, the autoencoder and the way to the CPU included."""
    pipeline, profile = responder.backbones.pipeline, responder.profile
    width = pipeline.unet.config.cross_attention_dim
    noise = torch.Generator().manual_seed(0)
    embeds = torch.randn(batch_size, profile.prompt_slots, width, generator=noise)  # (B, L, E)
    device, what = pipeline.unet.device, f"drawing, batch {batch_size}"
    draw = partial(responder.drawing.draw, embeds, range(batch_size))
    return timed(draw, device, repeats, what, warmup)


@torch.no_grad()
def search_timing(
    pictures: int, width: int, batches: Sequence[int], repeats: int, device
) -> list[Timing]:
    """Top 5 of random embeddings in half precision, for each number of queries at once."""
    embeddings = torch.randn(pictures, width, dtype=torch.half, device=device)  # (N, P)
    embeddings.div_(embeddings.norm(dim=1, keepdim=True))
    index = ImageIndex(embeddings, range(pictures))
    queries = torch.randn(max(batches), width, device=device)  # (B, P)
    return [
        timed(lambda n=n: index.search(queries[:n], 5), device, repeats, f"searching, {n} queries")
        for n in batches
    ]
