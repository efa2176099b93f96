"""What is drawn: the last picture of a story, the picture of a dialogue, a caption's picture.

A context says how much of an example is seen. A task says how an example of its dataset then
becomes a prompt, and which picture is the true one. `of_world` and `of_files` give its examples:
the mini world's, exported in the official format, or the official files themselves; one reader
reads both.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from gill_lite.datasets.captions import read_captions
from gill_lite.datasets.images import open_image, squash
from gill_lite.datasets.reading import MAX_SKIPPED, Reading, Unusable
from gill_lite.datasets.visdial import read_visdial
from gill_lite.datasets.vist import read_vist
from gill_lite.errors import GillError
from gill_lite.files import only_one, sha256
from gill_lite.world.export import export, export_paths, read_attributes

BAR_FROM = 50  # so many examples take longer to export than a progress bar is worth


# ---- contexts: how much of a story or dialogue the model sees ----------------------------


@dataclass(frozen=True)
class Context:
    """The last `texts` captions (or first rounds) and the `images` pictures between them."""

    name: str
    texts: int
    images: int
    label: str  # column heading
    panel: int = 0  # whose picture is the one that is shown, from 1; 0: the first `images` panels'
    reverse: bool = False  # whether the captions are read last first (a context without pictures)

    @property
    def shown(self) -> range:
        """The panels, from 0, behind whose captions their pictures stand."""
        return range(self.panel - 1, self.panel) if self.panel else range(self.images)


def captions(count: int, images: int = 0) -> Context:
    """The last `count` captions of a story, and the first `images` of their pictures."""
    name, label = f"caption{'s' * (count > 1)}{count}", f"{count} caption{'s' * (count > 1)}"
    if images:
        name, label = f"{name}_images{images}", f"{label}, {images} image{'s' * (images > 1)}"
    return Context(name, count, images, label)


VIST_CONTEXTS = {
    context.name: context for context in (captions(1), captions(5), captions(5, images=4))
}
VISDIAL_CONTEXTS = {
    f"rounds{n}": Context(f"rounds{n}", n, 0, f"{n} round{'s' * (n > 1)}") for n in (1, 5, 10)
}


def vist_prompt(story, context: Context, image_size: int | None = None) -> list[str | Image.Image]:
    """What GILL sees of a story: each caption, then its picture, the last caption last.

    image_size: pictures squashed to a square of so many pixels, as the official evaluation does.
    Raises GillError for a context that shows the last panel's picture, which is asked for.
    """
    panels = list(zip(story.captions, story.image_paths, strict=True))[-context.texts :]
    panels = panels[::-1] if context.reverse else panels
    if not 0 <= context.images < len(panels):
        raise GillError(f"context '{context.name}' shows {context.images} images, too many")
    prompt: list[str | Image.Image] = []
    for number, (caption, path) in enumerate(panels):
        prompt.append(caption)
        if number in context.shown:
            image = open_image(path)
            prompt.append(image if image_size is None else squash(image, image_size))
    return prompt


def vist_text(story, context: Context) -> str:
    """What Stable Diffusion sees of a story: the captions, joined by spaces.

    Raises GillError for a context with images: it takes none.
    """
    if context.images:
        raise GillError(f"Stable Diffusion takes no images, so there is no '{context.name}' for it")
    captions = story.captions[-context.texts :]
    return " ".join(captions[::-1] if context.reverse else captions)


def visdial_text(dialogue, context: Context) -> str:
    """The first rounds of a dialogue as the official evaluation writes them; GILL and SD alike."""
    rounds = dialogue.rounds[: context.texts]
    return "\n".join(f"Q: {question}?\nA: {answer}" for question, answer in rounds)


def visdial_prompt(dialogue, context: Context, image_size: int | None = None) -> list[str]:
    """What GILL sees of a dialogue: its first rounds as one text, no caption and no picture."""
    return [visdial_text(dialogue, context)]


# ---- tasks: datasets as an evaluation sees them ------------------------------------------


def _made_not_read(*_, **__):
    raise GillError("these examples are made by their experiment; no file holds them")


@dataclass(frozen=True)
class Task:
    """One dataset as an evaluation sees it."""

    name: str  # in data/claims.csv, data/paper_results.csv and options
    examples: str  # "stories", "dialogues": what is counted
    contexts: dict[str, Context]
    prompt: Callable  # (example, context, image_size) -> texts and pictures for GILL
    text: Callable  # (example, context) -> text for Stable Diffusion
    read: Callable = _made_not_read  # (json, image folder, strict=) -> Reading
    target: Callable = _made_not_read  # example -> (id, path) of the true picture
    files: Callable = lambda example: (example.image_path,)  # the paths of all its pictures


VIST = Task(
    "vist", "stories", VIST_CONTEXTS, vist_prompt, vist_text, read_vist,
    lambda story: (story.photo_ids[-1], story.image_paths[-1]),
    lambda story: story.image_paths,
)  # fmt: skip
VISDIAL = Task(
    "visdial", "dialogues", VISDIAL_CONTEXTS, visdial_prompt, visdial_text, read_visdial,
    lambda dialogue: (str(dialogue.image_id), dialogue.image_path),
)  # fmt: skip
CAPTIONS = Task(
    "captions", "captions", {"single_caption": Context("single_caption", 1, 0, "a single caption")},
    lambda pair, context, image_size=None: [pair.caption],
    lambda pair, context: pair.caption,
    read_captions,
    lambda pair: (pair.image, pair.image_path),
)  # fmt: skip
SPLITS = {split: Context(split, 1, 0, f"{split} scenes") for split in ("seen", "novel")}
PROMPTS = Task(  # answered with two pictures, between which to decide
    "decide", "prompts", SPLITS,
    lambda question, context, image_size=None: [question.text],
    lambda question, context: question.text,
)  # fmt: skip
DRAWINGS = Task(  # the family's, too
    "drawings", "scenes",
    SPLITS | {context.name: context for context in (
        Context("story", 5, 0, "5 sentences"),
        Context("story_pictures", 5, 4, "5 sentences, 4 pictures"))},
    _made_not_read, _made_not_read,
)  # fmt: skip
EDITS = Task(
    "edits", "chains", {"turns": Context("turns", 7, 0, "7 turns")}, _made_not_read, _made_not_read
)
SCENES = Task("scenes", "scenes", SPLITS, _made_not_read, _made_not_read)  # the family's


# ---- datasets: the examples of a task ----------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """Examples to score."""

    task: Task
    examples: list  # those whose pictures are there
    scenes: dict  # what each true picture shows, by its id; empty for real photographs
    source: Path  # the JSON file
    reading: Reading  # what was usable of the file
    ids: list[str]  # of all that are taken, also of those whose pictures may yet come
    faults: dict[str, Unusable | None]  # by id, of those that were looked at

    def about(self) -> dict:
        """What of the data a run depends on; which pictures are there is not among it."""
        reading = self.reading
        lost = Counter(fault.reason for fault in reading.ids.values() if fault)
        return {
            "sha256": sha256(self.source),
            "eligible": reading.eligible,
            "usable": len(reading.ids),
            "skipped": dict(reading.skipped - lost),
            "taken": len(self.ids),
        }

    @cached_property
    def by_id(self) -> dict:
        """The examples by their ids."""
        return {example.example_id: example for example in self.examples}

    def fault(self, example_id: str) -> Unusable | None:
        """Why the example cannot be scored, None where all its pictures open. Looks once."""
        if example_id not in self.faults:
            paths = self.task.files(self.by_id[example_id])
            self.faults[example_id] = _unreadable(paths)
        return self.faults[example_id]


def _unreadable(paths) -> Unusable | None:
    try:
        for path in paths:
            open_image(path)
    except GillError as error:
        return Unusable("unreadable image", str(error))
    return None


def of_world(task: Task, directory, count: int, split: str = "seen") -> Dataset:
    """The mini world's first `count` examples of a split, exported once into `directory`.

    Raises GillError where the folder holds fewer.
    """
    directory = Path(directory)
    paths = export_paths(directory)._asdict()
    source = paths[f"{task.name}_{'tsv' if task is CAPTIONS else 'json'}"]
    with only_one(directory, beside=True, wait=True):
        if not source.exists():
            counts: dict = {"num_stories": 0, "num_dialogues": 0, "num_captions": 0}
            counts[f"num_{task.examples}"] = count
            shown = count > BAR_FROM and "PYTEST_VERSION" not in os.environ  # nbval compares stderr
            export(directory, **counts, split=split, progress=shown)
    reading = task.read(source, paths[f"{task.name}_images"], strict=True)
    if len(reading.examples) < count:
        raise GillError(
            f"{source} holds {len(reading.examples)} {task.examples}, {count} are asked for; "
            "remove the folder or name another output_dir"
        )
    scenes = read_attributes(paths[f"{task.name}_attributes"])
    ids = list(reading.ids)[:count]  # ours: whole, or an error when they are opened
    return Dataset(task, reading.examples[:count], scenes, source, reading, ids, dict.fromkeys(ids))


def of_files(
    task: Task, json_path, image_dir, count: int | None = None, max_skipped: float = MAX_SKIPPED
) -> Dataset:
    """The examples of official files, the first `count` of them. Unusable ones are counted.

    One that lacks a picture alone is among the `count`: the run skips it, or not if it has come.
    Raises GillError where the files are broken, hold fewer, or more than `max_skipped` of them
    cannot be used.
    """
    reading = task.read(json_path, image_dir, max_skipped=max_skipped)
    if count is not None and len(reading.ids) < count:
        raise GillError(
            f"{json_path} holds {len(reading.ids)} {task.examples} that are whole, {count} are "
            "asked for; ask for fewer"
        )
    ids = list(reading.ids)[:count]
    taken = set(ids)
    there = [example for example in reading.examples if example.example_id in taken]
    faults = {name: fault for name, fault in reading.ids.items() if fault}
    return Dataset(task, there, {}, Path(json_path), reading, ids, faults)
