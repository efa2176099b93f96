"""PartiPrompts with the official GILL annotations: better retrieved, or better generated?

Five people voted on each of 1,632 prompts: `gen`, `ret` or `same` (paper §3, deciding).
"""

import csv
from collections import Counter
from dataclasses import dataclass

from gill_lite.datasets.reading import Reading
from gill_lite.errors import GillError
from gill_lite.files import read_text

VOTES = ("gen", "ret", "same")
COLUMNS = ("Prompt", "Category", "Challenge", "Note", "Decisions")


@dataclass(frozen=True)
class Prompt:
    """One prompt, the votes it got in the order of the annotators, and its label."""

    text: str
    category: str
    challenge: str
    note: str
    votes: tuple[str, ...]
    label: str


def confident_label(votes) -> str:
    """The official rule: `gen` or `ret` where the annotators agree enough, else `same`.

    Four votes for one side decide, and so do three where the other side has at most one.
    """
    counts = Counter(votes)
    for side, other in (("gen", "ret"), ("ret", "gen")):
        if counts[side] >= 4 or (counts[side] == 3 and counts[other] <= 1):
            return side
    return "same"


def read_partiprompts(alignment_tsv) -> Reading:
    """Read `PartiPromptsAllDecisions_Alignment.tsv`; every row is an example.

    Raises GillError naming the file and line where the format is broken. Quotation marks are
    part of the prompts, not of the format.
    """
    lines = read_text(alignment_tsv, "annotation file").split("\n")
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise GillError(
            f"annotation file {alignment_tsv} must have the columns {', '.join(COLUMNS)}"
        )
    prompts = [_prompt(row, reader.line_num, alignment_tsv) for row in reader]
    if not prompts:
        raise GillError(f"annotation file {alignment_tsv} holds no prompts; fetch it again")
    return Reading(prompts, len(prompts))


def _prompt(row: dict, line: int, path) -> Prompt:
    if None in row or None in row.values():
        raise GillError(f"line {line} of {path} does not have {len(COLUMNS)} columns")
    votes = tuple(vote.strip() for vote in row["Decisions"].split(","))
    unknown = sorted(set(votes) - set(VOTES))
    if unknown:
        raise GillError(f"line {line} of {path} has the unknown vote {unknown[0]!r}")
    label = confident_label(votes)
    return Prompt(row["Prompt"], row["Category"], row["Challenge"], row["Note"], votes, label)
