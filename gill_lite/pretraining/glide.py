"""Pretraining stage `glide`: pixel diffusion and its text transformer, trained together.

The captions are those the denoiser's training sees, a share of them empty for guidance. GLIDE's
transformer starts from nothing. Ours cannot: after 6,000 steps it knew place and time, and of the
object nothing, for that covers few pixels, and little of the loss hangs on its words. So it starts
as a copy of the mini CLIP's text tower, of the same size and trained on the same captions, and is
then trained on as a part of the model.
"""

import torch
from torch.nn.functional import pixel_unshuffle

from gill_lite.pretraining import denoiser as stage_denoiser
from gill_lite.pretraining.clip import POSITIONS, WIDTH, build_tokenizer
from gill_lite.pretraining.loop import fit
from gill_lite.world.glide import PATCH, Glide
from gill_lite.world.pictures import hash_seed, signed_pixels, training_images

CHANNELS = (64, 96, 112)  # at 16x16, 8x8 and 4x4
STEPS, BATCH = 3_600, 48
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


def train(work_dir, clip_dir, out_dir, seed: int = 0, device: str = "cpu"):
    """Train transformer and UNet together and save them. Returns steps."""
    from transformers import CLIPTextModel

    glide, pictures = build(seed), training_images(work_dir)
    tower = CLIPTextModel.from_pretrained(clip_dir, dtype=torch.float32)
    glide.text_encoder.load_state_dict(tower.state_dict())
    glide.to(device)
    module = torch.nn.ModuleList([glide.text_encoder, glide.unet])
    steps = fit("glide", module, make_loss(glide, pictures), work_dir, steps=STEPS, lr=1e-3,
                warmup=200, seed=seed, average=0.9995, device=device)  # fmt: skip
    glide.save_pretrained(out_dir)
    return {"steps": steps}


def make_loss(glide, pictures):
    """Squared error of the clean picture, weighted as a velocity's would be, up to a cap."""
    alphas = glide.scheduler.alphas_cumprod

    def loss_fn(step, generator):
        index, texts = stage_denoiser.captioned(step, BATCH, generator)
        x = pixel_unshuffle(signed_pixels(pictures[index.numpy()]), PATCH)
        t = stage_denoiser.times(step, STEPS, BATCH, generator)
        a = alphas[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * x + (1 - a).sqrt() * torch.randn(x.shape, generator=generator)
        weight = (1 / (1 - a)).clamp(max=WEIGHT_CAP)  # SNR + 1
        x, t, noisy, weight = (tensor.to(glide.device) for tensor in (x, t, noisy, weight))
        seen = glide.denoise(noisy, t, glide.read(glide.token_ids(texts)))
        return (weight * (seen - x).square()).mean()

    return loss_fn


def generate(glide, texts, keys, **sampling) -> torch.Tensor:
    """One picture a text, (B, 3, 64, 64) in 0..1; noise depends on each key alone."""
    return glide.draw(texts, [hash_seed("sample", key) for key in keys], **sampling)


def measure(glide, probes, split: str = "seen", count: int = 200, **sampling) -> dict:
    """Attribute accuracy from full single captions, on the denoiser's own scenes and captions."""
    return stage_denoiser.measure(glide, probes, split, count, draw=generate, **sampling)
