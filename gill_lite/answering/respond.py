"""Interleaved prompt in, interleaved answer out: text, a retrieved and a generated image.

Paper Sec. 3.3. Prompts of mixed length are answered in one batch; an example's noise depends
on the run seed and the example's id alone.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from gill_lite.answering import decode
from gill_lite.answering.drawing import Drawing, example_seed, to_pil
from gill_lite.answering.prompts import Prompts
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
        self.prompts, self.drawing = Prompts(backbones, self.gill), Drawing(backbones)

    @property
    def profile(self):
        """Sizes and sampling settings: those of the backbones."""
        return self.backbones.profile

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
            features = self.gill.image_features(self.prompts.pixel_values(pictures))  # (N, P)
        index = ImageIndex.build(features, range(GALLERY))
        return dict(zip(index.ids, pictures, strict=True)), index

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
        embeds, mask = decode.pad_left(self.prompts.embed_prompts(prompts))
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
        pictures = self.drawing.draw(self.gill.prompt_embeds(hidden), seeds)
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
    from gill_lite.model.checkpoint import joints_folder, load_joints
    from gill_lite.profiles import get_profile

    profile = get_profile(profile_name)
    directory = Path(joints) if joints else joints_folder("gill", seed)
    if joints is None and (profile.name != "mini" or not directory.is_dir()):
        raise GillError(
            f"no joints are shipped for seed {seed} of the profile '{profile.name}'; name a folder "
            "of `gill-lite train` or `gill-lite convert`, or use seeds 0, 1, 2 of mini"
        )
    backbones = backbones or load_backbones(profile)
    gill = load_joints(directory, backbones.lm, backbones.vision)
    return Responder(backbones, gill, load_index(directory), load_decision(directory))
