"""Contextual image retrieval: which of all stories' last pictures does this story lead to?

The candidates are the last pictures of the stories evaluated, each once. CLIP reads the captions
joined (cut to what its text tower takes); GILL and a FROMAGe-style model (one [IMG] token,
retrieval only; Koh, Salakhutdinov, Fried, ICML 2023) read captions and pictures interleaved.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gill_lite.answering.drawing import from_pil
from gill_lite.answering.index import Hits, ImageIndex
from gill_lite.answering.respond import Responder
from gill_lite.datasets.images import open_image
from gill_lite.evaluation.drawers import Models
from gill_lite.evaluation.metrics import Judge
from gill_lite.evaluation.run import WorkItem
from gill_lite.evaluation.tables import Table
from gill_lite.evaluation.tasks import Dataset, vist_prompt, vist_text
from gill_lite.report.numbers import RECALLS

PICTURES = 100  # embedded together


class Searcher:
    """Ranks the candidates for work items that share a cell (method, context, seed)."""

    def __init__(self, dataset: Dataset, models: Models, table: Table, *_):
        """What else a scorer is given is about drawing."""
        self.models, self.metrics = models, table.metrics
        self.contexts = {context.name: context for context in table.all_contexts}
        self.stories = dataset.by_id
        self.pictures = {  # photo id -> path: a last picture that stories share counts once
            story.photo_ids[-1]: story.image_paths[-1]
            for story in dataset.examples
            if not dataset.fault(story.example_id)
        }
        self.indices: dict[tuple[str, int], ImageIndex] = {}

    def index(self, method: str, seed: int = 0) -> ImageIndex:
        """The candidates as a method embeds them; built at first use."""
        if (method, seed) not in self.indices:
            responder, paths = self.models[method, seed].responder, list(self.pictures.values())
            embed = by_clip if method == "clip" else by_gill
            cuts = [paths[i : i + PICTURES] for i in range(0, len(paths), PICTURES)]
            parts = [embed(responder, [open_image(path) for path in cut]) for cut in cuts]
            self.indices[method, seed] = ImageIndex.build(torch.cat(parts), self.pictures)
        return self.indices[method, seed]

    def queries(self, method: str, context: str, seed: int, stories: Sequence) -> Tensor:
        """What a method looks for, unit vectors (S, P)."""
        make = clip_queries if method == "clip" else gill_queries
        return make(self.models[method, seed].responder, stories, self.contexts[context])

    def search(self, method: str, context: str, seed: int, stories: Sequence, k: int = 1) -> Hits:
        """The first k candidates of each story."""
        queries = self.queries(method, context, seed, stories)
        exclude = [excluded(story) for story in stories]
        return self.index(method, seed).search(queries, k, exclude)

    def __call__(self, items: list[WorkItem]) -> list[dict]:
        """Each story's rank of the true picture, and the recalls that follow from it."""
        method, context, seed = items[0].cell
        stories = [self.stories[item.example_id] for item in items]
        queries = self.queries(method, context, seed, stories)
        return [scores(place) for place in ranks(self.index(method, seed), queries, stories)]


@torch.no_grad()
def gill_queries(responder: Responder, stories: Sequence, context) -> Tensor:
    """Unit vectors (S, P) of each story so far, from the [IMG] state forced behind it."""
    size = responder.profile.image_size
    states = responder.prompts.img_states([vist_prompt(story, context, size) for story in stories])
    return responder.gill.retrieval_embedding(states)  # (S, P)


@torch.no_grad()
def clip_queries(responder: Responder, stories: Sequence, context) -> Tensor:
    """Unit vectors (S, P) of the captions, joined, in CLIP's own text tower."""
    vision = responder.backbones.vision
    tokenizer = responder.backbones.pipeline.tokenizer  # the text tower's own
    batch = tokenizer(
        [vist_text(story, context) for story in stories],
        padding=True, truncation=True, max_length=tokenizer.model_max_length,
        return_tensors="pt", return_token_type_ids=False,
    ).to(vision.device)  # fmt: skip
    pooled = vision.text_model(**batch).pooler_output
    return F.normalize(vision.text_projection(pooled), dim=-1)  # (S, P)


@torch.no_grad()
def by_gill(responder: Responder, pictures: Sequence) -> Tensor:
    """The candidates as the joints of `responder` embed pictures, (B, P)."""
    return responder.gill.image_features(responder.prompts.pixel_values(pictures))


def by_clip(responder: Responder, pictures: Sequence) -> Tensor:
    """The candidates as CLIP embeds pictures, the way the CLIP similarity reads them, (B, P)."""
    judge = Judge(responder.backbones, ["clip_similarity"])
    return judge.features([from_pil(picture) for picture in pictures])


def excluded(story) -> list[str]:
    """Pictures that the story has shown before: no candidates, unless one is the true one."""
    return [photo for photo in story.photo_ids[:-1] if photo != story.photo_ids[-1]]


def ranks(index: ImageIndex, queries: Tensor, stories) -> list[int]:
    """Place of each story's true last picture among the candidates, the first is 1."""
    hits = index.search(queries, k=len(index), exclude=[excluded(story) for story in stories])
    return [ids.index(s.photo_ids[-1]) + 1 for ids, s in zip(hits.ids, stories, strict=True)]


def scores(place: int) -> dict[str, float]:
    """Recall at each depth, and the rank it follows from."""
    depths = {name: int(name.removeprefix("recall_at_")) for name in RECALLS}
    return {"rank": place} | {name: float(place <= k) for name, k in depths.items()}
