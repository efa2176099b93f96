"""A student's functions go on to later chapters where they pass, and the library's elsewhere."""

import nbformat
import pytest
import torch

from gill_lite.course import exercises, hand_out
from gill_lite.course.mine import handed_on
from gill_lite.errors import GillError
from gill_lite.model import losses
from tests.helpers.places import ROOT

NAME, CHAPTER = "my_retrieval_loss", "04_retrieve_images"


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Writes an answer into the exercise of a student's copy, and works beside it."""
    hand_out.build("student", tmp_path)
    monkeypatch.chdir(tmp_path / "notebooks")
    path = tmp_path / "notebooks" / f"{CHAPTER}.ipynb"

    def write(source):
        notebook = nbformat.read(path, as_version=4)
        (exercise,) = [e for e in exercises.exercises(notebook) if e.name == NAME]
        notebook.cells[exercise.answer].source = source
        nbformat.write(notebook, path)

    return write


SOLUTION = hand_out.function_body(
    (ROOT / "notebooks" / "solutions" / f"{CHAPTER}.py").read_text(), NAME
)


def test_what_passes_is_taken(answer, capsys):
    answer(f"def {NAME}(text, image, logit_scale):\n    " + SOLUTION.replace("\n", "\n    "))
    taken = handed_on(NAME, losses.retrieval_loss)
    assert taken is not losses.retrieval_loss
    assert capsys.readouterr().out == f"{NAME}: yours, of {CHAPTER}\n"
    pair = torch.eye(2), torch.eye(2), torch.tensor(0.5)
    assert torch.isclose(taken(*pair), losses.retrieval_loss(*pair))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (None, "not attempted yet"),
        (f"def {NAME}(text, image, logit_scale):\n    return text.sum()", "case 1"),
        (f"def {NAME}(text,", "SyntaxError"),
        ("my_loss = 3", "KeyError"),
    ],
)
def test_everything_else_is_the_librarys_and_says_why(answer, source, why, capsys):
    if source:
        answer(source)
    assert handed_on(NAME, losses.retrieval_loss) is losses.retrieval_loss
    told = capsys.readouterr().out
    assert told.startswith(f"{NAME}: the library's; yours in {CHAPTER}: ") and why in told


def test_away_from_a_copy_the_repositorys_chapters_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert handed_on(NAME, losses.retrieval_loss) is losses.retrieval_loss
    assert "not attempted yet" in capsys.readouterr().out
    with pytest.raises(GillError, match="has an exercise 'my_nothing'"):
        handed_on("my_nothing", losses.retrieval_loss)


def test_a_solved_course_hands_on_every_function(tmp_path, monkeypatch, capsys):
    hand_out.build("teacher", tmp_path)
    monkeypatch.chdir(tmp_path / "notebooks")
    for path in sorted((tmp_path / "notebooks").glob("0*.ipynb")):
        for exercise in exercises.exercises(nbformat.read(path, as_version=4)):
            if exercise.checker is not None:
                assert handed_on(exercise.name, None)
                assert capsys.readouterr().out == f"{exercise.name}: yours, of {path.stem}\n"
