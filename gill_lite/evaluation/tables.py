"""The catalogue of tables, by what one types. A new table is one entry in TABLES.

`came_out` tells what the committed run took and a score to expect; a test holds both against
results/*.json. A table with a notebook is made by `gill-lite reproduce --tables ...`, and all
that is drawn or retrieved by `gill-lite evaluate ...`, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gill_lite.errors import GillError
from gill_lite.evaluation.protocol import Protocol
from gill_lite.evaluation.tasks import (
    CAPTIONS,
    DRAWINGS,
    EDITS,
    PROMPTS,
    SCENES,
    VISDIAL,
    VIST,
    Context,
    Task,
    captions,
)
from gill_lite.files import DATA
from gill_lite.report.numbers import (
    EDITING,
    MAPPERS,
    METHODS,
    METRICS,
    RECALLS,
    RUNGS,
    SEEING,
    TOKENS,
)
from gill_lite.training.recipes import RECIPES, SEEDS, lms_there, seeds_of, there


class CameOut(NamedTuple):
    """Of the committed run: minutes on two cores, and one of its scores as the table calls it."""

    minutes: float
    method: str
    context: str
    metric: str
    mean: float


@dataclass(frozen=True)
class Table:
    """A table: a dataset, how much of it is seen, who answers, and what is measured."""

    typed: str  # behind `evaluate` or `reproduce --tables`
    name: str  # of its results file
    task: Task
    title: str
    contexts: tuple[Context, ...]
    notebook: str = ""  # that computes and shows it
    came_out: CameOut | None = None  # None: a part of another table's results
    baselines: tuple[str, ...] = ("sd",)  # methods that take text alone and have no seeds
    learned: tuple[str, ...] = ("gill",)  # methods with seeds of their joints, see recipes
    seeds: tuple[int, ...] = ()  # of joints; all that ship unless given
    count: int = 300  # examples of the mini world, but see MANY
    metrics: tuple[str, ...] = tuple(METRICS)
    scorer: str = "gill_lite.evaluation.scorer:Scorer"  # what answers and scores, loaded late
    topic: str = ""  # in data/claims.csv and data/paper_results.csv; the task's name unless given
    labels: dict[str, str] = field(default_factory=lambda: METHODS)  # method -> heading
    text_contexts: tuple[Context, ...] = ()  # of the baselines; else those without images
    beside: tuple[str, ...] = ()  # tables that its notebook computes, too
    group: str = "all"  # what names it together with others: "all" are those of the paper
    protocols: bool = False  # whether the notebook has the official protocol as well
    many: bool = False  # whether contexts of MANY have more examples
    split: str = "seen"  # of the mini world's scenes; see `of_split`

    def __post_init__(self):
        object.__setattr__(self, "topic", self.topic or self.task.name)
        plain = tuple(context for context in self.contexts if not context.images)
        object.__setattr__(self, "text_contexts", self.text_contexts or plain)
        shipped = sorted({seed for name in self.learned for seed in there(name)})
        object.__setattr__(self, "seeds", self.seeds or tuple(shipped))

    @property
    def command(self) -> str:
        """What makes it."""
        return f"gill-lite {'reproduce --tables' if self.notebook else 'evaluate'} {self.typed}"

    @property
    def ready(self) -> bool:
        """Whether all that it compares ships; a ladder may lack rungs, the family its weights."""
        shipped = self.group != "family" or (DATA / "family").is_dir()
        return shipped and all(there(name) for name in self.learned)

    @property
    def parts(self) -> tuple["Table", ...]:
        """All that its notebook computes: itself and the tables beside it."""
        return (self, *(TABLES[name] for name in self.beside))

    @property
    def sizes(self) -> dict[str, int]:
        """The notebook's parameters that say how many examples to score, and their defaults."""
        return {f"num_{part.task.examples}": part.count for part in self.parts}

    @property
    def all_contexts(self) -> tuple[Context, ...]:
        """Those of the baselines, then those of learned methods alone."""
        return tuple(dict.fromkeys((*self.text_contexts, *self.contexts)))

    def seeds_for(self, asked: Sequence[int] | None) -> tuple[int, ...]:
        """Those asked for, or all; where only one ships, that one whatever is asked for."""
        return tuple(asked) if asked and len(self.seeds) > 1 else self.seeds

    def cells(self, seeds: Sequence[int]) -> list[tuple[str, str, int]]:
        """(method, context, seed): baselines once, what is learned with each of its seeds."""
        cells = [(m, context.name, 0) for m in self.baselines for context in self.text_contexts]
        return cells + [
            (method, context.name, seed)
            for method in self.learned
            for seed in seeds_of(method, seeds)
            for context in self.contexts
        ]

    def elsewhere(self) -> "Table":
        """The table with what is to be had outside the mini world: no GLIDE, no other LMs."""
        baselines = tuple(name for name in self.baselines if name != "glide")
        learned = tuple(name for name in self.learned if not RECIPES[name].lm)
        return replace(self, baselines=baselines, learned=learned)

    def of(self, methods: Sequence[str]) -> "Table":
        """The table with these methods alone. Raises GillError for one it does not have."""
        known = (*self.baselines, *self.learned)
        for name in methods:
            if name not in known:
                raise GillError(f"table '{self.typed}' has no method '{name}'; known: {known}.")
        learned = tuple(name for name in self.learned if name in methods)
        if not learned:
            raise GillError(f"name one of the learned methods: {', '.join(self.learned)}")
        baselines = tuple(name for name in self.baselines if name in methods)
        return replace(self, baselines=baselines, learned=learned)

    def size(self, cell: tuple[str, str, int], count: int | None = None) -> int:
        """How many examples (method, context, seed) is scored on, of `count` or the table's."""
        many = self.many and not getattr(RECIPES.get(cell[0]), "lm", None)
        return (count or self.count) * (MANY.get(cell[1], 1) if many else 1)

    def of_split(self, split: str) -> "Table":
        """The table on examples whose (last) scene is of this split; "seen" is the table itself.

        Another split has files and a title of its own, and GILL on its own language model alone.
        """
        if split == "seen":
            return self
        title = f"{self.title} (scenes never trained)"
        return replace(self.elsewhere(), name=f"{self.name}_{split}", title=title, split=split,
                       many=False)  # fmt: skip

    def under(self, protocol: Protocol) -> "Table":
        """The table as `protocol` has it; the official one has files and a title of its own."""
        if protocol.name == "corrected":
            return self
        name, title = f"{self.name}_{protocol.name}", f"{self.title} ({protocol.name} protocol)"
        return replace(self, name=name, title=title)


