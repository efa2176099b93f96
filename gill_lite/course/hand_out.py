"""The course as a teacher hands it out: student and teacher versions, the marking sheet.

An exercise is three cells in a row, with nbgrader's cell metadata (schema version 3): the task
(text, locked), the answer (a function with a stub, or text), and for a function the checker
(locked, graded). Solutions and typical wrong answers stand in notebooks/solutions, one Python
file a notebook. docs/teaching.md says how a teacher uses what is built here.
"""

import ast
import contextlib
import copy
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from gill_lite.course.chapters import chapters, read_chapter
from gill_lite.errors import GillError
from gill_lite.files import read_text, write_text
from gill_lite.provenance import repository_root

CHAPTERS = tuple(f"0{number}_" for number in range(1, 9))  # notebooks that teach
REGION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.M | re.S)
HIDDEN = re.compile(r"\n*^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS[ \t]*$", re.M | re.S)
GRADED = (
    '\n\n### BEGIN HIDDEN TESTS\nassert verdict.startswith("passed"), verdict\n### END HIDDEN TESTS'
)
EMPTY_ANSWER = "*Your answer:*"
HEADING = re.compile(r"^### Exercise (\d+): (.+)$", re.M)
FACT = re.compile(r"\*\*(Purpose|Difficulty|Minutes|Points):\*\* (.+?)(?= · \*\*|$)", re.M)
KINDS = ("student", "teacher")
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


# ---- the two versions ----


def student(notebook):
    """A copy to hand out: no outputs, no solutions, no hidden tests."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = HIDDEN.sub("", REGION.sub(r"\1...", cell.source))
        else:
            cell.source = REGION.sub(EMPTY_ANSWER, cell.source)
    return notebook


def teacher(notebook, answers: Answers):
    """A copy with the solutions, in nbgrader's regions; its checkers count for nbgrader.

    Outputs stay, but not those of exercises: they show the untouched notebook.
    Raises GillError for an exercise without a solution.
    """
    notebook = copy.deepcopy(notebook)
    for exercise in exercises(notebook):
        answer = notebook.cells[exercise.answer]
        if not REGION.search(answer.source):
            if (name := exercise.name) not in answers.solutions:
                raise GillError(f"exercise '{name}' has no solution in notebooks/solutions")
            answer.source = _solved(answer.source, exercise, answers)
        if exercise.checker is not None:
            checker = notebook.cells[exercise.checker]
            checker.source = HIDDEN.sub("", checker.source) + GRADED
            for cell in (answer, checker):
                cell.outputs, cell.execution_count = [], None
    return notebook


def _solved(source: str, exercise: Exercise, answers: Answers) -> str:
    """The answer cell with its stub replaced by the solution, marked as nbgrader wants it."""
    if exercise.checker is None:
        text = str(answers.solutions[exercise.name]).strip()
        return f"### BEGIN SOLUTION\n{text}\n### END SOLUTION"
    indent = " " * 4
    body = textwrap.indent(function_body(answers.source, exercise.name), indent)
    region = f"{indent}### BEGIN SOLUTION\n{body}\n{indent}### END SOLUTION"
    solved, count = re.subn(rf"^{indent}\.\.\.$", lambda _: region, source, flags=re.M)
    if count != 1:
        raise GillError(f"exercise '{exercise.name}' has {count} lines '...' instead of one")
    return solved


def function_body(source: str, name: str) -> str:
    """The lines of a function without its head and docstring, not indented."""
    nodes = ast.parse(source).body
    (function,) = [n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == name]
    first = function.body[1 if ast.get_docstring(function) is not None else 0]
    lines = source.splitlines()[first.lineno - 1 : function.end_lineno]
    return textwrap.dedent("\n".join(lines))


def marking_sheet(title: str, notebook, answers: Answers) -> str:
    """One notebook's part of the marking sheet, as Markdown; what a checker says is computed."""
    parts = [f"## {title}"]
    for exercise in exercises(notebook):
        solution = answers.solutions.get(exercise.name, "")
        by_hand = exercise.checker is None
        lines = [
            f"### {exercise.number}. {exercise.title}\n",
            f"- Purpose: {exercise.purpose}",
            f"- {exercise.difficulty}, {exercise.minutes} minutes; {exercise.points} points, "
            f"{'marked by hand' if by_hand else 'by the checker'}",
            f"- What to look for: {answers.look_for.get(exercise.name, '(nothing noted)')}",
        ]
        for wrong in answers.wrong.get(exercise.name, []):
            mistake = " ".join((wrong.__doc__ or "a wrong answer").split())
            said = f" The checker says: `{verdict(notebook, exercise, wrong)}`"
            lines.append(f"- Typical wrong answer: {mistake}{'' if by_hand else said}")
        if by_hand:
            quoted = [f"> {x}" for x in str(solution).strip().split("\n")]
            lines += ["", "A model answer:", "", *quoted]
        else:
            body = function_body(answers.source, exercise.name)
            lines += ["", "```python", body, "```"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _graded(cell) -> dict:
    return cell.metadata.get("nbgrader", {})


# ---- what make student and make teacher write ----


def build(kind: str, folder=None) -> list[Path]:
    """Write the "student" or "teacher" version of every notebook into `folder`, made anew.

    folder: runs/<kind> unless given. With the notebooks go the glossary and the map they link to,
    for teachers the marking sheet. Raises GillError where an exercise is not whole.
    """
    if kind not in KINDS:
        raise GillError(f"there is a student and a teacher version, none called '{kind}'")
    root = repository_root()
    folder, source = Path(folder or root / "runs" / kind), root / "notebooks"
    if folder.resolve() == root:
        raise GillError(f"the {kind} version may not take the place of the course; name a folder")
    made, sheets = {}, ["# Marking sheet\n"]
    for path in chapters(source):
        notebook = read_chapter(path)
        answers = read_answers(source / "solutions" / f"{path.stem}.py")
        whole = teacher(notebook, answers) if kind == "teacher" else student(notebook)
        nbformat.validate(whole)
        made[folder / "notebooks" / path.name] = nbformat.writes(whole).rstrip() + "\n"
        if exercises(notebook):
            sheets.append(marking_sheet(path.stem, notebook, answers))
    for name in DOCS:
        made[folder / "docs" / name] = read_text(root / "docs" / name)
    if kind == "teacher":
        made[folder / "marking_sheet.md"] = "\n".join(sheets)
    for name in ("notebooks", "docs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return [write_text(path, text) for path, text in made.items()]


if __name__ == "__main__":
    try:
        print("\n".join(f"wrote {path}" for path in build(*sys.argv[1:3])))
    except GillError as error:
        sys.exit(f"make {sys.argv[1]}: {error}")
