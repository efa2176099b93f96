"""Fast drawing gives the pictures of the plain one: to the bit from the scheduler, else rounded."""

import copy

import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from gill_lite.answering.drawing import Drawing
from gill_lite.evaluation.drawers import weights_sha256
from gill_lite.model.fast_drawing import keep_times_on_host, speed_up
from tests.helpers import tiny_backbones

SCHEDULERS = {"ddim": DDIMScheduler(steps_offset=1), "pndm": PNDMScheduler(skip_prk_steps=True)}


@pytest.fixture(params=SCHEDULERS)
def backbones(request):
    tiny = tiny_backbones.backbones()
    tiny.profile = tiny_backbones.profile(num_inference_steps=4)
    tiny.pipeline.set_progress_bar_config(disable=True)
    tiny.pipeline.scheduler = copy.deepcopy(SCHEDULERS[request.param])
    return tiny


def draw(backbones, count: int) -> torch.Tensor:
    width = backbones.pipeline.unet.config.cross_attention_dim
    embeds = torch.randn(count, 77, width, generator=torch.Generator().manual_seed(0))
    return Drawing(backbones).draw(embeds, range(count))


def test_times_on_the_host_change_no_bit(backbones):
    plain, fewer = draw(backbones, 3), draw(backbones, 2)
    keep_times_on_host(backbones.pipeline.scheduler)
    assert torch.equal(draw(backbones, 3), plain) and torch.equal(draw(backbones, 2), fewer)


def test_no_step_looks_at_the_time_it_is_given(backbones):
    """The pipeline's own times may lie on a GPU: here on the meta device, which has no values."""
    scheduler = backbones.pipeline.scheduler
    keep_times_on_host(scheduler)
    scheduler.set_timesteps(4, device="meta")
    noise, latents = torch.ones(1, 4, 4, 4), torch.ones(1, 4, 4, 4)
    for time in scheduler.timesteps:
        latents = scheduler.step(noise, time, latents, return_dict=False)[0]
    assert latents.isfinite().all()


def test_fast_drawing_changes_the_rounding_alone_and_is_told_apart(backbones):
    plain, known = draw(backbones, 3), weights_sha256(backbones.pipeline.unet)
    speed_up(backbones.pipeline)
    difference = (draw(backbones, 3) - plain).abs().max()
    assert difference < 1e-4
    assert weights_sha256(backbones.pipeline.unet) != known
