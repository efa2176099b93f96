"""Exercises: found in a chapter, answered in notebooks/solutions, judged by their checkers.

An exercise is three cells in a row, with nbgrader's cell metadata (schema version 3): the task
(text, locked), the answer (a function with a stub, or text), and for a function the checker
(locked, graded). Solutions and typical wrong answers stand in notebooks/solutions, one Python
file a notebook.
"""

import ast
import contextlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gill_lite.errors import GillError
from gill_lite.files import read_text

CHAPTERS = tuple(f"0{number}_" for number in range(1, 10))  # notebooks that teach
HEADING = re.compile(r"^### Exercise (\d+): (.+)$", re.M)
FACT = re.compile(r"\*\*(Purpose|Difficulty|Minutes|Points):\*\* (.+?)(?= · \*\*|$)", re.M)
QUESTIONS = "## Quick questions"
DOCS = ("glossary.md", "model_map.svg")
WRONG = "__"  # my_labels__all is a wrong answer to my_labels


@dataclass
class Exercise:
    """One exercise of a notebook; cells by their place in it."""

    name: str  # grade_id of the answer cell, and the function's name
    number: int
    title: str
    purpose: str
    difficulty: str
    minutes: int
    points: int
    answer: int
    checker: int | None  # None: the answer is text, marked by hand
    hint: bool


@dataclass
class Answers:
    """What notebooks/solutions holds for one notebook, by the exercise's name."""

    source: str = ""
    solutions: dict[str, Callable | str] = field(default_factory=dict)  # a function, or text
    wrong: dict[str, list[Callable]] = field(default_factory=dict)
    look_for: dict[str, str] = field(default_factory=dict)


def exercises(notebook) -> list[Exercise]:
    """The exercises of a notebook, in order; cells without nbgrader's metadata are none.

    Raises GillError naming the cell and what its three cells lack.
    """
    found = []
    for place, cell in enumerate(notebook.cells):
        if _graded(cell).get("solution"):
            found.append(_exercise(notebook.cells, place))
    return found


def _exercise(cells, place: int) -> Exercise:
    about = _graded(cells[place])
    name = about.get("grade_id", "")
    task = cells[place - 1].source if place else ""
    heading, facts = HEADING.search(task), dict(FACT.findall(task))
    if not heading or len(facts) != 4:
        raise GillError(
            f"exercise '{name}': the cell above must be its task, with a line '### Exercise 1: "
            "title' and **Purpose:**, **Difficulty:**, **Minutes:**, **Points:** divided by ' · '"
        )
    code = cells[place].cell_type == "code"
    marked = place + 1 if code else place
    graded = _graded(cells[marked]) if marked < len(cells) else {}
    if not graded.get("grade"):
        raise GillError(f"exercise '{name}': no graded cell (a checker, or the text) is there")
    if graded.get("points") != int(facts["Points"]):
        raise GillError(f"exercise '{name}': points in its text and in its metadata differ")
    return Exercise(
        name=name,
        number=int(heading[1]),
        title=heading[2],
        purpose=facts["Purpose"],
        difficulty=facts["Difficulty"],
        minutes=int(facts["Minutes"]),
        points=int(facts["Points"]),
        answer=place,
        checker=place + 1 if code else None,
        hint="<details>" in task,
    )


def problems(notebook) -> list[str]:
    """What breaks the form of a chapter's exercises and links, one sentence each."""
    try:
        found = exercises(notebook)
    except GillError as error:
        return [str(error)]
    few = len(found) not in range(2, 5)
    faults = [f"has {len(found)} exercises instead of two to four"] if few else []
    if all(exercise.checker is not None for exercise in found):
        faults.append("has no open-ended exercise")
    faults += [f"gives no folding hint to exercise {e.number}" for e in found if not e.hint]
    if [e.number for e in found] != list(range(1, len(found) + 1)):
        faults.append("does not number its exercises from 1")
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    if text.partition(QUESTIONS)[2].count("<summary>") not in (2, 3):
        faults.append(f"has no two or three answers to unfold under '{QUESTIONS}' at its end")
    return faults + [f"does not link docs/{name}" for name in DOCS if f"../docs/{name}" not in text]


def read_answers(path: Path) -> Answers:
    """The solutions file of a notebook; nothing in it where there is no such file.

    Functions are solutions under the exercise's name, wrong answers under `name__what`, with a
    docstring that says what is wrong. LOOK_FOR and TEXTS are dicts by exercise.
    """
    if not path.is_file():
        return Answers()
    source, names = read_text(path, "solutions"), {}
    exec(compile(source, str(path), "exec"), names)
    answers = Answers(source, dict(names.get("TEXTS", {})), {}, names.get("LOOK_FOR", {}))
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            exercise, wrong, _ = node.name.partition(WRONG)
            function = names[node.name]
            if wrong:
                function.__name__ = exercise  # so that the checker names the learner's function
                answers.wrong.setdefault(exercise, []).append(function)
            else:
                answers.solutions[exercise] = function
    return answers


def wrong_answers(name: str, folder: Path) -> list[Callable]:
    """The typical wrong answers to the exercise `name` that the files of `folder` hold."""
    marked = f"def {name}{WRONG}"
    holders = [path for path in sorted(folder.glob("*.py")) if marked in read_text(path, "")]
    return [wrong for path in holders for wrong in read_answers(path).wrong[name]]


def verdict(notebook, exercise: Exercise, attempt: Callable) -> str:
    """What the notebook's own checker says of `attempt`.

    A checker needs nothing but the notebook's imports and the function, so no other cell runs.
    """
    names = {**imported(notebook), exercise.name: attempt}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(notebook.cells[exercise.checker].source, names)
    return names["verdict"]


def imported(notebook) -> dict:
    """The names that a notebook's import lines give."""
    names: dict = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            nodes = ast.parse(cell.source).body
            imports = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module([*imports], []), "imports", "exec"), names)
    return names


def _graded(cell) -> dict:
    return cell.metadata.get("nbgrader", {})
