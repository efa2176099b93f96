"""Figures: what is drawn, and what is refused."""

import matplotlib
import pytest

from gill_lite.course import figures
from gill_lite.errors import GillError

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    yield
    plt.close("all")


def test_strips_draw_a_box_a_token_filled_by_kind():
    figures.strips({"one": [("a", 0), ("b", 1)], "two": [("c", 0)]}, ["learned", "read"])
    (axis,) = plt.gcf().axes
    colors = [patch.get_facecolor()[:3] for patch in axis.patches]
    blue, white = (to_rgb(figures.FILLS[kind]["facecolor"]) for kind in (0, 1))
    assert colors == [blue, white, blue]
    assert [t.get_text() for t in axis.texts] == ["one", "a", "b", "two", "c"]
    assert [t.get_text() for t in plt.gcf().legends[0].texts] == ["learned", "read"]


def test_a_full_stop_stays_with_its_sentence():
    assert figures._lines("a small red ball .", 16) == ["a small red", "ball\N{NO-BREAK SPACE}."]


def test_strips_refuse_kinds_without_a_name():
    with pytest.raises(GillError, match="row 'one' has a box of kind 2"):
        figures.strips({"one": [("a", 2)]}, ["learned", "read"])
    with pytest.raises(GillError, match="4 kinds of boxes, not 5"):
        figures.strips({"one": [("a", 0)]}, list("abcde"))


def test_heat_is_darkest_at_the_largest_value_and_white_at_zero():
    figures.heat([["a", "big"], ["ball"]], {"x": [0.0, 1.0, 2.0], "y": [0, 0, 0]})
    first, second = plt.gcf().axes
    lightness = [sum(patch.get_facecolor()[:3]) for patch in first.patches]
    assert lightness[0] > 2.85 and lightness == sorted(lightness, reverse=True)
    assert [t.get_text() for t in first.texts] == ["a", "big", "ball"]
    assert first.texts[2].get_color() == "white", "dark ground, white ink"
    assert [patch.get_y() for patch in first.patches] == [0, 0, 1], "a line of text each"
    assert "darkest: 2" in first.get_title(loc="left")
    assert len({patch.get_facecolor() for patch in second.patches}) == 1


def test_heat_refuses_values_that_are_not_one_a_word():
    with pytest.raises(GillError, match="'x' has 2 values for 3 words"):
        figures.heat([["a", "big"], ["ball"]], {"x": [1, 2]})
