"""A conversation: turns of texts and pictures that can be taken back, saved and replayed.

GILL has no memory: all that was said so far is the prompt of the next answer.
"""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gill_lite.answering.answers import Generated, Response, Retrieved, Settings, ShownPicture
from gill_lite.answering.prompts import checked
from gill_lite.datasets.images import open_image
from gill_lite.errors import GillError
from gill_lite.files import read_json, write_bytes, write_json

FILE = "conversation.json"
KINDS = {"retrieved": (Retrieved, "id"), "generated": (Generated, "seed")}  # and what tells them
OURS = ("run_seed", "own_pictures")  # of a turn's settings; the others are of its answer


@dataclass
class Turn:
    """What was said, and the answer to it."""

    said: list  # str and PIL images
    answer: Response
    settings: dict  # that it was answered with
    left_out: int = 0  # turns at the beginning that its prompt had no room for

    def items(self, own_pictures: bool) -> list:
        """What a later prompt holds of it; of the answer's pictures those it showed, or none."""
        shown = [
            item.image if isinstance(item, ShownPicture) else item
            for item in self.answer
            if own_pictures or isinstance(item, str)
        ]
        return [*self.said, *(item for item in shown if item is not None)]


class Conversation:
    """Turns with a Responder. `settings` are those of its answers, see `answers.Settings`.

    run_seed: seed of the noise, the same in each turn, so that pictures differ by what was said.
    own_pictures: whether pictures that GILL has shown go back into its prompts; officially not.
    """

    def __init__(self, responder, run_seed: int = 0, own_pictures: bool = False, **settings):
        self.responder = responder
        self.settings = {"run_seed": run_seed, "own_pictures": own_pictures, **settings}
        _answers(self.settings)
        self.turns: list[Turn] = []

    def say(self, *items, on_text=None, on_step=None, **settings) -> Response:
        """Answer texts and PIL images. settings: of this turn alone; on_text, on_step: `respond`.

        Where the LM's positions end, whole turns at the beginning are left out of the prompt and
        counted in the turn. No picture is retrieved that was before. Raises GillError, and
        leaves the conversation as it was, for items or settings that will not do.
        """
        said, how = checked(items), {**self.settings, **settings}
        prompt, left_out = self._context(said, how)
        hooks = {"on_text": on_text, "on_step": on_step}
        answer = self.responder.respond(
            prompt, how["run_seed"], seen=self._seen(), **hooks, **_answers(how)
        )
        self.turns.append(Turn(said, answer, how, left_out))
        return answer

    def undo(self) -> Turn:
        """Take the last turn back. Raises GillError where there is none."""
        if not self.turns:
            raise GillError("there is no turn to take back; say something first")
        return self.turns.pop()

    def edit(self, place: int, *items, **settings) -> Response:
        """Say something else in turn `place` (0 is the first); what came behind it is dropped."""
        if not 0 <= place < len(self.turns):
            raise GillError(f"there is no turn {place}; there are {len(self.turns)}, from 0 on")
        kept, self.turns = self.turns, self.turns[:place]
        try:
            return self.say(*items, **{**kept[place].settings, **settings})
        except BaseException:
            self.turns = kept
            raise

    def replay(self) -> "Conversation":
        """The same things said anew, each with the settings of its turn."""
        again = Conversation(self.responder, **self.settings)
        for turn in self.turns:
            again.say(*turn.said, **turn.settings)
        return again

    def _seen(self) -> list[str]:
        """Ids of all pictures that were retrieved."""
        shown = [picture for turn in self.turns for picture in turn.answer.pictures]
        return [found.id for picture in shown for found in picture.retrieved]

    def _context(self, said: list, how: dict) -> tuple[list, int]:
        """The prompt of the next answer, and how many turns it leaves out."""
        gill, prompts = self.responder.gill, self.responder.prompts
        room = getattr(gill.lm.config, "max_position_embeddings", None)
        more = Settings.of(_answers(how)).positions(gill.config.num_img_tokens)
        for left_out in range(len(self.turns) + 1):
            earlier = [turn.items(how["own_pictures"]) for turn in self.turns[left_out:]]
            prompt = [item for items in [*earlier, said] for item in items]
            if room is None or len(prompts.label_ids(prompt)) + more <= room:
                break
        return prompt, left_out

    # ---- files ---------------------------------------------------------------------------

    def save(self, folder) -> Path:
        """Write conversation.json into `folder`, and its pictures beside it."""
        folder = Path(folder)

        def keep(name: str, image: Image.Image) -> str:
            content = io.BytesIO()
            image.save(content, "PNG")
            write_bytes(folder / f"{name}.png", content.getvalue())
            return f"{name}.png"

        turns = [
            {
                "said": [_kept(x, f"turn{n:02d}_said{i}", keep) for i, x in enumerate(t.said, 1)],
                "answer": [_kept(x, f"turn{n:02d}_{i}", keep) for i, x in enumerate(t.answer, 1)],
                "settings": t.settings,
                "left_out": t.left_out,
            }
            for n, t in enumerate(self.turns, 1)
        ]
        about = {"profile": self.responder.profile.name, "settings": self.settings}
        return write_json(folder / FILE, {**about, "turns": turns})

    @classmethod
    def load(cls, folder, responder) -> "Conversation":
        """Read what `save` wrote. Raises GillError naming a file that is missing or broken."""
        folder = Path(folder)
        record = read_json(folder / FILE, "conversation")
        try:
            conversation = cls(responder, **record["settings"])
            for turn in record["turns"]:
                said, answer = ([_read(x, folder) for x in turn[k]] for k in ("said", "answer"))
                how = {**conversation.settings, **turn["settings"]}
                _answers(how)
                conversation.turns.append(Turn(said, Response(answer), how, turn["left_out"]))
        except (KeyError, TypeError, AttributeError) as error:
            fault = f"{type(error).__name__}: {error}"
            raise GillError(
                f"{folder / FILE} is no conversation ({fault}); save it anew"
            ) from error
        return conversation


