"""Contextual image retrieval: which of all stories' last pictures does this story lead to?

The candidates are the last pictures of the stories evaluated, each once. CLIP reads the captions
joined (cut to what its text tower takes); GILL and a FROMAGe-style model (one [IMG] token,
retrieval only; Koh, Salakhutdinov, Fried, ICML 2023) read captions and pictures interleaved.

retrieval = prepare("runs/mine", seeds=[0], num_examples=20)
result = results(retrieval, retrieval.run(), time.time())
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from gill_lite import provenance
from gill_lite.answering.drawing import from_pil
from gill_lite.answering.index import Hits, ImageIndex
from gill_lite.answering.respond import Responder
from gill_lite.datasets.images import open_image
from gill_lite.evaluation import evaluate as table
from gill_lite.evaluation import protocol, tasks
from gill_lite.evaluation.drawers import joints_folders, load_models
from gill_lite.evaluation.judge import Judge
from gill_lite.evaluation.run import RunResult, WorkItem, run_resumable, scores_frame, work_items
from gill_lite.model.backbones import fingerprint
from gill_lite.model.checkpoint import WEIGHTS
from gill_lite.profiles import Profile, get_profile
from gill_lite.report import numbers as tables

DEPTHS = (1, 5, 10)
RECALLS = {f"recall_at_{k}": f"R@{k} ↑" for k in DEPTHS}
BATCH = 25  # stories read together
CLIP = "clip"
SPEC = table.TableSpec(
    number="retrieval",
    name="retrieval",
    title="Contextual retrieval: which of all last pictures does a VIST story lead to?",
    task=tasks.VIST,
    contexts=tuple(protocol.VIST_CONTEXTS.values()),
    baselines=(CLIP,),
    learned=("fromage", "gill"),
    metrics=tuple(RECALLS),
    topic="retrieval",
    labels={CLIP: "CLIP", "fromage": "FROMAGe-style", "gill": "GILL"},
)


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
        lambda x: responder.gill.image_features(responder.prompts.pixel_values(x)), pictures
    )


@torch.no_grad()
def gill_queries(responder, stories, context: str) -> Tensor:
    """Unit vectors (S, P) of each story so far, from the [IMG] state forced behind it."""
    size, rows = responder.profile.image_size, []
    for start in range(0, len(stories), BATCH):
        prompts = [protocol.vist_prompt(s, context, size) for s in stories[start : start + BATCH]]
        rows.append(responder.gill.retrieval_embedding(responder.prompts.img_states(prompts)))
    return torch.cat(rows)  # (S, P)


def clip_index(responder, pictures: dict) -> ImageIndex:
    """The candidates as CLIP embeds pictures, the way the CLIP similarity reads them."""
    judge = Judge(responder.backbones, ["clip_similarity"])
    return picture_index(lambda x: judge.features([from_pil(image) for image in x]), pictures)


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


def excluded(story) -> list[str]:
    """Pictures that the story has shown before: no candidates, unless one is the true one."""
    return [photo for photo in story.photo_ids[:-1] if photo != story.photo_ids[-1]]


def ranks(index: ImageIndex, queries: Tensor, stories) -> list[int]:
    """Place of each story's true last picture among the candidates, the first is 1."""
    hits = index.search(queries, k=len(index), exclude=[excluded(story) for story in stories])
    return [ids.index(s.photo_ids[-1]) + 1 for ids, s in zip(hits.ids, stories, strict=True)]


def scores(place: int) -> dict[str, float]:
    """Recall at each depth, and the rank it follows from."""
    return {"rank": place} | {f"recall_at_{k}": float(place <= k) for k in DEPTHS}


# ---- the table ---------------------------------------------------------------------------


