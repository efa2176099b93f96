"""The course as it is handed out: student and teacher versions, the marking sheet.

docs/teaching.md says how a teacher uses what is built here.
"""

import ast
import copy
import re
import sys
import textwrap
from pathlib import Path

import nbformat

from gill_lite.course.chapters import FOLD, FOLDED, chapters, read_chapter
from gill_lite.course.exercises import (
    DOCS,
    Answers,
    Exercise,
    exercises,
    read_answers,
    verdict,
)
from gill_lite.errors import GillError
from gill_lite.files import read_text, write_text
from gill_lite.provenance import repository_root

REGION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.M | re.S)
HIDDEN = re.compile(r"\n*^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS[ \t]*$", re.M | re.S)
GRADED = (
    '\n\n### BEGIN HIDDEN TESTS\nassert verdict.startswith("passed"), verdict\n### END HIDDEN TESTS'
)
EMPTY_ANSWER = "*Your answer:*"
UNFOLD = "<details><summary>Solution</summary>"
KINDS = ("student", "teacher")
ELSEWHERE = re.compile(rf"\[([^\]]*)\]\(\.\./(?!docs/(?:{'|'.join(DOCS)}))([^)]*)\)")

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
        if FOLD not in cell.metadata.get("tags", []):
            cell.metadata.pop("jupyter", None)  # a solution, which was folded
    return notebook


def teacher(notebook, answers: Answers):
    """A copy with the solutions, in nbgrader's regions; its checkers count for nbgrader.

    Solutions are folded, so that the chapter can be shown in class. Outputs stay, but not those
    of exercises: they show the untouched notebook.
    Raises GillError for an exercise without a solution.
    """
    notebook = copy.deepcopy(notebook)
    for exercise in exercises(notebook):
        answer = notebook.cells[exercise.answer]
        if not REGION.search(answer.source):
            if (name := exercise.name) not in answers.solutions:
                raise GillError(f"exercise '{name}' has no solution in notebooks/solutions")
            answer.source = _solved(answer.source, exercise, answers)
            answer.metadata.update(FOLDED if exercise.checker is not None else {})
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
        return f"### BEGIN SOLUTION\n{UNFOLD}\n\n{text}\n\n</details>\n### END SOLUTION"
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


# ---- what make student and make teacher write ----


def build(kind: str, folder=None) -> list[Path]:
    """Write the "student" or "teacher" version of every notebook into `folder`.

    folder: runs/<kind> unless given. With the notebooks go the pages that they need, for teachers
    the marking sheet. A student's chapter that was run or answered there stays as it is, and so
    do files that are not the course's. Gives the paths that were written. Raises GillError where
    an exercise is not whole.
    """
    if kind not in KINDS:
        raise GillError(f"there is a student and a teacher version, none called '{kind}'")
    root = repository_root()
    folder, source = Path(folder or root / "runs" / kind).expanduser(), root / "notebooks"
    if folder.resolve() == root:
        raise GillError(f"the {kind} version may not take the place of the course; name a folder")
    made, sheets = {}, ["# Marking sheet\n"]
    for path in chapters(source):
        notebook = read_chapter(path)
        answers = read_answers(source / "solutions" / f"{path.stem}.py")
        whole = teacher(notebook, answers) if kind == "teacher" else student(notebook)
        _unlink(whole)
        nbformat.validate(whole)
        copied = folder / "notebooks" / path.name
        if kind == "teacher" or not _worked_in(copied, whole):
            made[copied] = nbformat.writes(whole).rstrip() + "\n"
        if exercises(notebook):
            sheets.append(marking_sheet(path.stem, notebook, answers))
    for name in DOCS:
        made[folder / "docs" / name] = read_text(root / "docs" / name)
    if kind == "teacher":
        made[folder / "marking_sheet.md"] = "\n".join(sheets)
    return [write_text(path, text) for path, text in made.items()]


def _worked_in(path: Path, ours) -> bool:
    """Whether a student has run or changed the chapter that lies at `path`."""
    if not path.is_file():
        return False
    theirs = read_chapter(path)
    run = any(cell.get("execution_count") for cell in theirs.cells)
    return run or [c.source for c in theirs.cells] != [c.source for c in ours.cells]


def _unlink(notebook) -> None:
    """Turn links to pages that are not handed out into their words, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = ELSEWHERE.sub(r"\1 (`\2` in the repository)", cell.source)


if __name__ == "__main__":
    try:
        written = [f"wrote {path}" for path in build(*sys.argv[1:3])]
        print("\n".join([*written, "chapters that were worked in stay as they are"]))
    except GillError as error:
        sys.exit(f"make {sys.argv[1]}: {error}")
