"""The family tree and its page: made of the catalogue, and as committed."""

from gill_lite.family import SEE, SYSTEMS, tree
from tests.helpers.places import ROOT


def test_parents_are_known_and_older():
    for name, system in SYSTEMS.items():
        assert set(system.parents) <= set(SYSTEMS)
        assert all(tree.depth(parent) < tree.depth(name) for parent in system.parents)


def test_no_two_boxes_lie_upon_each_other():
    places = list(tree.places().values())
    assert len(places) == len(SYSTEMS)
    for i, (x, y) in enumerate(places):
        for a, b in places[:i]:
            assert abs(x - a) > tree.WIDE or abs(y - b) > tree.HIGH


def test_the_task_that_is_named_is_coloured_alone():
    boxes = tree.figure(SEE).axes[0].patches
    lit = [box for box in boxes if box.get_facecolor() != (1, 1, 1, 1)]
    assert len(boxes) == len(SYSTEMS)
    assert len(lit) == sum(system.task == SEE for system in SYSTEMS.values())


def test_docs_hold_the_tree_of_the_catalogue(tmp_path):
    tree.write(tmp_path)
    for name in ("family.svg", "family.md"):
        made, committed = (folder / name for folder in (tmp_path, ROOT / "docs"))
        assert made.read_text() == committed.read_text(), "run `python -m gill_lite.family.tree`"
    for system in SYSTEMS.values():
        assert f"[{system.title}]({tree.source(system)})" in tree.page()


def test_every_source_is_there():
    for system in SYSTEMS.values():
        if tree.source(system).endswith(".py"):
            assert (ROOT / "docs" / tree.source(system)).is_file()
