"""The models a table compares, each as a `Drawer`: conditions in, pictures out.

A drawer splits drawing, so that its dear part can be kept (`cache`) and what waits for the disk
be done before: what it reads, what the sampler is given, what it makes of it, and the picture.
Stable Diffusion and GILL share the sampler and differ in their conditions alone.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from gill_lite.answering.respond import Responder
from gill_lite.errors import GillError
from gill_lite.evaluation.cache import key_of, tensor_bytes
from gill_lite.files import shipped
from gill_lite.model.backbones import Backbones, load_backbones, with_lm
from gill_lite.model.checkpoint import WEIGHTS, joints_folder, joints_for
from gill_lite.profiles import Profile
from gill_lite.training import recipes


class Drawer:
    """Draws through the diffusion pipeline of `responder`; subclasses say from what."""

    def __init__(self, responder: Responder):
        self.responder = responder

    def read(self, task, examples: Sequence, context) -> list:
        """What the model is told of the examples: their texts, unless a subclass says otherwise.

        GillError for a context with images.
        """
        return [task.text(example, context) for example in examples]

    def encode(self, prompts: list) -> Tensor:
        """What the sampler is given for what was read, (B, L, E)."""
        raise NotImplementedError

    def conditions(self, task, examples: Sequence, context) -> Tensor:
        """What the sampler is given for the examples, (B, L, E)."""
        return self.encode(self.read(task, examples, context))

    def sample(self, conditions: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """What the sampler makes of it: latents (B, C, h, w)."""
        return self.responder.drawing.denoise(conditions, generators)

    def decode(self, samples: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in 0..1, float32 on the CPU."""
        return self.responder.drawing.decode(samples)

    def keys(self, conditions: Tensor, generators: Sequence[torch.Generator]) -> list[str]:
        """The cache's key of each sample: all that `sample` reads."""
        return [
            key_of(sampler=self.fingerprint, condition=condition, noise=generator.get_state())
            for condition, generator in zip(conditions, generators, strict=True)
        ]

    def pictures(
        self, conditions: Tensor, generators: Sequence[torch.Generator], cache=None
    ) -> Tensor:
        """Pictures (B, 3, H, W) in 0..1, through a SampleCache where one is given.

        A batch is read from the cache whole or drawn whole, so that a run which was cut off
        ends with the same bits as one that was not.
        """
        if cache is None:
            return self.decode(self.sample(conditions, generators))
        keys = self.keys(conditions, generators)  # before sampling moves the generators on
        kept = [cache.get(key) for key in keys]
        if any(sample is None for sample in kept):
            fresh = self.sample(conditions, generators)
            for key, old, new in zip(keys, kept, fresh, strict=True):
                if old is None:
                    cache.put(key, new)
            kept = list(fresh)
        return self.decode(torch.stack(kept))

    def noise(self, generator: torch.Generator) -> Tensor:
        """The noise that `sample` draws from `generator` for one picture, (1, C, h, w)."""
        unet = self.responder.backbones.pipeline.unet
        shape = (1, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        return torch.randn(shape, generator=generator, dtype=unet.dtype)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the denoiser's weights, the sampler's settings and its libraries."""
        pipeline, profile = self.responder.backbones.pipeline, self.responder.profile
        return key_of(
            weights=weights_sha256(pipeline.unet),
            dtype=str(pipeline.unet.dtype),
            unet=dict(pipeline.unet.config),
            scheduler=dict(pipeline.scheduler.config),
            steps=profile.num_inference_steps,
            guidance=profile.guidance_scale,
            no_prompt=self.responder.drawing.no_prompt,
            libraries=[version("torch"), version("diffusers")],
        )


class StableDiffusion(Drawer):
    """The text of an example through Stable Diffusion's own text encoder."""

    def encode(self, prompts) -> Tensor:
        """Prompt embeddings (B, L, E) of the texts."""
        return self.responder.drawing.text_embeds(prompts)


class GillDrawer(Drawer):
    """The interleaved prompt of an example through GILL: forced [IMG] states, mapped."""

    def read(self, task, examples, context) -> list:
        """Prompts of texts and pictures."""
        size = self.responder.profile.image_size
        return [task.prompt(example, context, size) for example in examples]

    @torch.no_grad()
    def encode(self, prompts) -> Tensor:
        """Prompt embeddings (B, L, E) that the mapper makes of the [IMG] states."""
        return self.responder.gill.prompt_embeds(self.responder.prompts.img_states(prompts))


class GlideDrawer(Drawer):
    """The text of an example through the mini world's GLIDE."""

    @cached_property
    def glide(self):
        """The model itself, from data/mini/glide."""
        from gill_lite.world.glide import load_glide

        return load_glide(shipped("mini/glide"), self.responder.backbones.pipeline.device)

    @property
    def steps(self) -> int:
        """Of the sampler."""
        return self.responder.profile.num_inference_steps

    def encode(self, prompts) -> Tensor:
        """Token ids (B, 77) of the texts; what is longer is cut, as Stable Diffusion does."""
        return self.glide.token_ids(prompts, padding="max_length")

    def sample(self, conditions, generators) -> Tensor:
        """Pictures (B, 3, 64, 64): there is no latent. As many steps as the others take."""
        return self.glide.sample(conditions, generators, self.steps)

    def decode(self, samples) -> Tensor:
        """The pictures as they are."""
        return samples

    def noise(self, generator) -> Tensor:
        """The noise of one picture, (1, 3, 64, 64)."""
        from gill_lite.world.glide import noise

        return noise(generator)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the weights, the sampler's settings and its libraries."""
        from gill_lite.world.glide import GUIDANCE

        return key_of(
            unet=weights_sha256(self.glide.unet),
            text_encoder=weights_sha256(self.glide.text_encoder),
            scheduler=dict(self.glide.scheduler.config),
            sampling=[self.steps, GUIDANCE],
            libraries=[version("torch"), version("diffusers")],
        )


Models = dict[tuple[str, int], Drawer]  # by (method, seed); a baseline has seed 0
# CLIP draws nothing: it retrieves, and what a Drawer gives it is the backbones.
BASELINES: dict[str, Callable] = {"sd": StableDiffusion, "glide": GlideDrawer, "clip": Drawer}


def load_models(
    profile: Profile, joints: dict[tuple[str, int], Path], baselines: Sequence[str] = ("sd",),
    device="cpu", dtype=None, backbones: dict | None = None,
) -> Models:  # fmt: skip
    """The baselines, and the learned methods with the joints of each seed, on one set of backbones.

    joints: of each (method, seed), see `joints_folders`. backbones: "lm", "vision" or "diffusion"
    -> a hub id or folder to take instead of the profile's. A method whose recipe names a language
    model of its own stands on that.
    """
    frozen = load_backbones(profile, device=device, dtype=dtype, **(backbones or {}))
    size = frozen.vision.config.vision_config.image_size
    frozen.profile = frozen.profile.replace(image_size=size)
    standing: dict[Path | None, Backbones] = {None: frozen}
    responders = {}
    for (method, seed), folder in joints.items():
        lm = recipes.RECIPES[method].lm_folder if method in recipes.RECIPES else None
        if lm is not None and lm not in standing:
            standing[lm] = with_lm(frozen, lm)
        responders[method, seed] = Responder(standing[lm], joints_for(standing[lm], folder))
    own = min(responders.values(), key=lambda one: one.backbones is not frozen)
    drawers: Models = {(name, 0): BASELINES[name](own) for name in baselines}
    return drawers | {cell: GillDrawer(responder) for cell, responder in responders.items()}


def joints_folders(
    profile: Profile, seeds: Sequence[int], joints: Sequence = (),
    learned: Sequence[str] = ("gill",), joints_root: Path | None = None,
) -> dict[tuple[str, int], Path]:  # fmt: skip
    """The folder of the joints of each (method, seed): by default the shipped <method>-<seed>.

    joints: folders of `gill-lite train` or `gill-lite convert`, a seed each, method by method.
    joints_root: where <method>-<seed> lie instead of data/mini/joints. Raises GillError where one
    is missing.
    """
    if not seeds:
        raise GillError("name at least one seed of the joints")
    if not joints and profile.name != "mini":
        raise GillError(
            f"no joints are shipped for profile '{profile.name}': name a folder of "
            "`gill-lite train` or `gill-lite convert` with --joints"
        )
    cells = [
        (method, seed)
        for method in learned
        for seed in (seeds if joints else recipes.seeds_of(method, seeds))
    ]
    if joints and len(joints) != len(cells):
        names = ", ".join(f"{method}-{seed}" for method, seed in cells)
        raise GillError(
            f"{len(joints)} folders of joints are given, and {len(cells)} are needed ({names}); "
            "--seeds and --methods ask for fewer"
        )
    folders = [Path(f) for f in joints]
    folders = folders or [joints_folder(method, s, joints_root) for method, s in cells]
    for (method, seed), folder in zip(cells, folders, strict=True):
        if not (folder / WEIGHTS).is_file():
            kind = f"the shipped joints '{method}' of seed {seed}"
            mend = f"use seeds of {recipes.there(method)}"
            if joints:
                kind, mend = "--joints", "name folders of `gill-lite train` or `gill-lite convert`"
            raise GillError(f"{kind}: {folder} holds no joints.safetensors; {mend}")
    return dict(zip(cells, folders, strict=True))


def weights_sha256(module: torch.nn.Module) -> str:
    """Hex digest of all weights of a module, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode() + tensor_bytes(value))
    return digest.hexdigest()
