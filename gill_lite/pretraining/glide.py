"""Pretraining stage `glide`: pixel diffusion and its text transformer, trained together.

The captions are those the denoiser's training sees, a share of them empty for guidance. At first
the transformer has nothing to start from, as in GLIDE. After 6,000 steps it knew place and time,
and of the object nothing: that covers few pixels, and little of the loss hangs on its words. So
the second part begins the transformer anew, from the mini CLIP's text tower, of the same size and
trained on the same captions; both parts are then trained on together.
"""

import torch
from torch.nn.functional import pixel_unshuffle

from gill_lite.pretraining import denoiser as stage_denoiser
from gill_lite.pretraining.clip import POSITIONS, WIDTH, build_tokenizer
from gill_lite.pretraining.loop import fit
from gill_lite.world.glide import PATCH, Glide
from gill_lite.world.pictures import (
    NUM_IMAGES,
    hash_seed,
    signed_pixels,
    training_caption,
    training_images,
)

CHANNELS = (64, 96, 112)  # at 16x16, 8x8 and 4x4
STEPS = 6_000  # of the first part, in which the transformer starts from nothing
SCHEDULE, UNTIL = 3_000, 3_000  # of the second part
BATCH = 32
EMPTY = 0.1  # share of captions replaced by "", for guidance
WEIGHT_CAP = 10.0
SHIFT = 1 / 16  # of the signal-to-noise ratio, against Stable Diffusion's schedule


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
        resnet_time_scale_shift="scale_shift",
        class_embed_type="projection",
        projection_class_embeddings_input_dim=WIDTH,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )


def shifted_betas(shift: float = SHIFT, steps: int = 1000) -> list[float]:
    """Stable Diffusion's schedule with its signal-to-noise ratio scaled by `shift`.

    64x64 pixels show place, colour and position through noise that would hide them in 8x8
    latents, for many pixels carry the same (Hoogeboom et al. 2023, "simple diffusion"). Under
    the plain schedule the text was needed so seldom that after 950 steps the time of day alone
    was heard from it.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, steps, dtype=torch.float64).square()
    a = (1 - betas).cumprod(0)
    a = shift * a / (1 - a + shift * a)
    return (1 - a / torch.cat([torch.ones(1, dtype=a.dtype), a[:-1]])).tolist()


def build(seed: int = 0, channels=CHANNELS) -> Glide:
    """An untrained mini GLIDE that predicts the clean picture.

    The last of its 1,000 times is noise alone: less would show how light a picture is.
    """
    from diffusers import DPMSolverMultistepScheduler

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    scheduler = DPMSolverMultistepScheduler(
        trained_betas=shifted_betas(),
        prediction_type="sample",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        thresholding=True,  # clean pictures are kept in -1..1
        sample_max_value=1.0,
    )
    return Glide(tokenizer, build_text_encoder(tokenizer), build_unet(channels), scheduler)


def train(work_dir, clip_dir, out_dir, seed: int = 0):
    """Train transformer and UNet together, in two parts, and save them. Returns steps."""
    from transformers import CLIPTextModel

    glide, pictures = build(seed), training_images(work_dir)
    module = torch.nn.ModuleList([glide.text_encoder, glide.unet])
    shared = {"seed": seed, "average": 0.9995, "lr": 1e-3}
    first = fit("glide", module, make_loss(glide, pictures), work_dir, steps=STEPS,
                warmup=300, **shared)  # fmt: skip
    tower = CLIPTextModel.from_pretrained(clip_dir)
    glide.text_encoder.load_state_dict(tower.state_dict())
    module.train()
    second = fit("glide-2", module, make_loss(glide, pictures, noisier=True), work_dir,
                 steps=SCHEDULE, until=UNTIL, warmup=100, **shared)  # fmt: skip
    glide.save_pretrained(out_dir)
    return {"steps": first + second}


def make_loss(glide, pictures, noisier: bool = False):
    """Squared error of the clean picture, weighted as a velocity's would be, up to a cap.

    noisier: times are linearly denser towards noise, as for the denoiser.
    """
    alphas = glide.scheduler.alphas_cumprod

    def loss_fn(step, generator):
        index = torch.randint(NUM_IMAGES, (BATCH,), generator=generator)
        empty = torch.rand(BATCH, generator=generator) < EMPTY
        texts = ["" if e else training_caption(i, step) for i, e in zip(index.tolist(), empty)]
        x = pixel_unshuffle(signed_pixels(pictures[index.numpy()]), PATCH)
        t = torch.rand(BATCH, generator=generator)
        t = (1000 * (t.sqrt() if noisier else t)).long()
        a = alphas[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * x + (1 - a).sqrt() * torch.randn(x.shape, generator=generator)
        weight = (1 / (1 - a)).clamp(max=WEIGHT_CAP)  # SNR + 1
        seen = glide.denoise(noisy, t, glide.read(glide.token_ids(texts)))
        return (weight * (seen - x).square()).mean()

    return loss_fn


def generate(glide, texts, keys, **sampling) -> torch.Tensor:
    """One picture a text, (B, 3, 64, 64) in 0..1; noise depends on each key alone."""
    return glide.draw(texts, [hash_seed("sample", key) for key in keys], **sampling)


def measure(glide, probes, split: str = "seen", count: int = 200, **sampling) -> dict:
    """Attribute accuracy from full single captions, on the denoiser's own scenes and captions."""
    return stage_denoiser.measure(glide, probes, split, count, draw=generate, **sampling)