CAPTION1, CAPTIONS5, FULL = VIST.contexts.values()
REVERSED = Context("captions5_reversed", 5, 0, "5 captions, last first", reverse=True)
ROUNDS = tuple(VISDIAL.contexts.values())
# Contexts in which the paper's methods differ least have so many times the examples, in Tables 1
# and 2 of the mini world; GILL on another language model is compared with itself alone.
MANY = {"caption1": 4, "rounds1": 4}

TABLES = {
    table.typed: table
    for table in (
        Table(
            "1", "table1_vist", VIST,
            "Table 1: the last picture of a VIST story, by how much of the story is seen",
            contexts=(CAPTION1, CAPTIONS5, FULL), baselines=("sd", "glide"), learned=lms_there(),
            many=True,
            notebook="10_reproduce_table1_vist.ipynb", protocols=True,
            came_out=CameOut(18.6, "GILL", FULL.label, "CLIP similarity ↑", 0.767),
        ),
        Table(
            "2", "table2_visdial", VISDIAL,
            "Table 2: the picture a VisDial dialogue is about, by how many rounds are read",
            contexts=ROUNDS, baselines=("sd", "glide"), learned=lms_there(), many=True,
            notebook="11_reproduce_table2_visdial.ipynb", protocols=True,
            came_out=CameOut(20.4, "GILL", "10 rounds", "CLIP similarity ↑", 0.692),
        ),
        Table(
            "mappers", "mappers", VIST,
            "Which mapper? The last picture of a VIST story, and pictures of single captions",
            contexts=(FULL,), text_contexts=(CAPTIONS5,), learned=tuple(MAPPERS)[1:],
            notebook="12_reproduce_mapper_ablation.ipynb", beside=("mappers-captions",),
            topic="mappers", labels=MAPPERS,
            came_out=CameOut(14.2, "GILLMapper", FULL.label, "CLIP similarity ↑", 0.767),
        ),
        Table(
            "mappers-captions", "mappers_captions", CAPTIONS,
            "Which mapper? Pictures of single captions",
            contexts=tuple(CAPTIONS.contexts.values()), learned=tuple(MAPPERS)[1:],
            topic="mappers", labels=MAPPERS,
        ),
        Table(
            "context", "context", VIST,
            "How much context? The last picture of a VIST story, by captions and images seen",
            contexts=(*(captions(n) for n in range(1, 6)),
                      *(captions(n, images=n - 1) for n in range(2, 6)), REVERSED),
            seeds=SEEDS,
            notebook="13_reproduce_context_effect.ipynb", beside=("one-picture",), topic="context",
            came_out=CameOut(13.3, "GILL", FULL.label, "CLIP similarity ↑", 0.781),
        ),
        Table(
            "one-picture", "context_one_picture", VIST,
            "The last picture of a VIST story, from all captions and one of the pictures",
            contexts=tuple(Context(f"captions5_picture{n}", 5, 1, f"5 captions, image {n} alone", n)
                           for n in (1, 4)),
            baselines=(), topic="context", seeds=SEEDS,
        ),
        Table(
            "tokens", "img_tokens", VIST,
            "How many tokens? The last picture of a VIST story, by r and k "
            "(one seed of the joints)",
            contexts=(CAPTIONS5, FULL), baselines=(), learned=tuple(TOKENS), seeds=(0,),
            notebook="14_ablate_img_tokens.ipynb", topic="tokens", labels=TOKENS,
            came_out=CameOut(7.6, "r = 8 [IMG], k = 4", FULL.label, "CLIP similarity ↑", 0.788),
        ),
        Table(
            "ladder", "ladder", VIST,
            "Does a stronger language model help? "
            "The last picture of a VIST story, by the size of the frozen LM",
            contexts=(CAPTION1, CAPTIONS5, FULL), learned=("lm64", "lm128", *lms_there()),
            notebook="18_grow_the_language_model.ipynb", topic="ladder", labels=RUNGS,
            came_out=CameOut(6.7, "LM 256 wide, 6 layers", FULL.label, "CLIP similarity ↑", 0.767),
        ),
        Table(
            "retrieval", "retrieval", VIST,
            "Contextual retrieval: which of all last pictures does a VIST story lead to?",
            contexts=(CAPTION1, CAPTIONS5, FULL), baselines=("clip",), learned=("fromage", "gill"),
            metrics=tuple(RECALLS), scorer="gill_lite.experiments.contextual_retrieval:Searcher",
            notebook="15_reproduce_retrieval.ipynb", topic="retrieval",
            labels={"clip": "CLIP", "fromage": "FROMAGe-style", "gill": "GILL"},
            came_out=CameOut(1.3, "GILL", FULL.label, "R@1 ↑", 0.453),
        ),
        Table(
            "decide", "decide", PROMPTS, "Deciding: retrieve a picture, or generate one?",
            contexts=tuple(PROMPTS.contexts.values()), baselines=(), count=900, seeds=SEEDS,
            scorer="gill_lite.experiments.deciding.pairs:PairScorer",
            notebook="16_decide_retrieve_or_generate.ipynb",
            came_out=CameOut(7.5, "linear decision on [IMG0]", "all prompts", "macro F1 ↑", 0.592),
        ),
        Table(
            "see", "family_see", SCENES, "Eleven ways to show a picture to a language model",
            contexts=tuple(SCENES.contexts.values()), baselines=(), learned=(), count=100,
            metrics=(*SEEING, "recall_at_1"), scorer="gill_lite.family.seeing:score",
            notebook="21_show_a_picture_to_a_language_model.ipynb", topic="family_see",
            group="family", seeds=SEEDS,
        ),
        Table(
            "draw", "family_draw", DRAWINGS, "Five ways to draw a picture from text",
            contexts=tuple(DRAWINGS.contexts.values())[:3], baselines=(), learned=(), count=100,
            scorer="gill_lite.family.drawing:score", group="family", seeds=SEEDS,
            notebook="22_draw_a_picture_from_text.ipynb", topic="family_draw",
        ),
        Table(
            "edit", "family_edit", EDITS, "Editing by talking: what is changed, what is kept",
            contexts=tuple(EDITS.contexts.values()), baselines=(), learned=(), count=100,
            metrics=tuple(EDITING), scorer="gill_lite.family.editing:score", group="family",
            notebook="23_edit_by_talking.ipynb", topic="family_edit", seeds=SEEDS,
        ),
        Table(
            "teach", "family_teach", DRAWINGS, "Four teachers of GILL's mapper",
            contexts=tuple(DRAWINGS.contexts.values()), baselines=(), learned=(), count=100,
            scorer="gill_lite.family.drawing:score", group="family", seeds=SEEDS,
            notebook="24_what_should_teach_the_mapper.ipynb", topic="family_teach",
        ),
    )
}  # fmt: skip


def get_table(typed: str) -> Table:
    """The table one may evaluate. Raises GillError naming those there are."""
    if typed not in (known := [name for name, table in TABLES.items() if table.group == "all"]):
        raise GillError(f"there is no table '{typed}' to evaluate; known: {', '.join(known)}.")
    return TABLES[typed]


def choose(names: Sequence[str]) -> list[Table]:
    """The tables of these names or groups, in their order here.

    Raises GillError for an unknown one, and for one whose weights do not ship."""
    known = {table.typed: table for table in TABLES.values() if table.notebook and table.ready}
    typed = (*known, *dict.fromkeys(table.group for table in known.values()))
    for name in names:
        if name not in typed:
            why = f"there is no table '{name}' to reproduce"
            if any(t.notebook and name in (t.typed, t.group) for t in TABLES.values()):
                why = f"the weights of '{name}' are not in {DATA}"
            raise GillError(f"{why}; known: {', '.join(typed)}.")
    return [table for table in known.values() if table.typed in names or table.group in names]
