"""Pretraining stage `glide`: pixel diffusion and its text transformer, trained together.

The captions are those the denoiser's training sees, a share of them empty for guidance. The
transformer has the size of the mini CLIP's text tower, and nothing to start from.
"""

import torch
from torch.nn.functional import pixel_unshuffle

from gill_lite.glide import PATCH, Glide
from gill_lite.world import stage_denoiser
from gill_lite.world.stage_clip import POSITIONS, WIDTH, build_tokenizer
from gill_lite.world.training import (
    NUM_IMAGES,
    fit,
    hash_seed,
    to_pixels,
    training_caption,
    training_images,
)

CHANNELS = (64, 96, 112)  # at 16x16, 8x8 and 4x4
SCHEDULE, UNTIL = 9_000, 9_000
BATCH = 32
EMPTY = 0.1  # share of captions replaced by "", for guidance
WEIGHT_CAP = 10.0
NOISY_FROM = 864  # then half of the times are the noisiest 150, where only the text can tell


def build_text_encoder(tokenizer):
    """CLIPTextModel of 4 layers and 77 positions from a random start."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            projection_dim=WIDTH,
            max_position_embeddings=POSITIONS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(channels=CHANNELS):
    """UNet2DConditionModel over 16x16 patches, cross-attention to the text from 8x8 down."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=WIDTH,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )


def build(seed: int = 0, channels=CHANNELS) -> Glide:
    """An untrained mini GLIDE that predicts the clean picture.

    The last of its 1,000 times is noise alone: less would show how light a picture is.
    """
    from diffusers import DPMSolverMultistepScheduler

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="sample",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        thresholding=True,  # clean pictures are kept in -1..1
        sample_max_value=1.0,
    )
    return Glide(tokenizer, build_text_encoder(tokenizer), build_unet(channels), scheduler)


def train(work_dir, out_dir, seed: int = 0, steps: int = SCHEDULE, until: int = UNTIL):
    """Train both parts together and save them. Returns steps."""
    glide = build(seed)
    steps = fit(
        "glide",
        torch.nn.ModuleList([glide.text_encoder, glide.unet]),
        make_loss(glide, training_images(work_dir)),
        work_dir,
        steps=steps,
        until=until,
        lr=1e-3,
        warmup=300,
        seed=seed,
        average=0.9995,
    )
    glide.save_pretrained(out_dir)
    return {"steps": steps}


def make_loss(glide, pictures):
    """Squared error of the clean picture, weighted as a velocity's would be, up to a cap."""
    alphas = glide.scheduler.alphas_cumprod

    def loss_fn(step, generator):
        index = torch.randint(NUM_IMAGES, (BATCH,), generator=generator)
        empty = torch.rand(BATCH, generator=generator) < EMPTY
        texts = ["" if e else training_caption(i, step) for i, e in zip(index.tolist(), empty)]
        x = pixel_unshuffle(to_pixels(pictures[index.numpy()]), PATCH)
        t = _times(step, generator)
        a = alphas[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * x + (1 - a).sqrt() * torch.randn(x.shape, generator=generator)
        weight = (1 / (1 - a)).clamp(max=WEIGHT_CAP)  # SNR + 1
        return (weight * (glide.denoise(noisy, t, texts) - x).square()).mean()

    return loss_fn


def _times(step: int, generator) -> torch.Tensor:
    """Diffusion times of a batch (B,), uniform at first.

    64x64 pixels show place, colour and position through much noise: with uniform times the
    text was needed so seldom that after 850 steps it was heard for the time of day alone.
    """
    t = torch.randint(1000, (BATCH,), generator=generator)
    noisy = torch.randint(850, 1000, (BATCH,), generator=generator)
    half = (torch.rand(BATCH, generator=generator) < 0.5) & (step >= NOISY_FROM)
    return torch.where(half, noisy, t)


def generate(glide, texts, keys, **sampling) -> torch.Tensor:
    """One picture a text, (B, 3, 64, 64) in 0..1; noise depends on each key alone."""
    return glide.draw(texts, [hash_seed("sample", key) for key in keys], **sampling)


def measure(glide, probes, split: str = "seen", count: int = 200, **sampling) -> dict:
    """Attribute accuracy from full single captions, on the denoiser's own scenes and captions."""
    return stage_denoiser.measure(glide, probes, split, count, draw=generate, **sampling)
