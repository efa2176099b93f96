"""How an evaluation is run: what the model sees, which noise, under which names (paper §4).

The run itself is in `run`; its names are here too, so that a notebook imports one module.
"""

from dataclasses import dataclass, field, fields
from difflib import get_close_matches

from PIL import Image

from gill_lite.answering.drawing import example_seed
from gill_lite.datasets.images import open_image, squash
from gill_lite.errors import GillError
from gill_lite.evaluation.run import (
    RunResult,
    WorkItem,
    run_resumable,
    scores_frame,
    story_table,
    work_items,
)

__all__ = [
    "CORRECTED", "OFFICIAL", "VISDIAL_CONTEXTS", "VIST_CONTEXTS", "Context", "Protocol",
    "RunResult", "WorkItem", "example_seed", "get_protocol", "markdown_table", "run_resumable",
    "scores_frame", "story_table", "visdial_prompt", "visdial_text", "vist_prompt", "vist_text",
    "work_items",
]  # fmt: skip


def _choice(what: str, official: str, corrected: str):
    """A field of `Protocol` and what docs/protocols.md says of it."""
    return field(metadata={"what": what, "official": official, "corrected": corrected})


@dataclass(frozen=True)
class Protocol:
    """The choices in which the official evaluation and ours differ, and nothing else."""

    name: str
    one_generator: bool = _choice(
        "the noise of a picture",
        "one generator for the whole run of a method in a context: the noise depends on how many "
        "pictures were drawn before",
        "a generator for each example, seeded by the run's seed and the example's id alone",
    )
    output_key: str = _choice(
        'the name a picture is kept under, "target" or "example"',
        "the id of the true picture: of examples that share it all are scored with the picture "
        "drawn last, and LPIPS counts that picture once",
        "the id of the example: every example is scored with its own picture",
    )
    visdial_lpips: bool = _choice(
        "LPIPS on VisDial",
        "none: the script pairs files of the same name, and a drawn and a true picture never "
        "have the same",
        "each drawn picture against its dialogue's true one",
    )


CORRECTED = Protocol("corrected", one_generator=False, output_key="example", visdial_lpips=True)
OFFICIAL = Protocol("official", one_generator=True, output_key="target", visdial_lpips=False)


def get_protocol(name: str) -> Protocol:
    """The protocol called `name`. Raises GillError naming the two there are."""
    for protocol in (CORRECTED, OFFICIAL):
        if protocol.name == name:
            return protocol
    raise GillError(f"unknown protocol '{name}'; known are corrected and official")


def markdown_table() -> str:
    """The table of docs/protocols.md, from the dataclass: a row a choice."""
    lines = ["| choice | what it decides | official | corrected |", "|:--|:--|:--|:--|"]
    for choice in fields(Protocol)[1:]:
        cells = [f"`{getattr(p, choice.name)!r}`: {choice.metadata[p.name]}"
                 for p in (OFFICIAL, CORRECTED)]  # fmt: skip
        lines.append(f"| `{choice.name}` | {choice.metadata['what']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


# ---- contexts: how much of a story or dialogue the model sees ----------------------------


@dataclass(frozen=True)
class Context:
    """The last `texts` captions (or first rounds) and the `images` pictures between them."""

    name: str
    texts: int
    images: int
    label: str  # column heading


VIST_CONTEXTS = {
    context.name: context
    for context in (
        Context("caption1", 1, 0, "1 caption"),
        Context("captions5", 5, 0, "5 captions"),
        Context("captions5_images4", 5, 4, "5 captions, 4 images"),
    )
}
VISDIAL_CONTEXTS = {
    f"rounds{n}": Context(f"rounds{n}", n, 0, f"{n} round{'s' * (n > 1)}") for n in (1, 5, 10)
}


def _context(context, known: dict[str, Context]) -> Context:
    if isinstance(context, Context):
        return context
    if context not in known:
        close = get_close_matches(str(context), known, n=1, cutoff=0.3)
        hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
        raise GillError(f"unknown context '{context}'; {hint}")
    return known[context]


def vist_prompt(story, context, image_size: int | None = None) -> list[str | Image.Image]:
    """What GILL sees of a story: each caption, then its picture, the last caption last.

    context: a name in VIST_CONTEXTS, or a Context (the last `texts` panels, of which the
    first `images` show their picture; the last panel's is what is asked for).
    image_size: pictures squashed to a square of so many pixels, as the official evaluation does.
    """
    context = _context(context, VIST_CONTEXTS)
    panels = list(zip(story.captions, story.image_paths, strict=True))[-context.texts :]
    if not 0 <= context.images < len(panels):
        raise GillError(f"context '{context.name}' shows {context.images} images, too many")
    prompt: list[str | Image.Image] = []
    for number, (caption, path) in enumerate(panels):
        prompt.append(caption)
        if number < context.images:
            image = open_image(path)
            prompt.append(image if image_size is None else squash(image, image_size))
    return prompt


def vist_text(story, context) -> str:
    """What Stable Diffusion sees of a story: the captions, joined by spaces.

    Raises GillError for a context with images: it takes none.
    """
    context = _context(context, VIST_CONTEXTS)
    if context.images:
        raise GillError(f"Stable Diffusion takes no images, so there is no '{context.name}' for it")
    return " ".join(story.captions[-context.texts :])


def visdial_text(dialogue, context) -> str:
    """The first rounds of a dialogue as the official evaluation writes them; GILL and SD alike."""
    context = _context(context, VISDIAL_CONTEXTS)
    rounds = dialogue.rounds[: context.texts]
    return "\n".join(f"Q: {question}?\nA: {answer}" for question, answer in rounds)


def visdial_prompt(dialogue, context, image_size: int | None = None) -> list[str]:
    """What GILL sees of a dialogue: its first rounds as one text, no caption and no picture."""
    return [visdial_text(dialogue, context)]
