"""Interleaved prompt in, interleaved answer out: text, a retrieved and a generated image.

Paper Sec. 3.3. Prompts of mixed length are answered in one batch; an example's noise depends
on the run seed and the example's id alone.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from gill_lite.answering import decode
from gill_lite.answering.seeds import example_seed
from gill_lite.errors import GillError
from gill_lite.model import tokens

GALLERY = 400  # pictures of the mini world that an answer can retrieve
STOPS = (".", "!")


class Response(NamedTuple):
    """An answer to one prompt."""

    text: str
    retrieved: Image.Image | None
    generated: Image.Image
    retrieved_score: float | None  # cosine, None without an index
    retrieved_id: str | None = None  # in the index; its picture may not be at hand
    decision: str | None = None  # "gen" or "ret": which image to show; None without a classifier


class Responder:
    """GILL ready to answer: backbones, joints, what it can retrieve, and what decides.

    index: an ImageIndex to retrieve from; without one the mini profile draws its own pictures.
    decision: a LinearDecision between the retrieved and the generated image.
    """

    def __init__(self, backbones, gill, index=None, decision=None):
        self.backbones, self.gill = backbones, gill.eval()
        self.index, self.decision = index, decision
        self.profile = backbones.profile

    # ---- prompts -------------------------------------------------------------------------

    def embed_prompt(self, prompt: Sequence) -> Tensor:
        """A list of str and PIL images as input embeddings of the LM (T, D).

        The first text starts with the LM's beginning-of-sequence token, as in the official code.
        Raises GillError for an empty prompt, an empty text, a damaged picture, or an item of
        another type.
        """
        return self.embed_prompts([prompt])[0]

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence) -> list[Tensor]:
        """As `embed_prompt`, for several prompts: CLIP reads all their pictures at once."""
        prompts = [_items(prompt) for prompt in prompts]
        pictures = [x for prompt in prompts for x in prompt if isinstance(x, Image.Image)]
        visual = self._visual_tokens(pictures)  # one (K, D) a picture, in their order
        return [self._in_sequence(prompt, visual) for prompt in prompts]

    def _visual_tokens(self, pictures: list) -> Iterator[Tensor]:
        if not pictures:
            return iter(())
        pixels = self.pixel_values(pictures).to(self.gill.logit_scale.device)
        return iter(self.gill.visual_tokens(pixels))

    def _in_sequence(self, prompt: list, visual: Iterator[Tensor]) -> Tensor:
        """The items of one prompt, one behind the other (T, D); takes its pictures off `visual`."""
        parts, bos = [], True
        for item in prompt:
            if isinstance(item, Image.Image):
                parts.append(next(visual))  # (K, D)
                continue
            ids = tokens.encode_text(self.backbones.tokenizer, item, bos)
            parts.append(self.gill.embed(torch.tensor(ids, device=self.gill.logit_scale.device)))
            bos = False
        return torch.cat(parts)  # (T, D)

    def pixel_values(self, images) -> Tensor:
        """PIL images as CLIP's input (B, 3, H, W), squashed to a square as in the paper's runs."""
        from gill_lite.datasets.images import squash

        size = self.profile.image_size
        images = [squash(image.convert("RGB"), size) for image in images]
        return self.backbones.image_processor(images=images, return_tensors="pt").pixel_values

    @torch.no_grad()
    def img_states(self, prompts: Sequence) -> Tensor:
        """Hidden states of the [IMG] tokens forced behind each prompt, (B, R, D)."""
        embeds, mask = decode.pad_left(self.embed_prompts(prompts))
        return self.gill.img_states(embeds, mask)

    # ---- pictures ------------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, prompt_embeds: Tensor, seeds: Sequence[int]) -> Tensor:
        """Pictures (B, 3, H, W) in 0..1 from prompt embeddings (B, L, E), noise by seed."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return self.decode(self.denoise(prompt_embeds, generators))

    @torch.no_grad()
    def denoise(self, prompt_embeds: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The diffusion model's latents (B, C, h, w), from which `decode` makes the pictures.

        generators: one for each picture's noise, on the CPU, so that machines agree.
        """
        pipeline = self.backbones.pipeline
        weight = pipeline.unet.conv_in.weight
        return pipeline(
            prompt_embeds=prompt_embeds.to(weight),
            negative_prompt_embeds=self.no_prompt.expand(len(prompt_embeds), -1, -1),
            generator=list(generators),
            num_inference_steps=self.profile.num_inference_steps,
            guidance_scale=self.profile.guidance_scale,
            output_type="latent",
        ).images

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) as pictures (B, 3, H, W) in 0..1, float32 on the CPU."""
        pipeline = self.backbones.pipeline
        vae = pipeline.vae
        latents = latents.to(next(vae.parameters()))
        images = vae.decode(latents / vae.config.scaling_factor).sample
        return pipeline.image_processor.postprocess(images, output_type="pt").float().cpu()

    @torch.no_grad()
    def text_embeds(self, texts: list[str]) -> Tensor:
        """What Stable Diffusion's own text encoder makes of the texts, (B, L, E).

        Texts longer than the encoder reads (77 tokens) are cut, as Stable Diffusion does.
        """
        pipeline = self.backbones.pipeline
        with _quiet("diffusers", "transformers"):  # both would tell of every text that is cut
            return pipeline.encode_prompt(texts, pipeline.unet.device, 1, False)[0]

    @cached_property
    def no_prompt(self) -> Tensor:
        """The embedding of the empty text (1, L, E), for guidance."""
        return self.text_embeds([""])

    @cached_property
    def gallery(self):
        """The pictures an answer can retrieve, by id, and their index. Drawn at first use."""
        from gill_lite.answering.index import ImageIndex
        from gill_lite.world.render import render
        from gill_lite.world.scene import rng_for, sample_scene

        if self.index is not None or self.profile.name != "mini":
            return {}, self.index
        rngs = [rng_for("gallery", i) for i in range(GALLERY)]
        pictures = [render(sample_scene(rng), rng) for rng in rngs]
        with torch.no_grad():
            features = self.gill.image_features(self.pixel_values(pictures))  # (N, P)
        index = ImageIndex.build(features, range(GALLERY))
        return dict(zip(index.ids, pictures, strict=True)), index

    # ---- answers -------------------------------------------------------------------------

    def respond(self, prompt, run_seed: int = 0, example_id: str = "0", **sampling) -> Response:
        """Answer one prompt. See `respond_batch`."""
        return self.respond_batch([prompt], run_seed, [example_id], **sampling)[0]

    @torch.no_grad()
    def respond_batch(
        self, prompts: Sequence, run_seed: int = 0, example_ids: Sequence[str] | None = None,
        max_words: int = 16, **sampling,
    ) -> list[Response]:  # fmt: skip
        """Answer prompts (lists of str and PIL images) with text and images.

        The text is the first sentence, without [IMG] tokens. The image comes from the first ones
        said, or from those forced behind the prompt. `sampling`: see decode.Sampling.
        """
        example_ids = example_ids or [str(i) for i in range(len(prompts))]
        embeds, mask = decode.pad_left(self.embed_prompts(prompts))
        seeds = [example_seed(run_seed, name) for name in example_ids]
        decoded = decode.generate(
            self.gill, embeds, mask,
            decode.Sampling(max_words=max_words, stop_ids=self._stop_ids(), **sampling),
            [torch.Generator().manual_seed(seed) for seed in seeds],
        )  # fmt: skip
        hidden = self.gill.img_states(embeds, mask)  # (B, R, D)
        for row, own in enumerate(decoded.img_hidden):
            if len(own):
                hidden[row] = own[0]
        pictures = self.draw(self.gill.prompt_embeds(hidden), seeds)
        found = zip(self._retrieve(hidden), self._decide(hidden), strict=True)
        return [
            Response(self._text(ids), image, to_pil(picture), score, name, decision)
            for ids, picture, ((image, score, name), decision) in zip(decoded.ids, pictures, found)
        ]

    def _retrieve(self, hidden: Tensor) -> list[tuple]:
        """Picture, cosine and id of the nearest image, for each row of (B, R, D)."""
        pictures, index = self.gallery
        if index is None:
            return [(None, None, None)] * len(hidden)
        hits = index.search(self.gill.retrieval_embedding(hidden), k=1)
        return [
            (pictures.get(names[0]), float(score), names[0])
            for names, score in zip(hits.ids, hits.scores[:, 0], strict=True)
        ]

    def _decide(self, hidden: Tensor) -> list[str | None]:
        """What the classifier says of the first [IMG] state of each row of (B, R, D)."""
        if self.decision is None:
            return [None] * len(hidden)
        return self.decision.decide(hidden[:, 0].float().cpu().numpy()).answers

    def _text(self, ids) -> str:
        return tokens.decode_text(self.backbones.tokenizer, ids, self.gill.config.img_token_ids)

    def _stop_ids(self) -> tuple[int, ...]:
        tokenizer = self.backbones.tokenizer
        known = [tokenizer.convert_tokens_to_ids(word) for word in STOPS]
        return (tokenizer.eos_token_id, *(i for i in known if i != tokenizer.unk_token_id))


def _items(prompt) -> list:
    """The items of a prompt, pictures as RGB. Raises GillError naming one that will not do."""
    from gill_lite.datasets.images import as_rgb

    items = [prompt] if isinstance(prompt, str | Image.Image) else list(prompt)
    if not items:
        raise GillError("the prompt is empty; give it at least one text or image")
    for place, item in enumerate(items):
        who = f"item {place} of the prompt"
        if isinstance(item, Image.Image):
            items[place] = as_rgb(item, who)
        elif not isinstance(item, str):
            raise GillError(f"{who} is a {type(item).__name__}; give text or PIL images")
        elif not item.strip():
            raise GillError(f"{who} is an empty text; leave it out")
    return items


@contextmanager
def _quiet(*loggers: str):
    """Only errors are logged by these libraries meanwhile."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)


def to_pil(picture: Tensor) -> Image.Image:
    """A picture (3, H, W) in 0..1 as a PIL image."""
    array = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(array.numpy())


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB PIL image as a picture (3, H, W) in 0..1, as large as it is."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).float() / 255


def joints_dir(profile, seed: int = 0, mapper: str = "gill") -> Path:
    """Where the shipped joints of a seed lie."""
    from gill_lite.files import DATA

    return DATA / profile.name / "joints" / f"{mapper}-{seed}"


def load_responder(
    profile_name: str = "mini", seed: int = 0, joints=None, backbones=None
) -> Responder:
    """Backbones and joints of a profile, ready to answer.

    joints: folder of `gill-lite train` or `gill-lite convert`, whose index and decision classifier
    are used where it has them; by default the shipped joints of `seed`.
    """
    from gill_lite.answering.decision import load_decision
    from gill_lite.answering.index import load_index
    from gill_lite.model.backbones import load_backbones
    from gill_lite.model.checkpoint import load_joints
    from gill_lite.profiles import get_profile

    profile = get_profile(profile_name)
    directory = Path(joints) if joints else joints_dir(profile, seed)
    if joints is None and not directory.is_dir():
        raise GillError(
            f"no joints are shipped for seed {seed} (no folder {directory.name}); "
            "train them with `gill-lite train`, or use a seed of 0, 1, 2"
        )
    backbones = backbones or load_backbones(profile)
    gill = load_joints(directory, backbones.lm, backbones.vision)
    return Responder(backbones, gill, load_index(directory), load_decision(directory))
