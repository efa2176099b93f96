"""The tables there are, by the number one types. A new table is a few lines here."""

from gill_lite.errors import GillError
from gill_lite.evaluate.protocol import VISDIAL_CONTEXTS, VIST_CONTEXTS
from gill_lite.evaluate.table import TableSpec
from gill_lite.evaluate.tasks import VISDIAL, VIST

TABLE1 = TableSpec(
    number="1",
    name="table1_vist",
    title="Table 1: the last picture of a VIST story, by how much of the story is seen",
    task=VIST,
    contexts=tuple(VIST_CONTEXTS.values()),
)
TABLE2 = TableSpec(
    number="2",
    name="table2_visdial",
    title="Table 2: the picture a VisDial dialogue is about, by how many rounds are read",
    task=VISDIAL,
    contexts=tuple(VISDIAL_CONTEXTS.values()),
)
TABLES = {spec.number: spec for spec in (TABLE1, TABLE2)}


def get_table(number: str) -> TableSpec:
    """The table of that number. Raises GillError naming those there are."""
    if number not in TABLES:
        raise GillError(f"there is no table '{number}' to evaluate; known: {', '.join(TABLES)}.")
    return TABLES[number]
