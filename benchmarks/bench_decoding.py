"""Decoding: with the KV cache, beside reading the whole sequence again for each word."""

import statistics
import time

from benchmarks import reference
from benchmarks.record import as_long, faster, keep, versus
from gill_lite.answering.decode import Sampling, generate

WORDS, PROMPT = 32, 300
LONG, END = 64, 16  # words, and how many at each end are compared
ROUNDS = {"OPT of the mini shape": 7, "OPT-125m's shape": 1}


def same(ours, theirs):
    assert ours == theirs and len(ours) == WORDS


def test_decoding(benchmark, shaped, prompt_of, quick):
    weights, responder = shaped
    gill, prompt = responder.gill, prompt_of(responder, PROMPT)
    sampling = Sampling(max_words=WORDS, min_words=WORDS)  # no [IMG0]: as many words for both
    versus(
        benchmark, f"decoding {WORDS} words behind {PROMPT} tokens", weights,
        lambda: generate(gill, prompt[None], sampling=sampling).ids[0],
        lambda: reference.decode(gill, prompt, sampling),
        faster(5), same, rounds=1 if quick else ROUNDS[weights], warmup=int("mini" in weights),
    )  # fmt: skip


def test_time_of_later_words(benchmark, shaped, prompt_of, quick, monkeypatch):
    weights, responder = shaped
    gill, prompt = responder.gill, prompt_of(responder, PROMPT)
    fed, moments, lm_step = [], [], gill.lm_step

    def watched(embeds, *rest, **more):
        fed.append(embeds.shape[1])
        moments.append(time.perf_counter())
        return lm_step(embeds, *rest, **more)

    monkeypatch.setattr(gill, "lm_step", watched)
    sampling = Sampling(max_words=LONG, min_words=LONG)
    rounds = 1 if quick else 3
    benchmark.pedantic(
        lambda: generate(gill, prompt[None], sampling=sampling), rounds=rounds, warmup_rounds=1
    )
    assert fed == [PROMPT, *[1] * (LONG - 1)] * (rounds + 1), "something is read twice"
    runs = [moments[i : i + LONG] for i in range(LONG, len(moments), LONG)]
    early = statistics.median(run[i + 1] - run[i] for run in runs for i in range(1, END + 1))
    late = statistics.median(run[-i] - run[-i - 1] for run in runs for i in range(1, END + 1))
    what = f"a word, the last {END} of {LONG}; reference: the first {END}"
    keep(benchmark, what, weights, late, as_long(1.1), reference=early)
