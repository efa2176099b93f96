"""VisDial (Visual Dialog) 1.0, official format: ten question-and-answer rounds a picture."""

from dataclasses import dataclass
from pathlib import Path

from gill_lite.datasets.reading import MAX_SKIPPED, ImageFolder, Reading, Unusable, collect, need
from gill_lite.errors import GillError
from gill_lite.files import read_json

ROUNDS = 10
VAL_DIALOGUES = 2_064  # of visdialog.org's visdial_1.0_val.json, a picture each
IMAGE_STEM = "VisualDialog_val2018_{:012d}"


@dataclass(frozen=True)
class Dialogue:
    """Ten rounds about one picture. Questions lack their question mark, as in the files."""

    dialogue_id: str
    image_id: int
    caption: str
    rounds: tuple[tuple[str, str], ...]
    image_path: Path

    @property
    def example_id(self) -> str:
        """What seeds and score rows are keyed by."""
        return self.dialogue_id


def read_visdial(
    json_path, image_dir, strict: bool = False, max_skipped: float = MAX_SKIPPED
) -> Reading:
    """Read `visdial_1.0_val.json` and its folder of `VisualDialog_val2018_<12 digits>` images.

    strict: a dialogue that cannot be used is an error instead of a count.
    Raises GillError naming the file where its format is broken or too much is unusable.
    """
    record = read_json(json_path, "VisDial file")
    data = need(record, "data", json_path, "the file")
    questions = need(data, "questions", json_path, "'data'")
    answers = need(data, "answers", json_path, "'data'")
    folder = ImageFolder(image_dir)
    seen: set[int] = set()

    def make(dialog) -> Dialogue:
        image_id = int(need(dialog, "image_id", json_path, "a dialogue"))
        who = f"dialogue about image {image_id} in {json_path}"
        if image_id in seen:
            raise Unusable("repeated image id", f"{who} comes twice")
        seen.add(image_id)
        rounds = _rounds(need(dialog, "dialog", json_path, who), questions, answers, who, json_path)
        path = folder.find(IMAGE_STEM.format(image_id), who, str(image_id))
        return Dialogue(str(image_id), image_id, str(dialog.get("caption", "")), rounds, path)

    dialogs = need(data, "dialogs", json_path, "'data'")
    if _lacks_answers(dialogs):
        raise GillError(
            f"VisDial file {json_path} is a split without its last answers "
            f"({record.get('split', 'test')}), and ten whole rounds are needed; take "
            "visdial_1.0_val.json and its pictures"
        )
    return collect(dialogs, make, f"VisDial file {json_path}", strict, max_skipped)


def _lacks_answers(dialogs) -> bool:
    """Whether every dialogue ends in a question, as in the test split."""
    turns = [dialog.get("dialog") or [{}] for dialog in dialogs if isinstance(dialog, dict)]
    return bool(turns) and all("answer" not in rounds[-1] for rounds in turns)


def _rounds(turns, questions, answers, who, json_path) -> tuple[tuple[str, str], ...]:
    if len(turns) < ROUNDS:
        raise Unusable("fewer than ten rounds", f"{who} has {len(turns)} rounds, not ten")
    rounds = []
    for turn in turns[:ROUNDS]:
        question = need(turn, "question", json_path, f"a round of the {who}")
        answer = need(turn, "answer", json_path, f"a round of the {who}")
        if not (0 <= question < len(questions) and 0 <= answer < len(answers)):
            raise Unusable(
                "text number out of range",
                f"{who} names question {question} or answer {answer}, which the file lacks",
            )
        rounds.append((questions[question], answers[answer]))
    return tuple(rounds)
