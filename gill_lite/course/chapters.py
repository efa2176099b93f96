"""Which files among the notebooks are the course's, and how one is read."""

import re
import sys
from pathlib import Path

from gill_lite.errors import GillError
from gill_lite.files import restoring

FOLD = "hide-input"  # tag of a cell that draws and teaches nothing else; the site folds it itself
FOLDED = {"jupyter": {"source_hidden": True}}  # JupyterLab shows three dots to click on
NAME = re.compile(r"\d\d_[a-z0-9_]+\.ipynb")  # not JupyterLab's 03_…-Copy1.ipynb, Untitled.ipynb


def chapters(folder: Path) -> list[Path]:
    """The course's notebooks in `folder`, in order; others are named on stderr and left out."""
    every = sorted(folder.glob("*.ipynb"))
    for path in every:
        if not NAME.fullmatch(path.name):
            print(f"skipped: {path.name} is no chapter of the course", file=sys.stderr)
    return [path for path in every if NAME.fullmatch(path.name)]


def read_chapter(path: Path):
    """A notebook. Raises GillError naming the file where it cannot be read as one."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        what = "is empty" if path.stat().st_size == 0 else "is not a whole notebook"
        if "<<<<<<<" in path.read_text(encoding="utf-8", errors="replace"):
            what = "holds the marks of a merge that was not finished"
        raise GillError(
            f"{path} {what}; mend it, or take the committed one: "
            f"{restoring(path.parent, path.name)}"
        ) from error
