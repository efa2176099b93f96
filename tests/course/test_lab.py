"""lab: parameters are refused with a sentence, exercises judged, pictures laid out."""

import os
import subprocess
import sys
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gill_lite.course import lab
from gill_lite.errors import GillError

DEFAULTS = {"profile": "mini", "seeds": [0, 1], "num_stories": 300, "recompute": False, "rate": 0.1}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"recompute": "false"}, "'recompute' must be True or False"),
        ({"recompute": 0}, "'recompute' must be True or False"),
        ({"num_stories": True}, "'num_stories' must be like 300"),
        ({"num_stories": 3.5}, "'num_stories' must be a whole number"),
        ({"num_stories": "300"}, "'num_stories' must be a whole number"),
        ({"seeds": "0,1"}, "'seeds' must be a list like [0, 1]"),
        ({"seeds": ["0"]}, "'seeds' must be a list like [0, 1]"),
        ({"seeds": []}, "'seeds' must be a list like [0, 1]"),
        ({"rate": "fast"}, "'rate' must be a number"),
        ({"profile": 3}, "'profile' must be a text"),
        ({"num_storys": 3}, "no parameter 'num_storys'; did you mean 'num_stories'?"),
        ({"zzz": 3}, "no parameter 'zzz'; known: profile"),
    ],
)
def test_wrong_parameters_are_refused_by_name(change, sentence):
    with pytest.raises(GillError) as caught:
        lab.validate_parameters(DEFAULTS, {**DEFAULTS, **change})
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_parameter_is_named():
    with pytest.raises(GillError, match="'rate' is missing; its default is 0.1"):
        lab.validate_parameters(DEFAULTS, {k: v for k, v in DEFAULTS.items() if k != "rate"})


@given(st.integers(), st.lists(st.integers(), min_size=1), st.booleans(), st.text())
def test_right_types_pass(number, numbers, flag, text):
    given_values = {"num_stories": number, "seeds": numbers, "recompute": flag, "profile": text}
    lab.validate_parameters(DEFAULTS, {**DEFAULTS, **given_values, "rate": number})


def test_in_a_notebook_only_injected_names_count():
    namespace = {**DEFAULTS, "In": ["", "# Parameters\nseeds = [1]\n"], "torch": torch, "x": 1}
    lab.validate_parameters(DEFAULTS, namespace)
    namespace["In"].append("# Parameters\nnum_storys = 3\nseeds = [1]\n")
    with pytest.raises(GillError, match="num_storys"):
        lab.validate_parameters(DEFAULTS, namespace)


def double(x):
    return 2 * x


CASES = [(1.0,), (torch.tensor([1.0, 2.0]),), (np.ones((2, 3)),)]


def unfilled(x): ...


def refusing(x):
    raise NotImplementedError


def transposed(x):
    return (2 * x).T if len(getattr(x, "shape", ())) == 2 else 2 * x


def nearly(x):
    return 2 * x if isinstance(x, float) else 2 * x + 0.01


def constant(x):
    return "2x"


def crashing(x):
    return x.no_such_thing


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        (unfilled, "not attempted yet: unfilled returns nothing so far."),
        (refusing, "not attempted yet: fill in refusing and run this cell again."),
        (lambda x: x + x, "passed: <lambda> agrees with double on all 3 cases."),
        (transposed, "case 3: the result should have the shape (2, 3), yours has (3, 2)."),
        (nearly, "case 2: the result at [0] should be 2, yours is 2.01."),
        (constant, "case 1: the result should be 2.0, yours is '2x'."),
        (
            crashing,
            "case 1: crashing raised AttributeError: 'float' object has no attribute "
            "'no_such_thing'",
        ),
    ],
)
def test_check_tells_how_an_attempt_stands(attempt, sentence):
    assert lab.check(attempt, double, CASES) == sentence


def test_check_names_the_case_that_differs():
    cases = {"a number": (1.0,), "two numbers": (torch.tensor([1.0, 2.0]),)}
    assert lab.check(nearly, double, cases).startswith("case 2 (two numbers): the result at [0]")
    assert lab.check(double, double, cases).endswith("on all 2 cases.")


def test_check_looks_inside_structures():
    Pair = namedtuple("Pair", "loss logits")
    reference = lambda x: Pair(x, {"a": [x, "word"]})  # noqa: E731
    assert "passed" in lab.check(lambda x: (x, {"a": (x, "word")}), reference, [(1.0,)])
    for wrong in (
        lambda x: (x, {"b": [x, "word"]}),
        lambda x: (x, {"a": [x]}),
        lambda x: (x, {"a": [x, "ward"]}),
        lambda x: (x + 1, {"a": [x, "word"]}),
        lambda x: x,
    ):
        assert lab.check(wrong, reference, [(1.0,)]).startswith("case 1: the result")


def test_check_gives_each_call_its_own_copy():
    def in_place(x):
        x *= 2
        return x

    case = (np.ones(3),)
    assert lab.check(in_place, double, [case]).startswith("passed")
    assert case[0].tolist() == [1, 1, 1]


def test_check_counts_nan_as_equal_to_nan_only():
    assert "passed" in lab.check(lambda x: float("nan"), lambda x: float("nan"), [(1,)])
    assert "case 1" in lab.check(lambda x: float("nan"), double, [(1,)])


def test_check_needs_cases():
    with pytest.raises(GillError, match="at least one case"):
        lab.check(double, double, [])


