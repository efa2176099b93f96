"""What is drawn: the last picture of a story, the picture of a dialogue, a caption's picture.

A task says how an example of its dataset becomes a prompt, and which picture is the true one.
`of_world` and `of_files` give its examples: the mini world's, exported in the official format,
or the official files themselves; one reader reads both.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gill_lite.datasets.captions import read_captions
from gill_lite.datasets.reading import Reading
from gill_lite.datasets.visdial import read_visdial
from gill_lite.datasets.vist import read_vist
from gill_lite.errors import GillError
from gill_lite.evaluation import protocol
from gill_lite.files import only_one, sha256
from gill_lite.world.export import export, export_paths, read_attributes

BAR_FROM = 50  # so many examples take longer to export than a progress bar is worth


@dataclass(frozen=True)
class Task:
    """One dataset as an evaluation sees it."""

    name: str  # in data/claims.csv, data/paper_results.csv and options
    examples: str  # "stories", "dialogues": what is counted
    contexts: dict[str, protocol.Context]
    read: Callable  # (json, image folder, strict=) -> Reading
    prompt: Callable  # (example, context, image_size) -> texts and pictures for GILL
    text: Callable  # (example, context) -> text for Stable Diffusion
    target: Callable  # example -> (id, path) of the true picture


VIST = Task(
    "vist",
    "stories",
    protocol.VIST_CONTEXTS,
    read_vist,
    protocol.vist_prompt,
    protocol.vist_text,
    lambda story: (story.photo_ids[-1], story.image_paths[-1]),
)
VISDIAL = Task(
    "visdial",
    "dialogues",
    protocol.VISDIAL_CONTEXTS,
    read_visdial,
    protocol.visdial_prompt,
    protocol.visdial_text,
    lambda dialogue: (str(dialogue.image_id), dialogue.image_path),
)


CAPTIONS = Task(
    "captions",
    "captions",
    {"single_caption": protocol.Context("single_caption", 1, 0, "a single caption")},
    read_captions,
    lambda pair, context, image_size=None: [pair.caption],
    lambda pair, context: pair.caption,
    lambda pair: (pair.image, pair.image_path),
)


class Dataset(NamedTuple):
    """Examples to score."""

    task: Task
    examples: list
    scenes: dict  # what each true picture shows, by its id; empty for real photographs
    source: Path  # the JSON file
    reading: Reading  # what was usable of the file

    def about(self) -> dict:
        """What a results file says about the data."""
        reading = self.reading
        return {
            "sha256": sha256(self.source),
            "eligible": reading.eligible,
            "usable": len(reading.examples),
            "skipped": dict(reading.skipped),
            "taken": len(self.examples),
        }


def of_world(task: Task, directory, count: int) -> Dataset:
    """The mini world's first `count` examples, exported once into `directory`.

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
            export(directory, **counts, progress=shown)
    reading = task.read(source, paths[f"{task.name}_images"], strict=True)
    if len(reading.examples) < count:
        raise GillError(
            f"{source} holds {len(reading.examples)} {task.examples}, {count} are asked for; "
            "remove the folder or name another output_dir"
        )
    scenes = read_attributes(paths[f"{task.name}_attributes"])
    return Dataset(task, reading.examples[:count], scenes, source, reading)


def of_files(task: Task, json_path, image_dir, count: int | None = None) -> Dataset:
    """The examples of official files, the first `count` of them. Unusable ones are counted.

    Raises GillError where the files are broken or hold fewer than `count`.
    """
    reading = task.read(json_path, image_dir)
    if count is not None and len(reading.examples) < count:
        raise GillError(
            f"{json_path} holds {len(reading.examples)} usable {task.examples}, {count} are "
            "asked for; ask for fewer"
        )
    return Dataset(task, reading.examples[:count], {}, Path(json_path), reading)
