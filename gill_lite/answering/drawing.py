"""Prompt embeddings -> pictures through the diffusion model, an example's noise by its seed.

Axes: B batch, L prompt-embedding slots, E prompt-embedding width; latents are (B, C, h, w).
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor


def example_seed(run_seed: int, example_id: str) -> int:
    """The seed of an example's noise: a hash of the run's seed and the example's id alone.

    So results depend on no order, neighbour or resume point.
    """
    digest = hashlib.sha256(f"{run_seed}/{example_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # 63 bits: what torch.Generator takes


class Drawing:
    """The diffusion model of the backbones, at the settings of their profile."""

    def __init__(self, backbones):
        self.backbones = backbones

    @torch.no_grad()
    def draw(self, prompt_embeds: Tensor, seeds: Sequence[int], **options) -> Tensor:
        """Pictures (B, 3, H, W) in 0..1 from prompt embeddings (B, L, E), noise by seed.

        options: see `denoise`.
        """
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return self.decode(self.denoise(prompt_embeds, generators, **options))

    @torch.no_grad()
    def denoise(
        self, prompt_embeds: Tensor, generators: Sequence[torch.Generator],
        guidance_scale: float | None = None, num_inference_steps: int | None = None,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """The diffusion model's latents (B, C, h, w), from which `decode` makes the pictures.

        generators: one for each picture's noise, on the CPU, so that machines agree.
        guidance_scale, num_inference_steps: the profile's by default. watch: is shown the number
        of each step that is done and its latents.
        """
        pipeline, profile = self.backbones.pipeline, self.backbones.profile
        weight = pipeline.unet.conv_in.weight
        return pipeline(
            prompt_embeds=prompt_embeds.to(weight),
            negative_prompt_embeds=self.no_prompt.expand(len(prompt_embeds), -1, -1),
            generator=list(generators),
            num_inference_steps=num_inference_steps or profile.num_inference_steps,
            guidance_scale=profile.guidance_scale if guidance_scale is None else guidance_scale,
            output_type="latent",
            callback_on_step_end=_shown_to(watch) if watch else None,
        ).images

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) as pictures (B, 3, H, W) in 0..1, float32 on the CPU."""
        pipeline = self.backbones.pipeline
        vae = pipeline.vae
        latents = latents.to(next(vae.parameters()))
        images = vae.decode(latents / vae.config.scaling_factor).sample
        return pipeline.image_processor.postprocess(images, output_type="pt").float().cpu()

    @torch.no_grad()
    def text_embeds(self, texts: list[str]) -> Tensor:
        """What Stable Diffusion's own text encoder makes of the texts, (B, L, E).

        Texts longer than the encoder reads (77 tokens) are cut, as Stable Diffusion does.
        """
        pipeline = self.backbones.pipeline
        with _quiet("diffusers", "transformers"):  # both would tell of every text that is cut
            return pipeline.encode_prompt(texts, pipeline.unet.device, 1, False)[0]

    @cached_property
    def no_prompt(self) -> Tensor:
        """The embedding of the empty text (1, L, E), for guidance."""
        return self.text_embeds([""])


def _shown_to(watch: Callable[[int, Tensor], None]):
    """`watch` in the form in which the pipeline calls back."""

    def call(pipeline, step: int, timestep, tensors: dict) -> dict:
        watch(step, tensors["latents"])
        return tensors

    return call


@contextmanager
def _quiet(*loggers: str):
    """Only errors are logged by these libraries meanwhile."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)


def to_pil(picture: Tensor) -> Image.Image:
    """A picture (3, H, W) in 0..1 as a PIL image."""
    array = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(array.numpy())


def from_pil(image: Image.Image) -> Tensor:
    """An RGB PIL image as a picture (3, H, W) in 0..1, as large as it is."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).float() / 255
