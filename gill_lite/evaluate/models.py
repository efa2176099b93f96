"""The models a table compares, each as a `Drawer`: conditions in, pictures out.

A drawer splits drawing in three, so that the dear middle can be kept (`cache`): what the
sampler is given, what it makes of it, and the picture. Stable Diffusion and GILL share the
sampler and differ in their conditions alone.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from gill_lite.errors import GillError
from gill_lite.evaluate.cache import key_of, tensor_bytes
from gill_lite.respond import Responder, joints_dir


class Drawer:
    """Draws through the diffusion pipeline of `responder`; subclasses say from what."""

    def __init__(self, responder: Responder):
        self.responder = responder

    def conditions(self, task, examples: Sequence, context) -> Tensor:
        """What the sampler is given for the examples, (B, L, E)."""
        raise NotImplementedError

    def sample(self, conditions: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """What the sampler makes of it: latents (B, C, h, w)."""
        return self.responder.denoise(conditions, generators)

    def decode(self, samples: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in 0..1, float32 on the CPU."""
        return self.responder.decode(samples)

    def keys(self, conditions: Tensor, generators: Sequence[torch.Generator]) -> list[str]:
        """The cache's key of each sample: all that `sample` reads."""
        return [
            key_of(sampler=self.fingerprint, condition=condition, noise=generator.get_state())
            for condition, generator in zip(conditions, generators, strict=True)
        ]

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
            no_prompt=self.responder.no_prompt,
            libraries=[version("torch"), version("diffusers")],
        )


class StableDiffusion(Drawer):
    """The text of an example through Stable Diffusion's own text encoder."""

    def conditions(self, task, examples, context) -> Tensor:
        """Prompt embeddings (B, L, E) of the texts. GillError for a context with images."""
        return self.responder.text_embeds([task.text(example, context) for example in examples])


class GillDrawer(Drawer):
    """The interleaved prompt of an example through GILL: forced [IMG] states, mapped."""

    @torch.no_grad()
    def conditions(self, task, examples, context) -> Tensor:
        """Prompt embeddings (B, L, E) that the mapper makes of the [IMG] states."""
        size = self.responder.profile.image_size
        prompts = [task.prompt(example, context, size) for example in examples]
        return self.responder.gill.prompt_embeds(self.responder.img_states(prompts))


Models = dict[tuple[str, int], Drawer]  # by (method, seed); a baseline has seed 0
BASELINES: dict[str, Callable] = {"sd": StableDiffusion}  # method -> responder -> Drawer


def load_models(
    profile, seeds: Sequence[int] = (0, 1, 2), joints: Sequence = (), device="cpu", dtype=None,
    backbones: dict | None = None, baselines: Sequence[str] = ("sd",),
    learned: Sequence[str] = ("gill",),
) -> Models:  # fmt: skip
    """The baselines, and the learned methods with the joints of each seed, on one set of backbones.

    profile: a name or a Profile. joints, learned: see `joints_folders`. backbones: "lm", "vision"
    or "diffusion" -> a hub id or folder to take instead of the profile's. Raises GillError where
    joints are missing.
    """
    from gill_lite.backbones import load_backbones
    from gill_lite.checkpoint import load_joints
    from gill_lite.profiles import get_profile

    profile = get_profile(profile) if isinstance(profile, str) else profile
    folders = joints_folders(profile, seeds, joints, learned)
    frozen = load_backbones(profile, device=device, dtype=dtype, **(backbones or {}))
    size = frozen.vision.config.vision_config.image_size
    frozen.profile = frozen.profile.replace(image_size=size)
    responders = {
        cell: Responder(frozen, load_joints(folder, frozen.lm, frozen.vision))
        for cell, folder in folders.items()
    }
    first = next(iter(responders.values()))
    drawers: Models = {(name, 0): BASELINES[name](first) for name in baselines}
    return drawers | {cell: GillDrawer(responder) for cell, responder in responders.items()}


def joints_folders(
    profile, seeds: Sequence[int], joints: Sequence = (), learned: Sequence[str] = ("gill",)
) -> dict[tuple[str, int], Path]:
    """The folder of the joints of each (method, seed): by default the shipped <method>-<seed>.

    joints: folders of `gill-lite train` or `gill-lite convert`, one a seed, for a single method.
    Raises GillError where one is missing.
    """
    if not seeds:
        raise GillError("name at least one seed of the joints")
    if not joints and profile.name != "mini":
        raise GillError(
            f"no joints are shipped for profile '{profile.name}': name a folder of "
            "`gill-lite train` or `gill-lite convert` with --joints"
        )
    cells = list(itertools.product(learned, seeds))
    if joints and len(joints) != len(cells):
        raise GillError(f"{len(joints)} folders of joints are given for {len(cells)} seeds")
    folders = [Path(f) for f in joints] or [joints_dir(profile, s, method) for method, s in cells]
    for (method, seed), folder in zip(cells, folders, strict=True):
        if not (folder / "joints.safetensors").is_file():
            kind = "--joints" if joints else f"the shipped joints '{method}' of seed {seed}"
            raise GillError(
                f"{kind}: {folder} holds no joints.safetensors; name a folder of "
                "`gill-lite train` or `gill-lite convert`, or seeds of 0, 1, 2"
            )
    return dict(zip(cells, folders, strict=True))


def weights_sha256(module: torch.nn.Module) -> str:
    """Hex digest of all weights of a module, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode() + tensor_bytes(value))
    return digest.hexdigest()
