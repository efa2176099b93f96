"""The official evaluation's choices and ours: which noise, under which names (paper §4)."""

from dataclasses import dataclass, field, fields

from gill_lite.errors import GillError


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


def choices_markdown() -> str:
    """The table of docs/protocols.md, from the dataclass: a row a choice."""
    lines = ["| choice | what it decides | official | corrected |", "|:--|:--|:--|:--|"]
    for choice in fields(Protocol)[1:]:
        cells = [f"`{getattr(p, choice.name)!r}`: {choice.metadata[p.name]}"
                 for p in (OFFICIAL, CORRECTED)]  # fmt: skip
        lines.append(f"| `{choice.name}` | {choice.metadata['what']} | {' | '.join(cells)} |")
    return "\n".join(lines)