@pytest.fixture
def picture():
    return Image.new("RGB", (64, 64), (200, 30, 30))


def test_show_draws_what_it_is_given_and_saves_it(picture, tmp_path, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    path = tmp_path / "grid.png"
    lab.show(
        [[picture, None], [picture, picture]],
        rows=["first", "second"],
        cols=["truth", "GILL"],
        titles=[["a", "b"], ["c", "d"]],
        notes=[["e", ""], ["f", "✗ g\n✗ h"]],
        path=path,
    )
    axes = plt.gcf().axes
    assert [len(a.images) for a in axes] == [1, 0, 1, 1]
    assert [a.get_title() for a in axes] == ["truth\na", "GILL\nb", "c", "d"]
    texts = [[t.get_text() for t in a.texts] for a in axes]
    assert texts == [["e", "first"], [""], ["f", "second"], ["✗ g\n✗ h"]]
    with Image.open(path) as saved:
        assert min(saved.size) > 3 * 64, "64 pixels must be enlarged to be seen"
    plt.close("all")


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        ({"titles": ["one"]}, "titles"),
        ({"notes": ["one"]}, "notes"),
        ({"rows": ["a", "b"]}, "row"),
        ({"cols": ["a"]}, "column"),
    ],
)
def test_show_refuses_labels_that_do_not_fit(picture, labels, word):
    with pytest.raises(GillError, match=word):
        lab.show([picture, picture], **labels)


def test_read_says_what_the_probes_see_and_what_is_wrong():
    from gill_lite.world import render, scene

    shown = scene.Scene("star", "yellow", "big", "middle", "snow", "night")
    picture = render.render(shown, scene.rng_for("test read"))
    right, wrong = lab.read([picture, picture], [shown, shown.change(color="red", time="day")])
    assert right == "✓ 6 of 6"
    assert wrong == "✓ 4 of 6\n✗ yellow, not red\n✗ night, not day"
    other = shown.change(color="red", time="day", size="small", shape="box")
    assert lab.read([picture], [other]) == ["✓ 2 of 6\n✗ shape, color, size, time"]


def test_setup_takes_one_thread():
    lab.setup()
    assert torch.get_num_threads() == 1


def test_setup_refuses_an_unknown_profile():
    with pytest.raises(GillError, match="did you mean 'mini'"):
        lab.setup("minni")


def test_setup_finds_the_repository_from_anywhere(tmp_path):
    code = (
        "from gill_lite.course import lab; import os; here = lab.setup(); "
        "print(here.root, here.data.name, lab.under_test(), os.environ.get('TQDM_DISABLE'))"
    )
    root = Path(lab.__file__).resolve().parents[2]
    for folder in (tmp_path, root / "notebooks"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            capture_output=True,
            text=True,
            env=_environment(root),
        )
        assert done.stdout == f"{root} mini True 1\n", done.stderr


def _environment(root: Path) -> dict:
    return {**os.environ, "PYTHONPATH": str(root), "PYTEST_VERSION": pytest.__version__}


# ---- answers of every kind ----


@pytest.mark.parametrize(
    "answer, expected, sentence",
    [
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2), None),
        (torch.ones(2).to_sparse(), torch.ones(2), None),
        (torch.ones(2, device="meta"), torch.ones(2), "the device 'meta' has a shape and no"),
        (2 * torch.ones(2) + 1j, 2 * torch.ones(2), "at [0] should be 2, yours is 2+1j"),
        (2 + 1j, 2.0, "should be 2, yours is 2+1j"),
        (np.array(["two", "words"]), np.ones(2), "holds what are no numbers"),
        (np.array([[1], [2, 3]], dtype=object), np.ones(2), "holds what are no numbers"),
        ([[1.0], [2.0, 3.0]], torch.ones(2), "should be tensor([1., 1.]), yours is [[1.0]"),
        (torch.ones(2), [1.0, 1.0], "should be a list, yours is a Tensor"),
        ("2", torch.ones(2), "yours is '2'"),
    ],
    ids=str,
)
def test_an_answer_of_any_kind_gets_a_sentence(answer, expected, sentence):
    said = lab.check(lambda x: answer, lambda x: expected, [(0,)])
    assert said.startswith("passed") if sentence is None else sentence in said


def test_a_function_without_a_name_is_checked():
    assert lab.check(partial(double), double, [(1.0,)]).startswith("passed: functools.partial")


def test_names_that_papermill_adds_are_let_through():
    cell = '# Parameters\nseed = 3\nPAPERMILL_OUTPUT_PATH = "out.ipynb"\n'
    actual = {"In": ["", cell], "seed": 3, "PAPERMILL_OUTPUT_PATH": "out.ipynb"}
    lab.validate_parameters({"seed": 0}, actual)
    actual["In"][1] = cell.replace("PAPERMILL_", "papermill_")
    with pytest.raises(GillError, match="no parameter 'papermill_OUTPUT_PATH'"):
        lab.validate_parameters({"seed": 0}, actual)


@pytest.mark.parametrize("place", ["s3://bucket/x", "gs://bucket/x", "s3:/bucket/x"])
def test_results_do_not_go_to_an_address(place):
    with pytest.raises(GillError, match="parameter 'output_dir' is .* must be a folder"):
        lab.validate_parameters({"output_dir": "runs/x"}, {"output_dir": place})
