"""nbgrader, where it is installed, reads our teacher version and makes our student version of it.

It is no dependency (docs/teaching.md says why). To run this: pip install nbgrader.
"""

import shutil
import subprocess
import sys

import nbformat
import pytest

from gill_lite.course import exercises, hand_out
from tests.helpers.places import ROOT

pytest.importorskip("nbgrader", reason="nbgrader is not installed; it is the teacher's own tool")
CHAPTERS = [p.stem for p in sorted((ROOT / "notebooks").glob("0[1-9]_*.ipynb"))]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    hand_out.build("teacher", folder)
    return folder / "notebooks"


@pytest.mark.parametrize("stem", CHAPTERS)
def test_generate_assignment_takes_a_chapter(stem, teacher, tmp_path):
    (tmp_path / "source" / stem).mkdir(parents=True)
    shutil.copy(teacher / f"{stem}.ipynb", tmp_path / "source" / stem)
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", stem]
    done = subprocess.run(
        [*command, f"--CourseDirectory.root={tmp_path}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    theirs = nbformat.read(tmp_path / "release" / stem / f"{stem}.ipynb", as_version=4)
    source = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)
    ours = hand_out.student(source)
    stubs = {
        "    # YOUR CODE HERE\n    raise NotImplementedError()": "    ...",
        "YOUR ANSWER HERE": hand_out.EMPTY_ANSWER,
    }
    for their_cell, our_cell in zip(theirs.cells, ours.cells, strict=True):
        text = their_cell.source
        for stub, mine in stubs.items():
            text = text.replace(stub, mine)
        assert text.rstrip() == our_cell.source
    points = [c.metadata.get("nbgrader", {}).get("points", 0) for c in theirs.cells]
    assert sum(points) == sum(e.points for e in exercises.exercises(source))
