"""Contextual image retrieval: which of all stories' last pictures does this story lead to?

The candidates are the last pictures of the stories evaluated, each once. CLIP reads the captions
joined (cut to what its text tower takes); GILL and a FROMAGe-style model (one [IMG] token,
retrieval only; Koh, Salakhutdinov, Fried, ICML 2023) read captions and pictures interleaved.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gill_lite.datasets.images import open_image
from gill_lite.errors import GillError
from gill_lite.evaluate import protocol
from gill_lite.evaluate.judge import Judge
from gill_lite.respond import to_pixels
from gill_lite.retrieval import ImageIndex

DEPTHS = (1, 5, 10)
BATCH = 25  # stories read together


def last_pictures(stories) -> dict[str, object]:
    """Photo id -> opened picture, of every story's last panel; a shared one counts once."""
    return {story.photo_ids[-1]: open_image(story.image_paths[-1]) for story in stories}


@torch.no_grad()
def picture_index(embed, pictures: dict, batch_size: int = 100) -> ImageIndex:
    """Index of the candidates; `embed` takes a list of pictures and gives (B, P)."""
    images = list(pictures.values())
    parts = [embed(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    return ImageIndex.build(torch.cat(parts), pictures)


def gill_index(responder, pictures: dict) -> ImageIndex:
    """The candidates as the joints of `responder` embed pictures."""
    return picture_index(
        lambda x: responder.gill.image_features(responder.pixel_values(x)), pictures
    )


@torch.no_grad()
def gill_queries(responder, stories, context: str) -> Tensor:
    """Unit vectors (S, P) of each story so far, from the [IMG] state forced behind it."""
    size, rows = responder.profile.image_size, []
    for start in range(0, len(stories), BATCH):
        prompts = [protocol.vist_prompt(s, context, size) for s in stories[start : start + BATCH]]
        rows.append(responder.gill.retrieval_embedding(responder.img_states(prompts)))
    return torch.cat(rows)  # (S, P)


def clip_index(responder, pictures: dict) -> ImageIndex:
    """The candidates as CLIP embeds pictures, the way the CLIP similarity reads them."""
    judge = Judge(responder.backbones, ["clip_similarity"])
    return picture_index(lambda x: judge.features([to_pixels(image) for image in x]), pictures)


@torch.no_grad()
def clip_queries(responder, stories, context: str) -> Tensor:
    """Unit vectors (S, P) of the captions, joined, in CLIP's own text tower."""
    backbones, rows = responder.backbones, []
    tokenizer = backbones.pipeline.tokenizer  # the text tower's own
    for start in range(0, len(stories), BATCH):
        texts = [protocol.vist_text(s, context) for s in stories[start : start + BATCH]]
        batch = tokenizer(
            texts, padding=True, truncation=True, max_length=tokenizer.model_max_length,
            return_tensors="pt", return_token_type_ids=False,
        )  # fmt: skip
        pooled = backbones.vision.text_model(**batch).pooler_output
        rows.append(F.normalize(backbones.vision.text_projection(pooled), dim=-1))
    return torch.cat(rows)  # (S, P)


def ranks(index: ImageIndex, queries: Tensor, stories) -> list[int]:
    """Place of each story's true last picture among the candidates, the first is 1.

    Pictures that the story has shown before are left out of its candidates, unless one of them
    is the true one.
    """
    exclude = [[p for p in s.photo_ids[:-1] if p != s.photo_ids[-1]] for s in stories]
    hits = index.search(queries, k=len(index), exclude=exclude)
    return [ids.index(s.photo_ids[-1]) + 1 for ids, s in zip(hits.ids, stories, strict=True)]


def score_rows(method: str, context: str, seed: int, stories, places: Sequence[int]) -> list[dict]:
    """One row a story in the form of `run.scores_frame`: recall at each depth, and the rank."""
    if len(places) != len(stories):
        raise GillError(f"{len(places)} ranks were given for {len(stories)} stories")
    return [
        {"example": s.example_id, "method": method, "context": context, "seed": seed, "rank": place}
        | {f"recall_at_{k}": float(place <= k) for k in DEPTHS}
        for s, place in zip(stories, places, strict=True)
    ]


def compute(responders: dict[str, dict[int, object]], stories) -> list[dict]:
    """Rows of every method, context and seed. responders: "gill" and others, by seed; CLIP comes
    from their backbones and reads text only."""
    pictures, rows = last_pictures(stories), []
    some = next(iter(next(iter(responders.values())).values()))
    text_only = [c.name for c in protocol.VIST_CONTEXTS.values() if not c.images]
    index = clip_index(some, pictures)
    for context in text_only:
        places = ranks(index, clip_queries(some, stories, context), stories)
        rows += score_rows("clip", context, 0, stories, places)
    for method, by_seed in responders.items():
        for seed, responder in by_seed.items():
            index = gill_index(responder, pictures)
            for context in protocol.VIST_CONTEXTS:
                places = ranks(index, gill_queries(responder, stories, context), stories)
                rows += score_rows(method, context, seed, stories, places)
    return rows
