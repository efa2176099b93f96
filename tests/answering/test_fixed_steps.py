"""Steps of fixed shape say what the plain ones say, and are compiled once; here without a GPU."""

from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from gill_lite.answering.decode import Sampling, generate, pad_left
from gill_lite.answering.fixed_steps import SHORTEST, FixedSteps, fixed_steps
from gill_lite.model.gill import build_gill
from tests.helpers import tiny_backbones

SETTINGS = [
    Sampling(max_words=8),
    Sampling(max_words=8, ret_scale_factor=1.5, gen_scale_factor=3.0, min_words=3),
    Sampling(max_words=4, gen_scale_factor=1e6),
]


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 16, generator=generator) for n in (5, 2, 9, 7)]


@pytest.mark.parametrize("kind", ["opt", "llama"])
def test_the_same_tokens_and_states_and_one_compiled_step_a_shape(prompts, kind):
    tiny = tiny_backbones.backbones()
    if kind != "opt":
        tiny.lm = tiny_backbones.causal_lm(kind, len(tiny.tokenizer))
    gill = build_gill(tiny_backbones.profile(num_img_tokens=3), tiny)
    counter = CompileCounter()
    fixed = FixedSteps(gill, backend=counter)
    for some in (prompts, prompts[:1], prompts[1:2]):
        for sampling in SETTINGS:
            embeds, mask = pad_left(some)
            plain = generate(gill, embeds, mask, sampling)
            ours = generate(gill, embeds, mask, sampling, fixed=fixed)
            assert ours.ids == plain.ids and ours.img_starts == plain.img_starts
            for state, known in zip(ours.img_hidden, plain.img_hidden, strict=True):
                torch.testing.assert_close(state, known, rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 2, "one for four prompts, one for a single one"
    assert set(fixed.caches) == {(4, SHORTEST), (1, SHORTEST)}


def test_a_cache_is_as_long_as_the_answer_may_be():
    assert Sampling(max_words=8).most_positions(3) == 24  # each word a picture
    assert Sampling(max_words=8, min_words=6).most_positions(3) == 12
    assert Sampling(max_words=8, max_images=1).most_positions(3) == 10
    gill = build_gill(tiny_backbones.profile(), tiny_backbones.backbones())
    fixed = FixedSteps(gill, backend="eager")
    for read, more in ((200, 56), (200, 57), (600, 500)):
        fixed.for_answer(torch.ones(1, read, dtype=torch.long), more)
    assert [size for _, size in fixed.caches] == [256, 512, 2048]


@pytest.mark.parametrize(
    ("device", "quantised", "fast"), [("cpu", False, 0), ("cuda", False, 1), ("cuda", True, 0)]
)
def test_a_gpu_takes_them_and_a_cpu_does_not(device, quantised, fast):
    lm = SimpleNamespace(base_model=torch.nn.Identity(), is_quantized=quantised)
    scale = SimpleNamespace(device=torch.device(device))
    assert (fixed_steps(SimpleNamespace(lm=lm, logit_scale=scale)) is not None) == fast
