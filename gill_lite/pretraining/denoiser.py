"""Pretraining stage `denoiser`: the UNet of a genuine StableDiffusionPipeline.

Its text encoder is the mini CLIP's, frozen, with 77 slots, as in Stable Diffusion 1.x.
"""

import torch

from gill_lite.model.losses import diffusion_loss
from gill_lite.pretraining.autoencoder import encode_all
from gill_lite.pretraining.loop import fit
from gill_lite.world import language
from gill_lite.world.pictures import (
    NUM_IMAGES,
    hash_seed,
    held_out,
    training_caption,
    training_images,
)
from gill_lite.world.scene import ATTRIBUTES, rng_for

CHANNELS = (96, 192)
STEPS, BATCH = 3_600, 96
EMPTY = 0.1  # share of captions replaced by "", for guidance


def build_unet(latent_channels: int, sample_size: int, text_width: int, seed: int = 0):
    """UNet2DConditionModel: convolutions at 8x8, cross-attention to the caption at 4x4."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def build_pipeline(clip_dir, autoencoder_dir, seed: int = 0):
    """StableDiffusionPipeline around an untrained UNet; text tower and autoencoder are trained."""
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline
    from transformers import AutoTokenizer, CLIPTextModel

    tokenizer = AutoTokenizer.from_pretrained(clip_dir)
    text_encoder = CLIPTextModel.from_pretrained(clip_dir, dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(autoencoder_dir)
    unet = build_unet(vae.config.latent_channels, 8, text_encoder.config.hidden_size, seed)
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def prompt_embeds(pipeline, texts: list[str]) -> torch.Tensor:
    """The text encoder's 77 slots for each text, (B, 77, E), as the pipeline computes them."""
    ids = pipeline.tokenizer(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        return pipeline.text_encoder(ids.to(pipeline.device)).last_hidden_state


def train(work_dir, clip_dir, autoencoder_dir, out_dir, seed: int = 0, device: str = "cpu"):
    """Train the denoiser and save the whole pipeline. Returns steps."""
    pipeline = build_pipeline(clip_dir, autoencoder_dir, seed)
    latents = encode_all(pipeline.vae, training_images(work_dir), work_dir / "latents.pt")
    latents = latents * pipeline.vae.config.scaling_factor
    loss_fn = make_loss(pipeline.to(device), latents)
    steps = fit(
        "denoiser", pipeline.unet, loss_fn, work_dir, steps=STEPS, lr=1e-3, warmup=200, seed=seed,
        average=0.9995, device=device,
    )  # fmt: skip
    pipeline.to("cpu").save_pretrained(out_dir)
    return {"steps": steps}


def make_loss(pipeline, latents):
    """Velocity prediction; a tenth of the captions empty."""
    alphas = pipeline.scheduler.alphas_cumprod

    def loss_fn(step, generator):
        index, texts = captioned(step, BATCH, generator)
        t = times(step, STEPS, BATCH, generator)
        noise = torch.randn(BATCH, *latents.shape[1:], generator=generator)
        x, t, noise = (tensor.to(pipeline.device) for tensor in (latents[index], t, noise))
        read = prompt_embeds(pipeline, texts)
        return diffusion_loss(
            lambda noisy, t: pipeline.unet(noisy, t, read).sample, x, noise, t, alphas
        )

    return loss_fn


def captioned(step: int, size: int, generator) -> tuple[torch.Tensor, list[str]]:
    """Numbers of random training pictures (B,) and their captions, a share of them empty."""
    index = torch.randint(NUM_IMAGES, (size,), generator=generator)
    empty = torch.rand(size, generator=generator) < EMPTY
    return index, ["" if e else training_caption(i, step) for i, e in zip(index.tolist(), empty)]


def times(step: int, steps: int, size: int, generator) -> torch.Tensor:
    """Diffusion times (B,): uniform, from half of the steps on linearly denser towards noise.

    There it is decided what the caption says of shape and colour.
    """
    t = torch.rand(size, generator=generator)
    return (1000 * (t if step < steps // 2 else t.sqrt())).long()


def generate(pipeline, texts, keys, num_inference_steps: int = 12, guidance_scale: float = 3.0):
    """One picture a text, (B, 3, 64, 64) in 0..1; noise depends on each key alone."""
    pictures = []
    for start in range(0, len(texts), 16):
        generators = [
            torch.Generator().manual_seed(hash_seed("sample", k)) for k in keys[start : start + 16]
        ]
        pictures.append(
            pipeline(
                prompt_embeds=prompt_embeds(pipeline, texts[start : start + 16]),
                negative_prompt_embeds=prompt_embeds(pipeline, [""] * len(generators)),
                generator=generators,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                output_type="pt",
            ).images
        )
    return torch.cat(pictures)


def measure(
    pipeline, probes, split: str = "seen", count: int = 200, draw=generate, **sampling
) -> dict:
    """Attribute accuracy of pictures made from full single captions of held-out scenes."""
    scenes, _ = held_out(count, split, key="denoiser held out")
    texts = [
        language.sentence(s.as_dict(), rng_for("denoiser caption", split, i))
        for i, s in enumerate(scenes)
    ]
    pictures = draw(pipeline, texts, [(split, i) for i in range(count)], **sampling)
    labels = torch.tensor([scene.labels() for scene in scenes])
    with torch.no_grad():
        logits = probes(pictures)
    right = {
        name: float((logits[name].argmax(1) == labels[:, i]).float().mean())
        for i, name in enumerate(ATTRIBUTES)
    }
    right["mean"] = sum(right.values()) / len(right)
    return {f"{split}_{name}": round(value, 4) for name, value in right.items()}
