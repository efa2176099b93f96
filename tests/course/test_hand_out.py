"""Exercises: the student version runs untouched, solutions pass, typical wrong answers do not."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from gill_lite.course import exercises, hand_out, kernels
from gill_lite.errors import GillError
from tests.helpers.places import ROOT

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
CHAPTERS = [stem for stem in NOTEBOOKS if stem.startswith(exercises.CHAPTERS)]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def read(stem: str):
    answers = exercises.read_answers(ROOT / "notebooks" / "solutions" / f"{stem}.py")
    return nbformat.read(NOTEBOOKS[stem], as_version=4), answers


def with_exercises():
    return [s for s in NOTEBOOKS if exercises.exercises(nbformat.read(NOTEBOOKS[s], as_version=4))]


EXERCISES = [
    pytest.param(stem, exercise, id=f"{stem[:2]}-{exercise.name}")
    for stem in with_exercises()
    for exercise in exercises.exercises(nbformat.read(NOTEBOOKS[stem], as_version=4))
]


# ---- the committed notebooks ----


def test_there_are_chapters():
    assert "03_learn_img_tokens" in CHAPTERS


@pytest.mark.parametrize("stem", CHAPTERS)
def test_chapters_keep_the_form_of_exercises(stem):
    assert exercises.problems(read(stem)[0]) == []


@pytest.mark.parametrize("stem", with_exercises())
def test_nothing_is_left_over_in_the_solutions(stem):
    notebook, answers = read(stem)
    names = {exercise.name for exercise in exercises.exercises(notebook)}
    assert answers.solutions.keys() == answers.look_for.keys() == names
    assert answers.wrong.keys() <= names


@pytest.mark.parametrize(("stem", "exercise"), EXERCISES)
def test_untouched_exercises_are_not_attempted(stem, exercise):
    notebook, _ = read(stem)
    if exercise.checker is None:
        assert notebook.cells[exercise.answer].source == hand_out.EMPTY_ANSWER
        return
    names = exercises.imported(notebook)
    exec(notebook.cells[exercise.answer].source, names)
    assert exercises.verdict(notebook, exercise, names[exercise.name]).startswith("not attempted")


@pytest.mark.parametrize(("stem", "exercise"), EXERCISES)
def test_solutions_pass_and_two_wrong_answers_do_not(stem, exercise):
    notebook, answers = read(stem)
    if exercise.checker is None:
        assert len(answers.solutions[exercise.name].split()) > 50, "a model answer"
        return
    assert exercises.verdict(notebook, exercise, answers.solutions[exercise.name]).startswith(
        "passed"
    )
    said = [exercises.verdict(notebook, exercise, f) for f in answers.wrong[exercise.name]]
    assert len(said) >= 2
    for wrong, sentence in zip(answers.wrong[exercise.name], said):
        assert wrong.__doc__, "what is wrong is said for the marking sheet"
        assert re.match(r"case \d+ \(.+\): .*(should|raised)", sentence), sentence
        assert " ".join(wrong.__doc__.split()) in sentence, "the mistake is named"


@pytest.mark.parametrize("stem", with_exercises())
def test_the_filled_in_cells_pass_their_checkers(stem):
    """Not the solutions file but what the teacher's notebook shows, with nbgrader's assertion."""
    notebook, answers = read(stem)
    solved = hand_out.teacher(notebook, answers)
    for exercise in exercises.exercises(solved):
        if exercise.checker is not None:
            names = exercises.imported(solved)
            exec(solved.cells[exercise.answer].source, names)
            assert exercises.verdict(solved, exercise, names[exercise.name]).startswith("passed")
            with pytest.raises(AssertionError, match="not attempted"):
                exercises.verdict(solved, exercise, lambda *given: None)


def test_no_two_exercises_share_a_name():
    """So that the checker knows whose mistakes to look for, and later chapters whose answer."""
    found = [parameter.values[1] for parameter in EXERCISES]
    names = [exercise.name for exercise in found if exercise.checker is not None]
    assert len(set(names)) == len(names)


def test_glossary_is_in_order_and_leads_to_notebooks_that_exist():
    terms = [line[4:] for line in GLOSSARY.splitlines() if line.startswith("### ")]
    plain = [re.sub(r"\W", "", term).lower() for term in terms]
    assert plain == sorted(plain) and len(set(plain)) == len(plain)


# ---- the tools, on a notebook of their own ----


def marks(**about):
    return {"nbgrader": {"schema_version": 3, "task": False, **about}}


TASK = """### Exercise 1: double
**Purpose:** count · **Difficulty:** easy · **Minutes:** 5 · **Points:** 2

Double it.

