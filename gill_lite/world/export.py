"""Write pictures and words in the official file formats: VIST, VisDial, caption TSV.

The three writers take anything (the tests give them photographs); `export` gives them the
mini world. Beside each set lies `attributes.jsonl`, what every picture shows, which nothing
reads but attribute accuracy. The same arguments give the same bytes.
"""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from gill_lite.errors import GillError
from gill_lite.files import name_on_disk, read_text, whole_folder, write_json, write_text
from gill_lite.world.language import caption, dialogue, story
from gill_lite.world.render import render
from gill_lite.world.scene import Scene, rng_for, sample_scene


class ExportPaths(NamedTuple):
    """Where an export keeps what."""

    vist_json: Path
    vist_images: Path
    vist_attributes: Path
    visdial_json: Path
    visdial_images: Path
    visdial_attributes: Path
    captions_tsv: Path
    captions_images: Path
    captions_attributes: Path


def export_paths(directory) -> ExportPaths:
    """The files of an export in `directory`, by the names the official releases use."""
    root = Path(directory)
    vist, visdial, captions = root / "vist", root / "visdial", root / "captions"
    return ExportPaths(
        vist / "val.story-in-sequence.json", vist / "val_images", vist / "attributes.jsonl",
        visdial / "visdial_1.0_val.json", visdial / "VisualDialog_val2018",
        visdial / "attributes.jsonl",
        captions / "cc3m_val.tsv", captions / "images", captions / "attributes.jsonl",
    )  # fmt: skip


def export(
    directory, num_stories: int = 300, num_dialogues: int = 300, num_captions: int = 300,
    seed: int = 0, split: str = "seen", progress: bool = False,
) -> ExportPaths:  # fmt: skip
    """Write the world's evaluation sets into the new folder `directory`, whole or not at all.

    split: "seen", "novel" or "any" scenes; of a novel story, the last. The example of a number
    depends on (seed, split, number) alone, so a larger export begins with the smaller one.
    Raises GillError where a number or split is wrong, or `directory` is there and not empty.
    """
    _check_arguments(num_stories, num_dialogues, num_captions, split)
    with whole_folder(directory) as folder:
        paths = export_paths(folder)
        bar = tqdm(total=num_stories + num_dialogues + num_captions, disable=not progress,
                   desc="export", unit="example")  # fmt: skip
        with bar:
            _export_vist(paths, num_stories, (seed, split), bar)
            _export_visdial(paths, num_dialogues, (seed, split), bar)
            _export_captions(paths, num_captions, (seed, split), bar)
    return export_paths(directory)


def _check_arguments(num_stories, num_dialogues, num_captions, split) -> None:
    counts = {"num_stories": num_stories, "num_dialogues": num_dialogues,
              "num_captions": num_captions}  # fmt: skip
    for name, count in counts.items():
        if not isinstance(count, int) or count < 0:
            raise GillError(f"{name} must be a whole number of at least 0, not {count!r}")
    if split not in ("seen", "novel", "any"):
        raise GillError(f"split must be seen, novel or any, not {split!r}")


def _export_vist(paths: ExportPaths, count: int, key: tuple, bar) -> None:
    scenes: dict[str, Scene] = {}

    def stories():
        for number in range(count):
            rng = rng_for("export", "vist", *key, number)
            told = story(rng, split=key[1])
            panels = []
            for place, (text, scene) in enumerate(zip(told.captions, told.scenes, strict=True)):
                photo_id = str(1_000_000 + number * 10 + place)
                scenes[photo_id] = scene
                panels.append((photo_id, text, render(scene, rng)))
            bar.update()
            yield str(30_000 + number), panels

    write_vist(paths.vist_json, paths.vist_images, stories())
    write_attributes(paths.vist_attributes, scenes)


def _export_visdial(paths: ExportPaths, count: int, key: tuple, bar) -> None:
    scenes: dict[str, Scene] = {}

    def dialogues():
        for number in range(count):
            rng = rng_for("export", "visdial", *key, number)
            scene = sample_scene(rng, key[1])
            rounds = dialogue(scene, rng)
            image_id = 200_000 + number
            scenes[str(image_id)] = scene
            bar.update()
            yield image_id, caption(scene, rng), rounds, render(scene, rng)

    write_visdial(paths.visdial_json, paths.visdial_images, dialogues())
    write_attributes(paths.visdial_attributes, scenes)


