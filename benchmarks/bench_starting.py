"""Starting: from nothing to the package, to an answer of chat, to a picture in a notebook."""

import subprocess
import sys

import nbformat
from nbclient import NotebookClient

from benchmarks.record import at_most, keep, median
from gill_lite.provenance import repository_root

ROOT = repository_root()
DRAWN = "lab.show([image]"  # where notebook 00 shows what GILL has generated


def timed(benchmark, what: str, goal: float, run, rounds: int) -> None:
    """A row for `run`; the first of several rounds is not counted."""
    benchmark.pedantic(run, rounds=rounds, warmup_rounds=int(rounds > 1))
    keep(benchmark, what, "mini", median(benchmark), at_most(goal))


def python(*arguments: str) -> None:
    """A Python process of its own, to its end."""
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)


def test_import(benchmark, quick):
    def run():
        python("-c", "import gill_lite")

    timed(benchmark, "Python started and `import gill_lite`", 1, run, 1 if quick else 7)


def test_first_answer_of_chat(benchmark, tmp_path, quick):
    def run():
        typed = ("chat", "a red ball at night .", "--force-image", "-o", str(tmp_path))
        python("-m", "gill_lite", *typed)
        assert list(tmp_path.glob("*_generated1.png"))

    timed(benchmark, "`gill-lite chat`: first answer", 10, run, 1 if quick else 2)


def test_first_picture_in_a_notebook(benchmark):
    notebook = nbformat.read(ROOT / "notebooks" / "00_check_setup.ipynb", as_version=4)
    [last] = [i for i, cell in enumerate(notebook.cells) if DRAWN in cell.source]
    notebook.cells = notebook.cells[: last + 1]

    def run():
        NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}}).execute()
        assert any("image/png" in o.get("data", {}) for o in notebook.cells[-1].outputs)

    timed(benchmark, "Jupyter kernel started, notebook 00 to GILL's picture", 30, run, 1)
