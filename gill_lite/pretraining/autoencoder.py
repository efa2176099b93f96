"""Pretraining stage `autoencoder`: a KL autoencoder, 64x64 pictures to 8x8 latents."""

import torch
from torch.nn.functional import l1_loss, mse_loss
from tqdm.auto import tqdm

from gill_lite.pretraining.loop import fit, read_tensors, write_tensors
from gill_lite.world.pictures import NUM_IMAGES, held_out, signed_pixels, training_images

CHANNELS, LATENT = (16, 32, 64, 128), 12
STEPS, POLISH_STEPS, BATCH = 1_500, 700, 16
POLISH_NOISE = 0.03  # of the latents' own spread, added to what the decoder is polished on
KL_WEIGHT = 1e-5


def build_model(seed: int = 0):
    """AutoencoderKL, factor 8, 12 latent channels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    n = len(CHANNELS)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT,
        norm_num_groups=8,
        sample_size=64,
    ).to(memory_format=torch.channels_last)


def train(work_dir, out_dir, seed: int = 0, device: str = "cpu"):
    """Train, measure and save the autoencoder with its scaling factor. Returns the measures."""
    pictures = training_images(work_dir)
    model = build_model(seed)

    def loss_fn(step, generator):
        index = torch.randint(NUM_IMAGES, (BATCH,), generator=generator).numpy()
        x = _pixels(pictures, index).to(model.device)
        posterior = model.encode(x).latent_dist
        y = model.decode(posterior.sample(generator)).sample
        return l1_loss(y, x) + mse_loss(y, x) + KL_WEIGHT * posterior.kl().mean()

    steps = fit(
        "autoencoder",
        model,
        loss_fn,
        work_dir,
        steps=STEPS,
        lr=2e-3,
        warmup=50,
        seed=seed,
        device=device,
        weight_decay=0.0,
        average=0.995,
        measure=lambda: measure(model, 64),
        measure_every=200,
    )
    latents = encode_all(model, pictures, work_dir / "latents.pt")
    model.register_to_config(scaling_factor=1.0 / latents.std().item())
    polish(model, pictures, latents, work_dir, seed, device)
    model.save_pretrained(out_dir)
    return {"steps": steps + POLISH_STEPS, **measure(model)}


def _pixels(pictures, index) -> torch.Tensor:
    return signed_pixels(pictures[index]).contiguous(memory_format=torch.channels_last)


def encode_all(model, pictures, path) -> torch.Tensor:
    """Mean latents of all training pictures, (N, 12, 8, 8), computed once and kept at `path`."""
    if path.exists():
        return read_tensors(path)
    with torch.no_grad():
        parts = [
            model.encode(signed_pixels(pictures[i : i + 64])).latent_dist.mean
            for i in tqdm(range(0, len(pictures), 64), desc="encoding pictures")
        ]
    latents = torch.cat(parts)
    write_tensors(path, latents)
    return latents


def polish(model, pictures, latents, work_dir, seed: int = 0, device: str = "cpu"):
    """Train the decoder alone a little longer, by squared error; the latents stay as they are."""
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    noise = POLISH_NOISE * latents.std()

    def loss_fn(step, generator):
        index = torch.randint(NUM_IMAGES, (BATCH,), generator=generator)
        z = latents[index]
        z = z + noise * torch.randn(z.shape, generator=generator)
        x = _pixels(pictures, index.numpy()).to(model.device)
        return mse_loss(model.decode(z.to(model.device)).sample, x)

    fit(
        "autoencoder-polish",
        model,
        loss_fn,
        work_dir,
        steps=POLISH_STEPS,
        lr=1e-3,
        warmup=50,
        seed=seed,
        device=device,
        weight_decay=0.0,
        average=0.99,
        measure=lambda: measure(model, 64),
        measure_every=200,
    )


def reconstruct(model, pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, 64, 64) in 0..1 through the autoencoder and back, in 0..1."""
    with torch.no_grad():
        parts = [
            model.decode(model.encode(x * 2 - 1).latent_dist.mean).sample
            for x in pictures.split(32)
        ]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def measure(model, count: int = 256) -> dict:
    """Held-out peak signal-to-noise ratio in dB, mean over pictures."""
    model.eval()
    _, pictures = held_out(count, key="autoencoder held out")
    error = (reconstruct(model, pictures) - pictures).square().mean((1, 2, 3))
    model.train()
    return {"psnr_db": round(float((-10 * error.log10()).mean()), 2)}