def _export_captions(paths: ExportPaths, count: int, key: tuple, bar) -> None:
    scenes: dict[str, Scene] = {}

    def pairs():
        for number in range(count):
            rng = rng_for("export", "captions", *key, number)
            scene = sample_scene(rng, key[1])
            scenes[f"{number:06d}.png"] = scene
            bar.update()
            yield caption(scene, rng), f"{number:06d}.png", render(scene, rng)

    write_captions(paths.captions_tsv, paths.captions_images, pairs())
    write_attributes(paths.captions_attributes, scenes)


def write_vist(json_path, image_dir, stories: Iterable[tuple[str, list]]) -> None:
    """Write stories `(story id, [(photo id, text, PIL image) x5])` in VIST's format.

    Pictures are saved as `<photo id>.png`.
    """
    images, annotations = [], []
    Path(image_dir).mkdir(parents=True, exist_ok=True)
    for story_id, panels in stories:
        for place, (photo_id, text, image) in enumerate(panels):
            _save(image, Path(image_dir) / f"{photo_id}.png")
            images.append({"id": photo_id, "album_id": story_id, "title": ""})
            annotations.append([{
                "story_id": story_id, "album_id": story_id, "photo_flickr_id": photo_id,
                "worker_arranged_photo_order": place, "text": text, "original_text": text,
                "setting": "first-2-pick-and-tell",
            }])  # fmt: skip
    write_json(json_path, {"type": "story-in-sequence", "images": images, "albums": [],
                           "annotations": annotations})  # fmt: skip


def write_visdial(json_path, image_dir, dialogues: Iterable[tuple]) -> None:
    """Write dialogues `(image id, caption, [(question, answer) x10], PIL image)` as VisDial 1.0.

    VisDial's questions end before their question mark, which the evaluation adds: one mark is
    taken off here, and only the mark, so that the evaluation sees the words as they were.
    """
    questions: dict[str, int] = {}
    answers: dict[str, int] = {}
    dialogs = []
    Path(image_dir).mkdir(parents=True, exist_ok=True)
    for image_id, text, rounds, image in dialogues:
        _save(image, Path(image_dir) / f"VisualDialog_val2018_{image_id:012d}.png")
        turns = []
        for question, answer in rounds:
            question = question.removesuffix("?")
            turns.append({"question": questions.setdefault(question, len(questions)),
                          "answer": answers.setdefault(answer, len(answers))})  # fmt: skip
        dialogs.append({"image_id": image_id, "caption": text, "dialog": turns})
    data = {"dialogs": dialogs, "questions": list(questions), "answers": list(answers)}
    write_json(json_path, {"data": data, "split": "val2018", "version": "1.0"})


def write_captions(tsv_path, image_dir, pairs: Iterable[tuple]) -> None:
    """Write pairs `(caption, image file name, PIL image)` as a TSV headed caption, image.

    Raises GillError for a caption with a line break: a pair is one line.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(("caption", "image"))
    Path(image_dir).mkdir(parents=True, exist_ok=True)
    for caption_text, name, image in pairs:
        if "\n" in caption_text or "\r" in caption_text:
            raise GillError(f"the caption of {name} has a line break; {tsv_path} cannot hold it")
        _save(image, Path(image_dir) / name_on_disk(name))
        writer.writerow((caption_text, name))
    write_text(tsv_path, text.getvalue())


def write_attributes(path, scenes: dict[str, Scene]) -> None:
    """Write image id -> scene, one JSON object a line."""
    lines = [json.dumps({"image_id": image_id, **scene.as_dict()}) + "\n"
             for image_id, scene in scenes.items()]  # fmt: skip
    write_text(path, "".join(lines))


def read_attributes(path) -> dict[str, Scene]:
    """Image id -> scene, as `write_attributes` wrote them. Raises GillError naming the line."""
    scenes = {}
    for number, line in enumerate(read_text(path, "attribute file").splitlines(), start=1):
        try:
            record = json.loads(line)
            image_id = record.pop("image_id")
            scenes[image_id] = Scene(**record)
        except (ValueError, KeyError, TypeError) as error:
            raise GillError(f"line {number} of {path} is not an image's attributes") from error
    return scenes


def _save(image: Image.Image, path: Path) -> None:
    image.save(path)  # inside a folder that `export` renames only when it is whole
