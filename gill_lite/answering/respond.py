"""Interleaved prompt in, interleaved answer out: texts, retrieved and generated pictures.

Paper Sec. 3.3. Prompts of mixed length are answered in one batch; an example's noise depends
on the run seed and the example's id alone. Axes: B prompts, N pictures of all answers, R [IMG]
tokens, D LM width, P retrieval width, L prompt-embedding slots, E prompt-embedding width.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gill_lite.answering import decode
from gill_lite.answering.answers import Generated, Response, Settings, ShownPicture
from gill_lite.answering.drawing import Drawing, example_seed, to_pil
from gill_lite.answering.fixed_steps import FixedSteps, fixed_steps
from gill_lite.answering.gallery import Gallery, drawn_gallery
from gill_lite.answering.prompts import Prompts
from gill_lite.errors import GillError
from gill_lite.model import mappers, tokens

TOGETHER = 8  # pictures drawn at once, as officially


class Run(NamedTuple):
    """A run of [IMG] tokens: where it was said, and what the LM made of it."""

    row: int  # of the batch
    place: int  # 0 for the first picture of the answer
    hidden: Tensor  # (R, D)
    forced: bool


class Responder:
    """GILL ready to answer: backbones, joints, what it can retrieve, and what decides.

    gallery: a Gallery to retrieve from; without one the mini profile draws its own pictures.
    decision: a LinearDecision between the retrieved and the generated picture.
    """

    def __init__(self, backbones, gill, gallery: Gallery | None = None, decision=None):
        self.backbones, self.gill = backbones, gill.eval()
        self.decision, self._gallery = decision, gallery
        self.prompts, self.drawing = Prompts(backbones, self.gill), Drawing(backbones)

    @property
    def profile(self):
        """Sizes and sampling settings: those of the backbones."""
        return self.backbones.profile

    @cached_property
    def gallery(self) -> Gallery | None:
        """What an answer can retrieve. The mini world's own is drawn at first use."""
        if self._gallery is None and self.profile.name == "mini":
            return drawn_gallery(self.gill, self.prompts)
        return self._gallery

    def respond(
        self, prompt, run_seed: int = 0, example_id: str = "0", seen: Collection[str] = (),
        on_text: Callable[[list], None] | None = None,
        on_step: Callable[[int, Tensor], None] | None = None, **settings,
    ) -> Response:  # fmt: skip
        """Answer one prompt, a list of str and PIL images. See `respond_batch`.

        on_text: is told the answer so far after each word, with None for a picture. on_step: is
        told each step that is done of drawing and its latents, which `drawing.decode` makes
        pictures.
        """
        how, names = Settings.of(settings), [example_id]
        return self._respond([prompt], run_seed, names, [seen], how, on_text, on_step)[0]

    def respond_batch(
        self, prompts: Sequence, run_seed: int = 0, example_ids: Sequence[str] | None = None,
        seen: Sequence[Collection[str]] | None = None, **settings,
    ) -> list[Response]:  # fmt: skip
        """Answer prompts (lists of str and PIL images) with texts and pictures.

        An answer ends at a newline, at the end of text, at `max_words`, or where the profile
        says so. A picture is shown where the model said [IMG0]. run_seed, example_ids: what an
        example's noise depends on. seen: for each prompt, ids not to be retrieved. settings:
        see `answers.Settings`. Raises GillError for a setting or a prompt that will not do.
        """
        names = example_ids or [str(i) for i in range(len(prompts))]
        seen = seen or [()] * len(prompts)
        return self._respond(prompts, run_seed, names, seen, Settings.of(settings))

    @torch.no_grad()
    def _respond(
        self, prompts, run_seed: int, names, seen, how: Settings, on_text=None, on_step=None
    ) -> list[Response]:
        embeds, mask = decode.pad_left(self.prompts.embed_prompts(prompts))
        seeds = [example_seed(run_seed, name) for name in names]
        decoded = decode.generate(
            self.gill, embeds, mask, replace(how, **self._ends),
            [torch.Generator().manual_seed(seed) for seed in seeds],
            on_text and (lambda rows: on_text(self._so_far(rows[0]))),
            self._fixed,
        )  # fmt: skip
        rows = [self._answer(row, decoded) for row in range(len(prompts))]
        if how.force_image:
            self._force(rows, embeds, mask)
        runs = [piece for row in rows for piece in row if isinstance(piece, Run)]
        shown = iter(self._show(runs, run_seed, names, seen, how, on_step))
        return [Response(next(shown) if isinstance(p, Run) else p for p in row) for row in rows]

    # ---- words ---------------------------------------------------------------------------

    @cached_property
    def _fixed(self) -> FixedSteps | None:
        return fixed_steps(self.gill)

    @cached_property
    def _ends(self) -> dict[str, Any]:
        """The ids that end an answer, in the form of `decode.Sampling`."""
        tokenizer = self.backbones.tokenizer
        known = tokenizer.get_vocab()
        texts = tokenizer.batch_decode([[i] for i in known.values()])
        return {
            "stop_ids": (tokenizer.eos_token_id,),
            "newline_ids": tuple(i for i, t in zip(known.values(), texts) if "\n" in t),
            "sentence_ids": tuple(known[w] for w in self.profile.answer_ends if w in known),
        }

    def _answer(self, row: int, decoded: decode.Decoded) -> list[str | Run]:
        """An answer's texts and runs, in the order in which they were said."""
        hidden = decoded.img_hidden[row]
        runs = [Run(row, place, states, forced=False) for place, states in enumerate(hidden)]
        return self._pieces(decoded.ids[row], decoded.img_starts[row], runs)

    def _so_far(self, ids: list[int]) -> list[str | None]:
        starts = [i for i, token in enumerate(ids) if token == self.gill.config.img_token_ids[0]]
        return self._pieces(ids, starts, [None] * len(starts))

    def _pieces(self, ids: list[int], starts: list[int], runs: list) -> list:
        """The texts of `ids`, and between them the runs of [IMG] tokens that start at `starts`.

        Beside a picture a text without a word, such as a full stop, is left out.
        """
        pieces, at = [], 0
        for start, run in zip(starts, runs, strict=True):
            pieces += [self._text(ids[at:start]), run]
            at = start + self.gill.config.num_img_tokens
        said = r"\w" if starts else "."
        return [
            piece
            for piece in [*pieces, self._text(ids[at:])]
            if not isinstance(piece, str) or re.search(said, piece)
        ]

    def _text(self, ids) -> str:
        text = tokens.decode_text(self.backbones.tokenizer, ids, self.gill.config.img_token_ids)
        return text.strip().split("\n")[0]

    def _force(self, rows: list[list], embeds: Tensor, mask: Tensor) -> None:
        """Open each answer without a picture with one: [IMG] tokens right behind the prompt."""
        bare = [i for i, row in enumerate(rows) if not any(isinstance(p, Run) for p in row)]
        if bare:
            for i, hidden in zip(bare, self.gill.img_states(embeds[bare], mask[bare]), strict=True):
                rows[i].insert(0, Run(i, 0, hidden, forced=True))

    @torch.no_grad()
    def score(self, prompt) -> float:
        """The log-likelihood of an interleaved prompt: the mean over its texts' tokens.

        As officially, pictures are read and not scored, nor is what opens the prompt. Raises
        GillError for a prompt that leaves no token to score.
        """
        [embeds], labels = self.prompts.embed_prompts([prompt]), self.prompts.label_ids(prompt)
        if (labels[1:] == tokens.IGNORE).all():
            raise GillError("the prompt has no words to score; give it a text of two at least")
        self.gill.check_room(embeds[None], None)
        return -float(self.gill.lm_loss(self.gill.lm_states(embeds[None]), labels[None]))

    # ---- pictures ------------------------------------------------------------------------

    def _show(self, runs: list[Run], run_seed, names, seen, how, on_step) -> list[ShownPicture]:
        """Runs of [IMG] tokens as pictures: what is retrieved, drawn and decided."""
        if not runs:
            return []
        hidden = torch.stack([run.hidden for run in runs])  # (N, R, D)
        queries = self.gill.retrieval_embedding(hidden)  # (N, P)
        found = self._retrieve(runs, queries, seen, how.num_retrieved if how.retrieve else 0)
        drawn: list[tuple] = [()] * len(runs)
        if how.draw and self.gill.config.mapper != mappers.RETRIEVAL_ONLY:
            n = how.num_generated
            seeds = [picture_seeds(run_seed, names[run.row], run.place, n) for run in runs]
            drawn = self._generate(hidden, queries, seeds, how, on_step)
        decided: list[dict] = [{}] * len(runs)
        if self.decision is not None:
            answers, chances = self.decision.decide(hidden[:, 0].float().cpu().numpy())
            pairs = zip(answers, chances.tolist(), strict=True)
            decided = [{"decision": a, "probabilities": tuple(c)} for a, c in pairs]
        return [
            ShownPicture(tuple(some), made, forced=run.forced, passed_over=tuple(passed), **choice)
            for run, (some, passed), made, choice in zip(runs, found, drawn, decided, strict=True)
        ]

    def _retrieve(self, runs: list[Run], queries: Tensor, seen, count: int) -> list[tuple]:
        """What `Gallery.find` gives for each run; no answer is given a picture twice."""
        if not count or self.gallery is None:
            return [((), ())] * len(runs)
        seen, found = [list(ids) for ids in seen], []
        for run, query in zip(runs, queries, strict=True):
            found.append(self.gallery.find(query, count, seen[run.row]))
            seen[run.row] += [candidate.id for candidate in found[-1][0]]
        return found

    def _generate(self, hidden, queries, seeds: list[list[int]], how, on_step) -> list[tuple]:
        """Candidates for each of the N runs, drawn from its own seeds, best by their cosine."""
        count = len(seeds[0])
        embeds = self.gill.prompt_embeds(hidden).repeat_interleave(count, dim=0)  # (N * n, L, E)
        flat = [seed for own in seeds for seed in own]
        options = {name: getattr(how, name) for name in ("guidance_scale", "num_inference_steps")}
        images, features = [], []
        for at in range(0, len(flat), TOGETHER):
            part = slice(at, at + TOGETHER)
            pictures = self.drawing.draw(embeds[part], flat[part], watch=on_step, **options)
            images += [to_pil(picture) for picture in pictures]
            features.append(self.gill.image_features(self.prompts.pixel_values(images[part])))
        scores = torch.cat(features).view(len(hidden), count, -1) @ queries[..., None]  # (N, n, 1)
        made = [
            Generated(image, score, seed)
            for image, score, seed in zip(images, scores.flatten().tolist(), flat, strict=True)
        ]
        groups = [made[i : i + count] for i in range(0, len(made), count)]
        return [tuple(sorted(group, key=lambda one: -one.score)) for group in groups]