def _answers(how: dict) -> dict:
    """Of a turn's settings those of its answer. Raises GillError for one that will not do."""
    options = {name: value for name, value in how.items() if name not in OURS}
    Settings.of(options)
    return options


def picture_names(prefix: str, shown: ShownPicture) -> dict[str, list[str]]:
    """The files' names, without their ending, of a shown picture's candidates of each kind."""
    return {
        kind: [f"{prefix}_{kind}{i}" for i in range(1, len(getattr(shown, kind)) + 1)]
        for kind in KINDS
    }


def _kept(item, name: str, keep) -> dict:
    """An item as JSON. keep: (name, picture) -> the name of its file."""
    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, Image.Image):
        return {"picture": keep(name, item)}
    record = {name: value for name, value in vars(item).items() if name not in KINDS}
    for kind, names in picture_names(name, item).items():
        told = KINDS[kind][1]
        record[kind] = [
            {"picture": keep(own, one.image), "score": one.score, told: getattr(one, told)}
            for own, one in zip(names, getattr(item, kind), strict=True)
        ]
    return record


def _read(record: dict, folder: Path):
    """The inverse of `_kept`."""
    if "text" in record:
        return str(record["text"])
    if "picture" in record:
        return _open(record["picture"], folder)
    kinds = {
        kind: tuple(make(_open(r["picture"], folder), r["score"], r[told]) for r in record[kind])
        for kind, (make, told) in KINDS.items()
    }
    chances = record["probabilities"]
    rest = {
        "probabilities": chances and tuple(chances),
        "passed_over": tuple(record["passed_over"]),
    }
    return ShownPicture(**{**record, **kinds, **rest})


def _open(name: str, folder: Path) -> Image.Image:
    if Path(name).name != name:
        raise GillError(f"{folder / FILE} names the picture {name!r}; it must lie beside the file")
    return open_image(folder / name)
