"""VIST (Visual Storytelling), official format: five captioned pictures a story."""

from dataclasses import dataclass
from pathlib import Path

from gill_lite.datasets.reading import MAX_SKIPPED, ImageFolder, Reading, Unusable, collect, need
from gill_lite.errors import GillError
from gill_lite.files import read_json

PANELS = 5
VAL_STORIES = 4_990  # of VIST's val.story-in-sequence.json: 998 albums, five stories each


@dataclass(frozen=True)
class VistStory:
    """Five panels in the order its writer arranged them."""

    story_id: str
    captions: tuple[str, ...]
    photo_ids: tuple[str, ...]
    image_paths: tuple[Path, ...]

    @property
    def example_id(self) -> str:
        """What seeds and score rows are keyed by. Last pictures may repeat, stories do not."""
        return self.story_id


def read_vist(
    json_path, image_dir, strict: bool = False, max_skipped: float = MAX_SKIPPED
) -> Reading:
    """Read `val.story-in-sequence.json` and the folder of its pictures, `<photo id>.<suffix>`.

    strict: a story that cannot be used is an error instead of a count.
    Raises GillError naming the file where its format is broken or too much is unusable.
    """
    record = read_json(json_path, "VIST file")
    folder = ImageFolder(image_dir)
    panels = _panels_by_story(need(record, "annotations", json_path, "the file"), json_path)

    def make(item) -> VistStory:
        story_id, of_story = item
        return _story(story_id, of_story, folder, json_path)

    return collect(panels.items(), make, f"VIST file {json_path}", strict, max_skipped)


def _panels_by_story(annotations, json_path) -> dict[str, list[dict]]:
    panels: dict[str, list[dict]] = {}
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, list) or len(annotation) != 1:
            raise GillError(
                f"VIST file {json_path} is not in the official format: annotation {number} "
                "is not a list of one panel"
            )
        story_id = need(annotation[0], "story_id", json_path, f"annotation {number}")
        panels.setdefault(str(story_id), []).append(annotation[0])
    return panels


def _story(story_id, panels, folder, json_path) -> VistStory:
    who = f"story {story_id} in {json_path}"
    if len(panels) < PANELS:
        raise Unusable("fewer than five panels", f"{who} has {len(panels)} panels, not five")
    if len(panels) > PANELS:
        raise Unusable("more than five panels", f"{who} has {len(panels)} panels, not five")
    what = f"a panel of story {story_id}"
    panels = sorted(panels, key=lambda panel: _order(panel, json_path, what, who))
    if len({_order(panel, json_path, what, who) for panel in panels}) < PANELS:
        raise Unusable("repeated panel order", f"{who} gives two panels the same place")
    photo_ids = tuple(str(need(p, "photo_flickr_id", json_path, what)) for p in panels)
    captions = tuple(_text(panel, json_path, what) for panel in panels)
    if not all(caption.strip() for caption in captions):
        raise Unusable("empty caption", f"{who} has a panel without text")
    paths = tuple(folder.find(photo_id, f"story {story_id}", story_id) for photo_id in photo_ids)
    return VistStory(story_id, captions, photo_ids, paths)


def _text(panel: dict, json_path, what: str) -> str:
    """A panel's caption: tokenised, as all of the real file is, or else as it was written."""
    if panel.get("text") is None and panel.get("original_text") is not None:
        return str(panel["original_text"])
    text = need(panel, "text", json_path, what)
    return "" if text is None else str(text)


def _order(panel: dict, json_path, what: str, who: str) -> int:
    value = need(panel, "worker_arranged_photo_order", json_path, what)
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise Unusable("broken panel order", f"{who} has the panel order {value!r}") from error