def picture_seeds(run_seed: int, example_id: str, place: int, count: int) -> list[int]:
    """Seeds of the noise of an answer's picture at `place`, one a candidate.

    The first of the first picture has the example's own, as in the evaluation.
    """
    numbered = [f"{example_id}/{place}/{number}" for number in range(count)]
    if place == 0:
        numbered[0] = example_id
    return [example_seed(run_seed, name) for name in numbered]


def load_responder(
    profile_name: str = "mini", seed: int = 0, joints=None, backbones=None, *,
    device: str = "auto", dtype: str = "auto", quantize: str = "none", images=None,
) -> Responder:  # fmt: skip
    """Backbones and joints of a profile, ready to answer.

    joints: folder of `gill-lite train` or `gill-lite convert`, whose index and decision classifier
    are used where it has them; by default the shipped joints of `seed`.
    device, dtype: "auto" is the CPU and float32 for the mini world, so that all machines say the
    same, and a GPU where there is one and bfloat16 for other profiles. quantize: see
    `load_backbones`. images: folder of the index's pictures, where its ids are file names and it
    is not where `gill-lite index` found them.
    """
    from gill_lite.answering.decision import load_decision
    from gill_lite.answering.index import load_index
    from gill_lite.model.backbones import load_backbones
    from gill_lite.model.checkpoint import joints_folder, joints_for
    from gill_lite.profiles import get_profile

    profile = get_profile(profile_name)
    directory = Path(joints) if joints else joints_folder("gill", seed)
    if joints is None and (profile.name != "mini" or not directory.is_dir()):
        raise GillError(
            f"no joints are shipped for seed {seed} of the profile '{profile.name}'; name a folder "
            "of `gill-lite train` or `gill-lite convert`, or use seeds 0, 1, 2 of mini"
        )
    if backbones is None:
        device, dtype = placed(profile.name, device, dtype)
        backbones = load_backbones(profile, device, dtype, quantize=quantize)
    gill = joints_for(backbones, directory)
    index = load_index(directory)
    if index is not None:
        index = index.to(gill.logit_scale.device)
    gallery = None if index is None else Gallery(index, folder=images or index.folder)
    return Responder(backbones, gill, gallery, load_decision(directory))


def placed(profile_name: str, device: str, dtype: str) -> tuple[str, str]:
    """Where models answer and in what precision, with "auto" made definite.

    Raises GillError for a device that is not there.
    """
    large = profile_name != "mini"
    if device == "auto":
        device = "cuda" if large and torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise GillError(f"the device '{device}' cannot be used ({reason}); try cpu") from error
    return device, ("bfloat16" if large else "float32") if dtype == "auto" else dtype
