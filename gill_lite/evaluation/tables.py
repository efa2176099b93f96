"""The tables there are, by what one types. A new table is a few lines here."""

from gill_lite.errors import GillError
from gill_lite.evaluation.evaluate import TableSpec
from gill_lite.evaluation.protocol import VISDIAL_CONTEXTS, VIST_CONTEXTS, Context
from gill_lite.evaluation.tasks import CAPTIONS, VISDIAL, VIST
from gill_lite.report.numbers import METHODS

EVERY_LM = ("gill", "gill_lm1", "gill_lm2")
MAPPER_NAMES = ("linear", "mlp", "encoder", "gill")
MAPPER_LABELS = {
    "sd": METHODS["sd"],
    "linear": "Linear",
    "mlp": "3-layer MLP",
    "encoder": "Transformer encoder",
    "gill": "GILLMapper",
}
TOKEN_LABELS = {
    **{f"r{n}": f"r = {n} [IMG], k = 4" for n in (1, 2, 4)},
    **{f"k{n}": f"r = 8 [IMG], k = {n}" for n in (1, 2)},
    "gill": "r = 8 [IMG], k = 4",
}
FULL = VIST_CONTEXTS["captions5_images4"]


def _captions(count: int, images: int) -> Context:
    name = {1: "caption1"}.get(count, f"captions{count}") + (f"_images{images}" if images else "")
    label = f"{count} caption{'s' * (count > 1)}"
    label += f", {images} image{'s' * (images > 1)}" if images else ""
    return VIST_CONTEXTS.get(name) or Context(name, count, images, label)


TABLE1 = TableSpec(
    number="1",
    name="table1_vist",
    title="Table 1: the last picture of a VIST story, by how much of the story is seen",
    task=VIST,
    contexts=tuple(VIST_CONTEXTS.values()),
    baselines=("sd", "glide"),
    learned=EVERY_LM,
)
TABLE2 = TableSpec(
    number="2",
    name="table2_visdial",
    title="Table 2: the picture a VisDial dialogue is about, by how many rounds are read",
    task=VISDIAL,
    contexts=tuple(VISDIAL_CONTEXTS.values()),
    baselines=("sd", "glide"),
    learned=EVERY_LM,
)
MAPPERS = TableSpec(
    number="mappers",
    name="mappers",
    title="Which mapper? The last picture of a VIST story, and pictures of single captions",
    task=VIST,
    contexts=(FULL,),
    learned=MAPPER_NAMES,
    topic="mappers",
    labels=MAPPER_LABELS,
    text_contexts=(VIST_CONTEXTS["captions5"],),
)
MAPPER_CAPTIONS = TableSpec(
    number="mappers-captions",
    name="mappers_captions",
    title="Which mapper? Pictures of single captions",
    task=CAPTIONS,
    contexts=tuple(CAPTIONS.contexts.values()),
    learned=MAPPER_NAMES,
    topic="mappers",
    labels=MAPPER_LABELS,
)
CONTEXT = TableSpec(
    number="context",
    name="context",
    title="How much context? The last picture of a VIST story, by captions and images seen",
    task=VIST,
    contexts=(
        *(_captions(n, 0) for n in range(1, 6)),
        *(_captions(n, n - 1) for n in range(2, 6)),
    ),
    topic="context",
)
TOKENS = TableSpec(
    number="tokens",
    name="img_tokens",
    title="How many tokens? The last picture of a VIST story, by r and k (one seed of the joints)",
    task=VIST,
    contexts=(VIST_CONTEXTS["captions5"], FULL),
    baselines=(),
    learned=tuple(TOKEN_LABELS),
    topic="tokens",
    labels=TOKEN_LABELS,
)
TABLES = {spec.number: spec for spec in (TABLE1, TABLE2, MAPPERS, MAPPER_CAPTIONS, CONTEXT, TOKENS)}


def get_table(number: str) -> TableSpec:
    """The table of that number. Raises GillError naming those there are."""
    if number not in TABLES:
        raise GillError(f"there is no table '{number}' to evaluate; known: {', '.join(TABLES)}.")
    return TABLES[number]
