"""The family tree and its page: made of the catalogue, and as committed."""

from matplotlib.patches import FancyBboxPatch

from gill_lite.family import SEE, SYSTEMS, tree
from tests.helpers.places import ROOT


def test_parents_are_known_and_older():
    for name, system in SYSTEMS.items():
        assert set(system.parents) <= set(SYSTEMS)
        assert all(tree.depth(parent) < tree.depth(name) for parent in system.parents)


def test_no_two_boxes_lie_upon_each_other_and_no_line_upon_a_box():
    where = tree.places()
    boxes = {slot for slot in where if slot[1] == tree.depth(slot[0])}
    assert {name for name, _ in boxes} == set(SYSTEMS)
    for slot in boxes:
        for other in set(where) - {slot}:
            (x, y), (a, b) = where[slot], where[other]
            apart = tree.HIGH if other in boxes else tree.HIGH / 2
            assert abs(x - a) > tree.WIDE or abs(y - b) > apart, (slot, other)


def test_every_idea_has_a_line_from_column_to_column():
    ways = tree.ways()
    assert len(ways) == sum(len(system.parents) for system in SYSTEMS.values())
    for way in ways:
        assert [column for _, column in way] == list(range(way[0][1], way[-1][1] + 1))
        assert way[0][0] in SYSTEMS[way[-1][0]].parents
    path = tree.line([tree.places()[slot] for slot in ways[0]])
    assert path.vertices[0][0] < path.vertices[-1][0]


def test_what_is_named_is_coloured_alone():
    for named in ((SEE,), (SEE, "sd"), ("gill", "sd")):
        boxes = [p for p in tree.figure(*named).axes[0].patches if isinstance(p, FancyBboxPatch)]
        assert len(boxes) == len(SYSTEMS)
        lit = [box for box in boxes if box.get_facecolor() != (1, 1, 1, 1)]
        wanted = [s for s in SYSTEMS.values() if s.task in named or s.name in named]
        assert len(lit) == len(wanted)


def test_docs_hold_the_tree_of_the_catalogue(tmp_path):
    tree.write(tmp_path, ROOT / "results")
    for name in ("family.svg", "family.md"):
        made, committed = (folder / name for folder in (tmp_path, ROOT / "docs"))
        assert made.read_text() == committed.read_text(), "run `python -m gill_lite.family.tree`"
    for system in SYSTEMS.values():
        assert f"[{system.title}]({tree.source(system)})" in tree.page(ROOT / "results")


def test_every_source_is_there():
    for system in SYSTEMS.values():
        if tree.source(system).endswith(".py"):
            assert (ROOT / "docs" / tree.source(system)).is_file()
