"""unCLIP (DALL-E 2): a prior draws CLIP's vector of the picture, a decoder the picture from it.

The prior, a PriorTransformer, reads the caption and takes the noise out of a vector in CLIP's
space. The decoder, a UNet, takes it out of latents; it is given that vector with the time, and no
word. So a picture's own vector can be decoded, too: its variations. Ramesh et al. 2022,
arXiv:2204.06125; theirs decodes 64x64 pixels and has two upsamplers, ours the latents of the mini
Stable Diffusion.

Axes: B pictures, N training pictures, P width of CLIP's space; latents are (B, C, h, w).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gill_lite.answering.drawing import Drawing
from gill_lite.evaluation.metrics import Judge
from gill_lite.family import DRAW
from gill_lite.family.drawing import joined
from gill_lite.family.system import Member, Stage
from gill_lite.model.losses import diffusion_loss
from gill_lite.model.vectors import of_length, picture_vectors, read_texts
from gill_lite.pretraining.denoiser import EMPTY, times
from gill_lite.training.data import world_pairs

HEADS, HEAD_WIDTH, LAYERS = 4, 32, 4  # of the prior
CHANNELS = (64, 128)  # of the decoder
PRIOR_SAMPLING, PRIOR_GUIDANCE = 16, 2.0  # steps of drawing a vector, and how the caption pulls


def build(backbones, seed: int = 0, root=None) -> "Unclip":
    """The system, untrained."""
    width = backbones.vision.config.projection_dim
    channels = backbones.pipeline.vae.config.latent_channels
    return Unclip(build_prior(width), build_decoder(channels, width), backbones)


def build_prior(width: int):
    """PriorTransformer that says the clean vector; `width` is P, and the text tower's."""
    from diffusers import PriorTransformer

    return PriorTransformer(
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        num_layers=LAYERS,
        embedding_dim=width,
        num_embeddings=77,
    )


