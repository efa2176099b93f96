"""GILL's mapper and [IMG] rows learned anew, each time from another teacher.

`text` is GILL's own, without the losses beside it: the distance to what the text encoder makes of
the caption, and no picture is looked at. `diffusion` sends the slope of the denoiser's error on the
true picture through the frozen denoiser into the slots, as MetaQuery does (Pan et al. 2025,
arXiv:2504.06256). `both` adds the two, as MiniGPT-5 does (Zheng et al. 2023, arXiv:2310.02239).
`picture` is the distance to CLIP's vector of the true picture, from one slot; unCLIP's decoder
draws it. All else is as in the shipped joints of the same seed: language model, visual tokens, the
shape of the mapper.

Axes: B pairs, N training pictures, L slots, E their width, P width of CLIP's space; E = P.
"""

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from gill_lite.family import TEACH
from gill_lite.family.drawing import drawn, examples, judge_of
from gill_lite.family.painters import GillPainter
from gill_lite.family.system import Member, Stage, load
from gill_lite.model import tokens
from gill_lite.model.checkpoint import joints_folder, joints_for
from gill_lite.model.gill import Gill
from gill_lite.model.losses import diffusion_loss, generation_loss
from gill_lite.model.vectors import of_length, picture_vectors
from gill_lite.pretraining.denoiser import times
from gill_lite.training.data import world_pairs
from gill_lite.training.train import prompt_targets

TEACHERS = {  # name -> the parts of its loss, and their weights
    "text": {"text": 1.0},
    "diffusion": {"diffusion": 10.0},
    "both": {"text": 1.0, "diffusion": 10.0},  # so that the two are about as large
    "picture": {"picture": 1.0},
}
WATCHED = 24  # pictures, now and then, while it learns
LEARNS = ("mapper.", "img_embeddings")


class Taught(GillPainter, Member):
    """A Gill whose mapper has the teacher `teacher`."""

    task = TEACH
    stages = (Stage("mapper", tuple(f"gill.{name}" for name in LEARNS)),)

    def __init__(self, backbones, gill: Gill, teacher: str):
        super().__init__()
        self.backbones, self.gill = backbones, gill
        self.teacher, self.parts = teacher, TEACHERS[teacher]

    # ---- training ----

    def begin(self, stage: Stage, work_dir) -> None:
        """Pictures as CLIP sees them, and as the autoencoder does where the denoiser teaches."""
        super().begin(stage, work_dir)
        if self.teacher == "picture":
            _ = self.decoder  # it is to be watched: tell at once where there is none
        clip, vae = self.backbones.vision, self.backbones.pipeline.vae
        self.seen = picture_vectors(clip, world_pairs(self.backbones, work_dir)[1])  # (N, P)
        if "diffusion" in self.parts:
            self.latents = self.pairs.latents(vae, work_dir)  # (N, C, h, w)

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """The teacher's loss of the slots that the mapper makes of captions."""
        self.gill.rescale_img_embeddings()  # GILL's own training does so behind each step
        index = self.pairs.draw(generator)
        texts = self.pairs.captions(index, step)
        slots = self.gill.prompt_embeds(self.gill.img_pass(self.rows(texts)).hidden)  # (B, L, E)
        pipeline = self.backbones.pipeline
        losses = {
            "text": lambda: generation_loss(slots, prompt_targets(pipeline, texts).to(slots)),
            "picture": lambda: generation_loss(slots, self.seen[index][:, None].to(slots)),
            "diffusion": lambda: self.denoised(slots, index, step, generator),
        }
        return sum(weight * losses[part]() for part, weight in self.parts.items())

    def rows(self, texts: list[str]) -> tokens.Rows:
        """The captions and the [IMG] tokens behind them, as the language model reads them."""
        config, most = self.gill.config, self.backbones.profile.max_caption_tokens
        ids = tokens.encode_captions(self.backbones.tokenizer, texts, config.img_token_ids, most)
        return tokens.img_rows(ids, config, False)

    def denoised(self, slots: Tensor, index, step: int, generator) -> Tensor:
        """The frozen denoiser's error on the true pictures, given the slots (B, L, E)."""
        pipeline, x = self.backbones.pipeline, self.latents[index].to(slots)
        unet = pipeline.unet.to(x.device)
        t = times(step, self.steps(self.stage), len(x), generator).to(x.device)
        noise = torch.randn(x.shape, generator=generator).to(x)
        return diffusion_loss(
            lambda noisy, t: unet(noisy, t, slots).sample,
            x, noise, t, pipeline.scheduler.alphas_cumprod,
        )  # fmt: skip

    def watch(self) -> dict:
        """Right attributes of pictures of full captions, the first ones of the table's novel."""
        self.backbones.pipeline.unet.to(self.device)
        chosen = examples("novel", WATCHED)
        found = judge_of(self).attributes(drawn(self, chosen), [e.scene for e in chosen])
        return {"attribute_accuracy": round(float(found.mean.mean()), 4)}

    # ---- drawing ----

    @cached_property
    def decoder(self):
        """The shipped unCLIP, which draws what one slot holds."""
        return load("unclip", 0, None, self.backbones).to(self.device)

    def draw(self, prompts, seeds) -> Tensor:
        """As GILL, but that the one slot of a picture's teacher goes to unCLIP's decoder."""
        if self.teacher != "picture":
            return super().draw(prompts, seeds)
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        slots = self.slots(prompts)[:, 0]  # (B, E)
        return self.decoder.to(self.device).decode(of_length(slots), generators)


def build(backbones, seed: int, root, teacher: str) -> Taught:
    """The shipped joints of `seed` with a fresh mapper and fresh [IMG] rows."""
    kept = joints_for(backbones, joints_folder("gill", seed))
    config = replace(kept.config, prompt_slots=1) if teacher == "picture" else kept.config
    gill, own = Gill(backbones.lm, backbones.vision, config), kept.trainable_parameters()
    for name, value in gill.trainable_parameters().items():
        if not name.startswith(LEARNS):
            value.data.copy_(own[name])
    return Taught(backbones, gill, teacher)
