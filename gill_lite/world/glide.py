"""A mini GLIDE: pixels diffused under a text transformer (Nichol et al., 2022).

The transformer begins as a copy of CLIP's. Its tokens feed the cross-attention; the last, the end
of the text, is added to the time embedding. 4x4 pixels go through the UNet as one position of 48
channels, which loses nothing, so one model draws 64x64 and no upsampler is needed.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from tqdm.auto import tqdm

from gill_lite.errors import GillError
from gill_lite.model.backbones import arguments_by_their_old_names

PIXELS, PATCH = 64, 4
STEPS, GUIDANCE = 12, 3.0  # of sampling, unless others are asked for


class Text(NamedTuple):
    """Texts as the text transformer reads them."""

    states: torch.Tensor  # (B, T, E), for the cross-attention
    pooled: torch.Tensor  # (B, E), the end token's
    mask: torch.Tensor  # (B, T), 0 on padding


class Glide(DiffusionPipeline):
    """Tokenizer, text transformer, UNet and sampler; saved and loaded as one folder."""

    def __init__(self, tokenizer, text_encoder, unet, scheduler):
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, unet=unet, scheduler=scheduler
        )

    def token_ids(self, texts: list[str], **options) -> torch.Tensor:
        """The texts as token ids (B, T), padded; cut to the transformer's 77 tokens."""
        options = {"padding": True, "truncation": True, "return_tensors": "pt", **options}
        return self.tokenizer(texts, **options).input_ids

    def read(self, token_ids) -> Text:
        """What the text transformer makes of token ids (B, T), from `token_ids`."""
        token_ids = token_ids.to(self.device)
        ends = (token_ids == self.tokenizer.eos_token_id).long()
        mask = (ends.cumsum(1) - ends == 0).long()  # (B, T); padding repeats the end token
        out = self.text_encoder(input_ids=token_ids, attention_mask=mask)
        return Text(out.last_hidden_state, out.pooler_output, mask)

    def denoise(self, noisy, timesteps, text: Text) -> torch.Tensor:
        """The clean pictures the model sees in `noisy`, both (B, 48, 16, 16) in -1..1.

        timesteps: (B,) or one number.
        """
        return self.unet(
            noisy,
            timesteps,
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.mask,
            class_labels=text.pooled,  # joins the time embedding
        ).sample

    @torch.no_grad()
    def draw(
        self, texts, seeds, num_inference_steps: int = STEPS, guidance_scale: float = GUIDANCE,
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
            ids = self.token_ids(texts[i : i + batch_size])
            generators = [torch.Generator().manual_seed(int(s)) for s in seeds[i : i + batch_size]]
            pictures.append(self.sample(ids, generators, num_inference_steps, guidance_scale))
        return torch.cat(pictures)

    @torch.no_grad()
    def sample(
        self, token_ids, generators, num_inference_steps: int = STEPS,
        guidance_scale: float = GUIDANCE,
    ) -> torch.Tensor:  # fmt: skip
        """Pictures (B, 3, 64, 64) in 0..1 of token ids (B, T), by DPM-Solver++.

        generators: one a picture, on the CPU, for its noise.
        """
        scheduler = DPMSolverMultistepScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(num_inference_steps, device=self.device)
        x = pixel_unshuffle(torch.cat([noise(g) for g in generators]), PATCH)
        x = x.to(self.device, self.unet.dtype)
        empty = self.token_ids(
            [""] * len(x), padding="max_length", max_length=token_ids.shape[1]
        )  # (B, T)
        both = self.read(torch.cat([empty, token_ids.cpu()]))
        for t in scheduler.timesteps:
            plain, told = self.denoise(torch.cat([x, x]), t, both).chunk(2)
            x = scheduler.step(plain + guidance_scale * (told - plain), t, x).prev_sample
        return pixel_shuffle(x, PATCH).float().cpu().clamp(-1, 1) / 2 + 0.5


def noise(generator: torch.Generator) -> torch.Tensor:
    """The noise of one picture, (1, 3, 64, 64)."""
    return torch.randn(1, 3, PIXELS, PIXELS, generator=generator)


def load_glide(directory, device="cpu", dtype=None) -> Glide:
    """The mini GLIDE saved in `directory`, frozen. Raises GillError where it cannot be read."""
    directory = Path(directory)
    if not (directory / "model_index.json").is_file():
        raise GillError(
            f"{directory} holds no GLIDE (no model_index.json); train it with "
            "`gill-lite pretrain glide`, or restore the folder from git"
        )
    try:
        with arguments_by_their_old_names():
            glide = Glide.from_pretrained(
                directory, torch_dtype=dtype or torch.float32, use_safetensors=True
            )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise GillError(
            f"the GLIDE in {directory} cannot be loaded ({reason}); restore it"
        ) from error
    for module in (glide.text_encoder, glide.unet):
        module.eval().requires_grad_(False)
    return glide.to(device)
