"""A mini GLIDE: pixels diffused under a text transformer of its own (Nichol et al., 2022).

The transformer's tokens feed the cross-attention; its last token, the end of the text, is
added to the time embedding. 4x4 pixels go through the UNet as one position of 48 channels,
which loses nothing, so one model draws 64x64 and no upsampler is needed.
"""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from tqdm.auto import tqdm

from gill_lite.errors import GillError

PIXELS, PATCH = 64, 4


class Glide(DiffusionPipeline):
    """Tokenizer, text transformer, UNet and sampler; saved and loaded as one folder."""

    def __init__(self, tokenizer, text_encoder, unet, scheduler):
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, unet=unet, scheduler=scheduler
        )

    def denoise(self, noisy, timesteps, texts: list[str]) -> torch.Tensor:
        """The clean pictures the model sees in `noisy`, both (B, 48, 16, 16) in -1..1.

        timesteps: (B,) or one number. Texts longer than the transformer's 77 tokens are cut.
        """
        batch = self.tokenizer(
            texts, padding=True, truncation=True, return_tensors="pt", return_token_type_ids=False
        ).to(noisy.device)
        text = self.text_encoder(**batch)
        return self.unet(
            noisy,
            timesteps,
            encoder_hidden_states=text.last_hidden_state,  # (B, T, E)
            encoder_attention_mask=batch.attention_mask,
            class_labels=text.pooler_output,  # (B, E), joins the time embedding
        ).sample

    @torch.no_grad()
    def draw(
        self, texts, seeds, num_inference_steps: int = 12, guidance_scale: float = 3.0,
        batch_size: int = 16, progress: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """One picture a text, (B, 3, 64, 64) in 0..1, with classifier-free guidance.

        A picture depends on its own text and seed, not on its neighbours in the batch.
        Raises GillError where texts and seeds differ in number.
        """
        texts, seeds = list(texts), list(seeds)
        if len(texts) != len(seeds):
            raise GillError(f"one seed a text is needed, got {len(texts)} and {len(seeds)}")
        starts = range(0, len(texts), batch_size)
        pictures = [torch.empty(0, 3, PIXELS, PIXELS)]
        for i in tqdm(starts, desc="glide", disable=not progress):
            noise = torch.stack([_noise(seed) for seed in seeds[i : i + batch_size]])
            x = self._sample(
                texts[i : i + batch_size],
                noise.to(self.device),
                num_inference_steps,
                guidance_scale,
            )
            pictures.append(pixel_shuffle(x, PATCH).float().cpu().clamp(-1, 1) / 2 + 0.5)
        return torch.cat(pictures)

    def _sample(self, texts, noise, num_inference_steps, guidance_scale) -> torch.Tensor:
        """Pictures (B, 48, 16, 16) from noise of that shape by DPM-Solver++."""
        scheduler = DPMSolverMultistepScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(num_inference_steps, device=noise.device)
        x = noise.to(self.unet.dtype)
        both = [""] * len(texts) + texts
        for t in scheduler.timesteps:
            plain, told = self.denoise(torch.cat([x, x]), t, both).chunk(2)
            x = scheduler.step(plain + guidance_scale * (told - plain), t, x).prev_sample
        return x


def _noise(seed: int) -> torch.Tensor:
    """Noise of one picture, (48, 16, 16), that depends on its seed alone."""
    noise = torch.randn(3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(int(seed)))
    return pixel_unshuffle(noise, PATCH)


def load_glide(directory, device="cpu", dtype=None) -> Glide:
    """The mini GLIDE saved in `directory`, frozen. Raises GillError where it cannot be read."""
    directory = Path(directory)
    if not (directory / "model_index.json").is_file():
        raise GillError(
            f"{directory} holds no GLIDE (no model_index.json); restore it with `git checkout` or "
            "train it with `gill-lite pretrain glide`"
        )
    try:
        glide = Glide.from_pretrained(
            directory, torch_dtype=dtype or torch.float32, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise GillError(f"the GLIDE in {directory} cannot be loaded: {reason}") from error
    for module in (glide.text_encoder, glide.unet):
        module.eval().requires_grad_(False)
    return glide.to(device)
