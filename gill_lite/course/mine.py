"""What the student wrote in earlier chapters, for the chapters that build on it."""

from collections.abc import Callable
from pathlib import Path

from gill_lite.course.chapters import chapters, read_chapter
from gill_lite.course.checking import PASSED
from gill_lite.course.exercises import exercises, imported, verdict
from gill_lite.errors import GillError
from gill_lite.provenance import repository_root


def handed_on(name: str, library: Callable) -> Callable:
    """The function `name` of an earlier exercise as the student wrote and saved it, or `library`.

    The student's is taken where its own checker passes it; a sentence says which was taken and
    why. Read are the chapters beside the running one, else the repository's. Raises GillError if
    no chapter has such an exercise.
    """
    written, said, place = find(name)
    if written and said.startswith(PASSED):
        print(f"{name}: yours, of {place}")
        return written
    print(f"{name}: the library's; yours in {place}: {said}")
    return library


def find(name: str) -> tuple[Callable | None, str, str]:
    """A student's function, its checker's verdict, and the chapter that it stands in."""
    here = Path.cwd()
    beside = here if any(here.glob("0[0-9]_*.ipynb")) else repository_root() / "notebooks"
    for path in chapters(beside):
        notebook = read_chapter(path)
        for exercise in exercises(notebook):
            if exercise.name == name:
                try:
                    names = imported(notebook)
                    exec(notebook.cells[exercise.answer].source, names)
                    written = names[name]
                except Exception as error:  # half-written, which is no reason to stop the course
                    return None, f"{type(error).__name__}: {error}", path.stem
                return written, verdict(notebook, exercise, written), path.stem
    raise GillError(f"no chapter in {beside} has an exercise '{name}'")
