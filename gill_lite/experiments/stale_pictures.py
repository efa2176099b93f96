"""When do a story's pictures help to draw its last one? (mini world only)

A picture shows the scene as it was then. What a later sentence changes, it shows wrong: it is
stale. So each attribute of a story is a case of one of four kinds, by what the words and the
pictures seen so far say of it, and each kind is scored with and without the pictures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from gill_lite.errors import GillError
from gill_lite.evaluation.run import RunResult
from gill_lite.evaluation.tables import TABLES
from gill_lite.evaluation.tasks import VIST_CONTEXTS, Context
from gill_lite.report.intervals import Interval, two_level_interval, within
from gill_lite.report.scores import seed_scores
from gill_lite.world.scene import ATTRIBUTES

KINDS = {
    "untold": "only the pictures tell it",
    "steady": "told; every picture shows it right",
    "earlier": "told; changed before the last shown picture",
    "last": "told; changed after the last shown picture",
}
ALL = "all"  # in place of an attribute's name
PLAIN, FULL = VIST_CONTEXTS["captions5"], VIST_CONTEXTS["captions5_images4"]


def kind(story, scenes: dict, attribute: str, context: Context) -> str:
    """Which of KINDS an attribute of the last picture is, for who sees `context` of the story.

    scenes: what each picture shows, by its id (`Dataset.scenes`). Told: one of the attribute's
    values is a word of the captions seen. Raises GillError for a context without images.
    """
    if not context.images:
        raise GillError(f"context '{context.name}' shows no picture that could be stale")
    seen = " ".join(story.captions[-context.texts :]).split()
    if not set(ATTRIBUTES[attribute]) & set(seen):
        return "untold"
    stale = stale_pictures(story, scenes, attribute, context)
    if not any(stale):
        return "steady"
    return "last" if stale[-1] else "earlier"


def stale_pictures(story, scenes: dict, attribute: str, context: Context) -> list[bool]:
    """For each picture shown, whether it shows another value than the last, true picture."""
    truth = getattr(scenes[story.photo_ids[-1]], attribute)
    shown = story.photo_ids[-context.texts :][: context.images]
    return [getattr(scenes[photo], attribute) != truth for photo in shown]


def cases(
    stories: Sequence, scenes: dict, frame: pd.DataFrame, without: Context, pictured: Context,
    method: str = "gill",
) -> pd.DataFrame:  # fmt: skip
    """A row a (story, attribute, seed): its kind, and whether it was drawn right without and with
    images.

    frame: scores with the columns right_<attribute>, see `scores.scores_frame`. Columns: example,
    seed, attribute, kind, stale (how many pictures), without, pictured, difference. Stories without
    a score with some seed are left out. Raises GillError where a context has none.
    """
    own, rows = frame[frame["method"] == method], []
    for context in (without, pictured):
        if context.name not in set(own["context"]):
            raise GillError(f"the scores have no cell {method}/{context.name}")
    for attribute in ATTRIBUTES:
        right = own.pivot(index="example", columns=["context", "seed"],
                          values=f"right_{attribute}")  # fmt: skip
        right = right[[without.name, pictured.name]].dropna()
        seeds = right[pictured.name].columns
        for story in stories:
            if story.example_id not in right.index:
                continue
            stale = sum(stale_pictures(story, scenes, attribute, pictured))
            about = {"example": story.example_id, "attribute": attribute, "stale": stale,
                     "kind": kind(story, scenes, attribute, pictured)}  # fmt: skip
            scores = right.loc[story.example_id]
            for seed in seeds:
                a, b = scores[without.name, seed], scores[pictured.name, seed]
                rows.append(
                    {**about, "seed": seed, "without": a, "pictured": b, "difference": b - a}
                )
    return pd.DataFrame(rows)


def over_stories(part: pd.DataFrame, column: str) -> Interval:
    """The mean over stories, a story's being the mean over its cases of `cases`, with an interval
    over stories and seeds."""
    wide = part.groupby(["example", "seed"])[column].mean().unstack("seed")  # (S, J)
    return two_level_interval({"gill": wide.to_numpy()}, {"gill"})


def with_changed(run: RunResult, stories: Sequence, scenes: dict) -> RunResult:
    """The run with one more score: "changed", whether what the last sentence changed is right.

    Only stories whose last sentence changed something have it (the metric `numbers.CHANGED`).
    """
    changed = {story.example_id: changed_last(story, scenes) for story in stories}
    rows = []
    for row in run.rows:
        name = changed[row["key"].split("/", 3)[3]]
        rows.append({**row, "changed": row[f"right_{name}"]} if name else row)
    return replace(run, rows=rows)


def changed_last(story, scenes: dict) -> str | None:
    """The attribute that the last sentence of a story changed; None where it changed nothing."""
    before, after = (scenes[photo].as_dict() for photo in story.photo_ids[-2:])
    return next((name for name in ATTRIBUTES if before[name] != after[name]), None)


def kind_rows(found: pd.DataFrame, attributes: Iterable[str] = (ALL, *ATTRIBUTES)) -> list:
    """One JSON row an (attribute, kind) with cases, from `cases`; "all" takes them together.

    Keys: attribute, kind, cases, share (of all cases of the attribute), without, pictured
    (accuracies), and the paired difference's mean, low, high, n, undefined, seeds, by
    `over_stories`. adds: what the kind's cases add to the difference over all cases of the
    attribute; over the kinds, it sums to that difference.
    """
    rows = []
    for attribute in attributes:
        part = found if attribute == ALL else found[found["attribute"] == attribute]
        for name in KINDS:
            of_kind = part[part["kind"] == name]
            if of_kind.empty:
                continue
            rows.append({
                "attribute": attribute,
                "kind": name,
                "cases": len(of_kind) // of_kind["seed"].nunique(),
                "share": len(of_kind) / len(part),
                "without": over_stories(of_kind, "without").mean,
                "pictured": over_stories(of_kind, "pictured").mean,
                "adds": float(of_kind["difference"].sum() / len(part)),
                **vars(over_stories(of_kind, "difference")),
            })  # fmt: skip
    return rows


def by_count(found: pd.DataFrame) -> list[dict]:
    """One JSON row a number of stale pictures, over the attributes that the captions tell.

    Keys: stale, cases, without and pictured: each an `Interval`'s mean, low, high, n, undefined,
    seeds. Shows whether one stale picture is enough or each counts.
    """
    told = found[found["kind"] != "untold"]
    rows = []
    for stale, part in told.groupby("stale"):
        rows.append({"stale": int(stale), "cases": len(part) // part["seed"].nunique(),
                     "without": vars(within(over_stories(part, "without"), 0, 1)),
                     "pictured": vars(within(over_stories(part, "pictured"), 0, 1))})  # fmt: skip
    return rows


def kinds_frame(rows: list[dict]) -> pd.DataFrame:
    """The rows as text: accuracy without and with images, and what the images are worth."""
    shown = [
        (row["attribute"], KINDS[row["kind"]], f"{row['cases']} ({row['share']:.0%})",
         f"{row['without']:.2f}", f"{row['pictured']:.2f}", str(Interval.of(row)),
         f"{row['adds']:+.3f}") for row in rows
    ]  # fmt: skip
    columns = ["attribute", "kind", "cases", "without images", "with images", "difference", "adds"]
    return pd.DataFrame(shown, columns=columns).set_index(["attribute", "kind"])


# ---- an experiment: one picture instead of four ------------------------------------------


def one_picture_results(
    stories: Sequence, scenes: dict, frame: pd.DataFrame, scores: pd.DataFrame,
    method: str = "gill",
) -> list[dict]:  # fmt: skip
    """What one picture is worth, and all four: a JSON object for each.

    frame: scores with PLAIN and FULL; scores: those of the table "one-picture"; only
    their seeds are read.
    Keys: context (label), clip_similarity (paired difference to the same captions without images:
    mean, low, high, n, undefined), and rows (`kind_rows`; the kinds are those of FULL).
    """
    seen = frame[(frame["method"] == method) & frame["seed"].isin(scores["seed"].unique())]
    plain = seen[seen["context"] == PLAIN.name]
    made = []
    for context in (*TABLES["one-picture"].contexts, FULL):
        source = seen if context is FULL else scores
        part = source[source["context"] == context.name].assign(context=FULL.name)
        both = pd.concat([plain, part], ignore_index=True)
        found = cases(stories, scenes, both, PLAIN, FULL, method)
        signs = ((1, method, FULL.name), (-1, method, PLAIN.name))
        gap = two_level_interval(seed_scores(both, "clip_similarity", signs), {method})
        made.append({"context": context.label, "clip_similarity": vars(gap),
                     "rows": kind_rows(found, [ALL])})  # fmt: skip
    return made


def one_picture_frame(made: list[dict]) -> pd.DataFrame:
    """The differences of `one_picture_results` as text: a row a kind, a column a context."""
    columns = {}
    for one in made:
        gaps = {KINDS[row["kind"]]: row for row in one["rows"]}
        gaps["CLIP similarity, all stories"] = one["clip_similarity"]
        columns[one["context"]] = {name: str(Interval.of(row)) for name, row in gaps.items()}
    return pd.DataFrame(columns)