def build_decoder(latent_channels: int, width: int, channels=CHANNELS):
    """UNet2DConditionModel without cross-attention: the vector joins the time embedding."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=channels,
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="projection",
        projection_class_embeddings_input_dim=width,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def vector_noise():
    """How noise mixes with vectors, and the steps that take it out again."""
    from diffusers import UnCLIPScheduler

    return UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0)


class Unclip(Member):
    """Prior and decoder over the backbones' CLIP and autoencoder."""

    task = DRAW
    stages = (
        Stage("prior", ("prior.",), share=0.28, average=0.999),
        Stage("decoder", ("decoder.",), share=0.72, average=0.9995),
    )

    def __init__(self, prior, decoder, backbones):
        super().__init__()
        self.prior, self.decoder, self.backbones = prior, decoder, backbones

    def clean(self, noisy: Tensor, timesteps, texts) -> Tensor:
        """The clean vectors (B, P), of mean 0 and spread 1, that the prior sees in noisy ones."""
        told = read_texts(self.backbones, texts)
        vectors, states, mask = (tensor.to(self.device) for tensor in told)
        return self.prior(noisy, timesteps, vectors, states, mask).predicted_image_embedding

    @torch.no_grad()
    def vectors(self, texts, generators, guidance_scale: float = PRIOR_GUIDANCE) -> Tensor:
        """Vectors (B, P) of pictures that would fit the texts, drawn by the prior."""
        scheduler, both = vector_noise(), [""] * len(texts) + list(texts)
        scheduler.set_timesteps(PRIOR_SAMPLING)
        shape = (1, self.prior.config.embedding_dim)
        x = torch.cat([torch.randn(shape, generator=g) for g in generators]).to(self.device)
        steps = scheduler.timesteps.tolist()
        for t, following in zip(steps, [*steps[1:], None]):
            plain, told = self.clean(torch.cat([x, x]), t, both).chunk(2)
            guided, noise = plain + guidance_scale * (told - plain), list(generators)
            x = scheduler.step(guided, t, x, following, generator=noise).prev_sample
        return of_length(self.prior.post_process_latents(x))

    @torch.no_grad()
    def decode(
        self, vectors: Tensor, generators, guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Pictures (B, 3, 64, 64) in 0..1 from vectors (B, P) of CLIP's space."""
        pipeline, profile = self.backbones.pipeline, self.backbones.profile
        scale = profile.guidance_scale if guidance_scale is None else guidance_scale
        scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(num_inference_steps or profile.num_inference_steps)
        size = self.decoder.config.sample_size
        shape = (1, self.decoder.config.in_channels, size, size)
        x = torch.cat([torch.randn(shape, generator=g) for g in generators]).to(self.device)
        both = torch.cat([torch.zeros_like(vectors), vectors]).to(self.device)
        for t in scheduler.timesteps:
            said = self.decoder(torch.cat([x, x]), t, None, class_labels=both).sample
            plain, told = said.chunk(2)
            x = scheduler.step(plain + scale * (told - plain), t, x).prev_sample
        return Drawing(self.backbones).decode(x)

    def draw(self, prompts, seeds, **sampling) -> Tensor:
        """One picture a prompt, (B, 3, 64, 64) in 0..1; it depends on its own words and seed."""
        texts = joined(prompts)
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        return self.decode(self.vectors(texts, generators), generators, **sampling)

    def variations(self, picture: Tensor, seeds, **sampling) -> Tensor:
        """Pictures (B, 3, 64, 64) of one and the same vector: what CLIP sees in `picture`."""
        vector = of_length(Judge(self.backbones, ()).features([picture]))  # (1, P)
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        return self.decode(vector.expand(len(generators), -1), generators, **sampling)

    # ---- training ----

    def begin(self, stage: Stage, work_dir) -> None:
        """Both learn from the vectors of all training pictures; the decoder from latents, too."""
        super().begin(stage, work_dir)
        pooled = world_pairs(self.backbones, work_dir)[1]
        self.seen = picture_vectors(self.backbones.vision, pooled).to(self.device)  # (N, P)
        if stage.name == "prior":
            self.prior.clip_mean.data[0], self.prior.clip_std.data[0] = (
                self.seen.mean(0), self.seen.std(0)
            )  # fmt: skip
            return
        latents = self.pairs.latents(self.backbones.pipeline.vae, work_dir)  # (N, C, h, w)
        self.latents = latents.to(self.device)

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """Squared error of clean vectors, then of velocities in latents.

        A share has no caption, or no vector: what guidance compares with.
        """
        index = self.pairs.draw(generator)
        told = torch.rand(len(index), generator=generator) >= EMPTY  # (B,)
        if self.stage.name == "decoder":
            return self.decoder_loss(index, told, step, generator)
        captions = zip(self.pairs.captions(index, step), told, strict=True)
        x = (self.seen[index] - self.prior.clip_mean.data) / self.prior.clip_std.data
        t = torch.randint(1000, (len(x),), generator=generator)
        a = vector_noise().alphas_cumprod[t][:, None].to(x)
        noisy = a.sqrt() * x + (1 - a).sqrt() * torch.randn(x.shape, generator=generator).to(x)
        texts = [caption if kept else "" for caption, kept in captions]
        return F.mse_loss(self.clean(noisy, t.to(x.device), texts), x)

    def decoder_loss(self, index, told: Tensor, step: int, generator) -> Tensor:
        """Of the velocity in latents, as the mini Stable Diffusion learned."""
        x, vectors = self.latents[index], self.seen[index] * told[:, None].to(self.device)
        t = times(step, self.steps(self.stage), len(x), generator).to(x.device)
        noise = torch.randn(x.shape, generator=generator).to(x)
        return diffusion_loss(
            lambda noisy, t: self.decoder(noisy, t, None, class_labels=vectors).sample,
            x, noise, t, self.backbones.pipeline.scheduler.alphas_cumprod,
        )  # fmt: skip