<details><summary>Hint</summary>Add.</details>
"""
FOLDED = "<details><summary>Why?</summary></details>"
OPEN = TASK.replace("1: double", "2: say why")
CHECKER = """
verdict = lab.check(my_double, operator.neg, {"one": (0,)})
print(verdict)
"""
ANSWERS = '''
LOOK_FOR = {"my_double": "adds"}
TEXTS = {"why": "Because it is so."}

def my_double(x):
    """Twice x."""
    y = x  # a copy
    return y + x

def my_double__same(x):
    """Forgets to add."""
    return x + 1

def my_double__text(x):
    """Gives text."""
    return "2x"
'''


@pytest.fixture
def notebook():
    cells = [
        new_markdown_cell("# Try\nlinks ../docs/glossary.md and ../docs/model_map.svg"),
        new_code_cell(
            "import operator\n\nfrom gill_lite.course import lab\n1 / 1", execution_count=1
        ),
        new_markdown_cell(TASK, metadata=marks(grade=False, solution=False, locked=True)),
        new_code_cell(
            'def my_double(x):\n    """Twice x."""\n    ...',
            metadata=marks(grade=False, solution=True, grade_id="my_double"),
        ),
        new_code_cell(
            CHECKER.strip(),
            metadata=marks(grade=True, solution=False, grade_id="check_my_double", points=2),
            outputs=[new_output("stream", name="stdout", text="not attempted yet")],
        ),
        new_markdown_cell(OPEN, metadata=marks(grade=False, solution=False, locked=True)),
        new_markdown_cell(
            hand_out.EMPTY_ANSWER,
            metadata=marks(grade=True, solution=True, grade_id="why", points=2),
        ),
        new_markdown_cell(
            "## Quick questions\n" + 2 * "<details><summary>Why?</summary></details>"
        ),
    ]
    return new_notebook(cells=cells)


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.py"
    path.write_text(ANSWERS)
    return exercises.read_answers(path)


def test_exercises_are_found_with_what_their_task_says(notebook):
    first, second = exercises.exercises(notebook)
    assert (first.name, first.title, first.points, first.checker) == ("my_double", "double", 2, 4)
    assert (second.name, second.number, second.checker, second.hint) == ("why", 2, None, True)
    assert exercises.problems(notebook) == []


@pytest.mark.parametrize(
    ("cell", "change", "sentence"),
    [
        (2, {"source": "Double it."}, "the cell above must be its task"),
        (2, {"source": TASK.replace("**Points:** 2", "**Points:** 3")}, "differ"),
        (4, {"metadata": {}}, "no graded cell"),
        (2, {"source": TASK.replace("details", "div")}, "no folding hint to exercise 1"),
        (5, {"source": TASK}, "does not number"),
        (6, {"metadata": {}}, "1 exercises instead of two"),
        (6, {"metadata": {}}, "no open-ended exercise"),
        (0, {"source": "# Try"}, "does not link docs/glossary.md"),
        (7, {"source": "## Quick questions"}, "no two or three answers to unfold"),
    ],
)
def test_broken_exercises_are_told(notebook, cell, change, sentence):
    notebook.cells[cell].update(nbformat.from_dict(change))
    assert any(sentence in problem for problem in exercises.problems(notebook))


def test_the_checker_runs_without_the_rest_of_the_notebook(notebook, answers):
    notebook.cells[1].source += "\nraise RuntimeError('nothing but the imports must run')"
    first = exercises.exercises(notebook)[0]
    assert exercises.verdict(notebook, first, answers.solutions["my_double"]).startswith("passed")
    same, text = answers.wrong["my_double"]
    assert "case 1 (one): the result should be 0" in exercises.verdict(notebook, first, same)
    assert "yours is '2x'" in exercises.verdict(notebook, first, text)


def test_the_teacher_version_is_what_nbgrader_reads(notebook, answers):
    notebook.cells[1].outputs = [new_output("stream", name="stdout", text="kept")]
    solved = hand_out.teacher(notebook, answers)
    assert solved.cells[3].source == (
        'def my_double(x):\n    """Twice x."""\n    ### BEGIN SOLUTION\n'
        "    y = x  # a copy\n    return y + x\n    ### END SOLUTION"
    )
    assert solved.cells[4].source.endswith(hand_out.GRADED) and solved.cells[4].outputs == []
    assert solved.cells[3].metadata["jupyter"] == {"source_hidden": True}
    assert "<summary>Solution</summary>\n\nBecause it is so.\n\n" in solved.cells[6].source
    assert solved.cells[1].outputs[0].text == "kept"
    assert notebook.cells[3].source.endswith("..."), "the original stays"
    again = hand_out.teacher(solved, answers)
    assert [c.source for c in again.cells] == [c.source for c in solved.cells]


def test_the_student_version_has_neither_answers_nor_outputs(notebook, answers):
    handed_out = hand_out.student(hand_out.teacher(notebook, answers))
    assert [c.source for c in handed_out.cells] == [c.source for c in notebook.cells]
    code = [c for c in handed_out.cells if c.cell_type == "code"]
    assert all(c.outputs == [] and c.execution_count is None for c in code)


def test_a_missing_solution_is_told(notebook, answers):
    del answers.solutions["why"]
    with pytest.raises(GillError, match="'why' has no solution in notebooks/solutions"):
        hand_out.teacher(notebook, answers)
    notebook.cells[3].source = "def my_double(x): ..."
    answers.solutions["why"] = "x"
    with pytest.raises(GillError, match="0 lines '...' instead of one"):
        hand_out.teacher(notebook, answers)


def test_the_marking_sheet_says_what_the_checker_will_say(notebook, answers):
    sheet = hand_out.marking_sheet("00_try", notebook, answers)
    assert "### 1. double\n\n- Purpose: count\n" in sheet
    assert "2 points" in sheet and "easy, 5 minutes" in sheet
    assert "Forgets to add. The checker says: `case 1 (one): the result should be 0" in sheet
    assert "```python\ny = x  # a copy\nreturn y + x\n```" in sheet
    assert "> Because it is so." in sheet


# ---- make student, make teacher ----


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    return {kind: (folder / kind, hand_out.build(kind, folder / kind)) for kind in hand_out.KINDS}


@pytest.mark.parametrize("kind", hand_out.KINDS)
def test_build_writes_every_notebook_and_what_it_links(built, kind):
    folder, paths = built[kind]
    assert {path.stem for path in folder.glob("notebooks/*.ipynb")} == set(NOTEBOOKS)
    assert (folder / "docs" / "glossary.md").read_text(encoding="utf-8") == GLOSSARY
    assert (folder / "docs" / "model_map.svg").is_file()
    assert (folder / "marking_sheet.md").is_file() == (kind == "teacher")
    assert sorted(paths) == sorted(path for path in folder.rglob("*") if path.is_file())


def test_students_get_no_solution(built):
    everything = "".join(
        path.read_text(encoding="utf-8") for path in built["student"][0].rglob("*.ipynb")
    )
    assert "SOLUTION" not in everything and "HIDDEN" not in everything
    assert "image/png" not in everything
    sheet = (built["teacher"][0] / "marking_sheet.md").read_text(encoding="utf-8")
    assert all(f"## {stem}" in sheet for stem in with_exercises())


def test_what_a_student_did_stays(tmp_path):
    hand_out.build("student", tmp_path)
    chapter, other, own = (tmp_path / "notebooks" / f"{name}.ipynb" for name in
                           ("03_learn_img_tokens", "04_retrieve_images", "my_own"))  # fmt: skip
    own.write_text("{}")
    for path, change in ((chapter, {"execution_count": 1}), (other, {"source": "pass"})):
        worked = nbformat.read(path, as_version=4)
        next(c for c in worked.cells if c.cell_type == "code").update(change)
        nbformat.write(worked, path)
    before = {path: path.read_bytes() for path in (chapter, other, own)}
    written = hand_out.build("student", tmp_path)
    assert {path: path.read_bytes() for path in before} == before
    assert not set(before) & set(written) and len(written) == len(NOTEBOOKS)  # 2 less, 2 pages
    hand_out.build("teacher", tmp_path)
    assert chapter.read_bytes() != before[chapter], "a teacher's version is made anew"


def test_there_is_no_third_version(tmp_path):
    with pytest.raises(GillError, match="none called 'pupil'"):
        hand_out.build("pupil", tmp_path)


def test_build_does_not_write_over_the_course(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(GillError, match="may not take the place of the course"):
        hand_out.build("student", ".")


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_students_run_the_very_cells_that_nbval_runs(built, stem):
    """So that the suite's run of all notebooks proves that the student versions run through."""
    ours, theirs = (
        nbformat.read(folder / "notebooks" / f"{stem}.ipynb", as_version=4)
        for folder in (ROOT, built["student"][0])
    )
    for one, other in zip(ours.cells, theirs.cells, strict=True):
        assert one.cell_type == other.cell_type
        assert one.cell_type != "code" or one.source == other.source


@pytest.mark.slow
def test_the_student_version_runs_through_untouched(built, tmp_path):
    """One chapter from the built folder; the others' cells are nbval's, as the test above says."""
    source = built["student"][0] / "notebooks" / "03_learn_img_tokens.ipynb"
    done = tmp_path / "done.ipynb"
    kernels.execute(source, done, {"num_stories": 2}, progress=False)
    executed = nbformat.read(done, as_version=4)
    for exercise in exercises.exercises(nbformat.read(source, as_version=4)):
        if exercise.checker is not None:
            (cell,) = [
                c
                for c in executed.cells
                if c.metadata.get("nbgrader", {}).get("grade_id") == f"check_{exercise.name}"
            ]
            assert cell.outputs[0].text.startswith("not attempted yet")