@dataclass
class Retrieval:
    """The table, ready to be computed."""

    dataset: tasks.Dataset
    responders: dict[tuple[str, int], Responder]  # by (method, seed); CLIP is in each
    seeds: tuple[int, ...]
    config: dict  # all that the scores depend on; JSON
    folder: Path  # of the run's rows
    indices: dict[tuple[str, int], ImageIndex] = field(default_factory=dict)

    def __post_init__(self):
        self.examples = {story.example_id: story for story in self.dataset.examples}
        self.pictures = last_pictures(self.dataset.examples)

    def items(self, cells=None, count: int | None = None) -> list[WorkItem]:
        """The work: all stories, or the first `count`, in all cells or in `cells`."""
        names = list(self.examples)[:count]
        return work_items(names, SPEC.cells(self.seeds) if cells is None else cells)

    def index(self, method: str, seed: int = 0) -> ImageIndex:
        """The candidates as a method embeds them; built at first use."""
        if (method, seed) not in self.indices:
            make = clip_index if method == CLIP else gill_index
            self.indices[method, seed] = make(self._responder(method, seed), self.pictures)
        return self.indices[method, seed]

    def queries(self, method: str, context: str, seed: int, stories: Sequence) -> Tensor:
        """What a method looks for, unit vectors (S, P)."""
        make = clip_queries if method == CLIP else gill_queries
        return make(self._responder(method, seed), stories, context)

    def search(self, method: str, context: str, seed: int, stories: Sequence, k: int = 1) -> Hits:
        """The first k candidates of each story."""
        queries = self.queries(method, context, seed, stories)
        exclude = [excluded(story) for story in stories]
        return self.index(method, seed).search(queries, k, exclude)

    def _responder(self, method: str, seed: int) -> Responder:
        if method == CLIP:
            return next(iter(self.responders.values()))
        return self.responders[method, seed]

    def __call__(self, items: list[WorkItem]) -> list[dict]:
        """Scores of items that share a cell (method, context, seed)."""
        method, context, seed = items[0].cell
        stories = [self.examples[item.example_id] for item in items]
        queries = self.queries(method, context, seed, stories)
        return [scores(place) for place in ranks(self.index(method, seed), queries, stories)]

    def run(self, progress: bool | None = None) -> RunResult:
        """Score every item; goes on where it was killed.

        Raises GillError where the folder holds a run with another configuration.
        """
        return run_resumable(
            self.items(), self, self.folder, self.config, BATCH,
            progress=progress, description=SPEC.name,
        )  # fmt: skip


def prepare(
    output_dir, profile: str | Profile = "mini", seeds: Sequence[int] = (0, 1, 2),
    num_examples: int | None = None, data: tuple | None = None, joints: Sequence = (),
    joints_root=None,
) -> Retrieval:  # fmt: skip
    """Read the stories and load the models.

    data: (JSON file, image folder) in the official format; without it the mini world's, made
    once in `output_dir`. joints, joints_root: see `models.load_models`. Raises GillError for
    whatever is missing.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    folders = joints_folders(profile, seeds, joints, SPEC.learned, joints_root)
    dataset = stories_of(Path(output_dir), data, num_examples)
    drawers = load_models(
        profile, seeds, joints, baselines=(), learned=SPEC.learned, joints_root=joints_root
    )
    responders = {cell: drawer.responder for cell, drawer in drawers.items()}
    backbones = next(iter(responders.values())).backbones
    config = {
        "table": SPEC.name,
        "profile": asdict(backbones.profile),
        "data": dataset.about(),
        "metrics": list(RECALLS),
        "weights": {"lm_clip_text_encoder": fingerprint(backbones)},
        "seeds": list(seeds),
        "joints": {f"{method}-{seed}": provenance.sha256_of(folder / WEIGHTS)
                   for (method, seed), folder in folders.items()},
    }  # fmt: skip
    config = json.loads(json.dumps(config))  # as it will be read back
    folder = Path(output_dir) / SPEC.name
    return Retrieval(dataset, responders, tuple(seeds), config, folder)


def stories_of(output_dir: Path, data: tuple | None, count: int | None) -> tasks.Dataset:
    """The first `count` stories of official files, or of the mini world (`WORLD_EXAMPLES`)."""
    if data is not None:
        annotations, images = data
        return tasks.of_files(tasks.VIST, annotations, images, count)
    count = count or table.WORLD_EXAMPLES
    return tasks.of_world(tasks.VIST, output_dir / f"{tasks.VIST.name}-{count}", count)


def results(
    retrieval: Retrieval, run: RunResult, started: float, profile_name: str = "mini", **settings
) -> dict:
    """What results/retrieval.json holds; the keys are those of `table.results`."""
    frame = scores_frame(run.rows)
    recalls = {m: (label, tables.intervals(frame, m), None) for m, label in RECALLS.items()}
    return table.results(
        SPEC, run, started, profile_name, config=retrieval.config, more=recalls, **settings
    )
