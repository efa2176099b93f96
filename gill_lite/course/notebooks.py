"""Notebooks as files: execute them, clean them for committing, check their form."""

import base64
import io
import re
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from gill_lite.course import exercises
from gill_lite.course.chapters import FOLD, FOLDED, chapters
from gill_lite.course.kernels import execute
from gill_lite.errors import GillError
from gill_lite.files import write_bytes, write_text
from gill_lite.provenance import repository_root, usable_cores

MAX_CELL_LINES = 20  # without imports: a list to look things up in
MAX_PARAGRAPH_WORDS = 100  # what is read in one breath
MAX_NOTEBOOK_BYTES = 600_000  # figures of 150 dpi
MAX_TOTAL_BYTES = 8_000_000
KEPT_METADATA = ("tags", "nbgrader")
OPENING = ("you will do", "learn", "need")
CLOSING = ("recap", "paper versus code", "go further")
MEASURED = re.compile(r"^- \*\*Measured:\*\*.*$", re.MULTILINE)
BREAK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )")  # between paragraphs, points of lists
TYPED = re.compile(r"\d\.\d|\d %")  # a result, in a discussion: a new run leaves it behind


def normalise(path: Path) -> None:
    """Strip from an executed notebook what differs between runs and machines, in place.

    Goes: timings, papermill's records, stderr (progress bars, warnings), interpreter version, cuts
    in what a cell printed, and of figures what 128 colours cannot show. Stays: sources, tags,
    nbgrader's marks, outputs, execution counts. Cells tagged `hide-input` are folded. Raises
    GillError if an output names this machine's folders.
    """
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for index, cell in enumerate(notebook.cells):
        kept = {name: cell.metadata.get(name) for name in KEPT_METADATA}
        cell.metadata = {name: value for name, value in kept.items() if value}
        cell.metadata.update(FOLDED if FOLD in cell.metadata.get("tags", []) else {})
        if cell.cell_type == "code":
            cell.outputs = _whole_texts(o for o in cell.outputs if o.get("name") != "stderr")
            for output in cell.outputs:
                _with_fewer_colors(output.get("data", {}))
            _refuse_machine_paths(cell.outputs, f"{path.name}, cell {index}")
    nbformat.validate(notebook)
    write_text(path, nbformat.writes(notebook).rstrip() + "\n")


def _whole_texts(outputs) -> list:
    """The outputs, with neighbouring prints as one: where they were cut hangs on timing."""
    whole: list = []
    for output in outputs:
        if whole and output.output_type == whole[-1].output_type == "stream":
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def _with_fewer_colors(data: dict) -> None:
    """Store an output's PNG with a palette of 128 colours, in place, where that is smaller."""
    from PIL import Image

    if "image/png" not in data:
        return
    original = base64.b64decode(data["image/png"])
    smaller = io.BytesIO()
    with Image.open(io.BytesIO(original)) as image:
        if image.mode == "P":
            return  # it has its palette already
        # the largest error of a colour is kept small: a few purple pixels stay purple
        plain = image.convert("RGB").quantize(
            128, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
        )
        plain.save(smaller, "PNG", optimize=True)
    if smaller.tell() < len(original):
        data["image/png"] = base64.b64encode(smaller.getvalue()).decode()


def problems(path: Path) -> list[str]:
    """What breaks the course's form in a committed notebook, one sentence each; empty if none."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    found = []
    if path.stat().st_size > MAX_NOTEBOOK_BYTES:
        found.append(f"is larger than {MAX_NOTEBOOK_BYTES // 1000} KB")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("has another kernelspec than python3")
    found += _problems_of_parameters(notebook.cells)
    found += _problems_of_text(notebook.cells)
    found += exercises.problems(notebook) if path.name.startswith(exercises.CHAPTERS) else []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            found += [f"cell {index} {problem}" for problem in _problems_of_code(cell)]
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        found.append("was not executed from top to bottom in a fresh kernel")
    return found


def refresh(folder: Path | None = None, beginnings: tuple[str, ...] = ("",)) -> list[Path]:
    """Execute notebooks anew at their defaults and clean them; each is replaced only when
    it ran through. All are, or those whose names begin so: ("03", "04").
    Raises GillError if one breaks the course's form or the budget."""
    folder = folder or repository_root() / "notebooks"
    every = chapters(folder)
    paths = [path for path in every if path.name.startswith(beginnings)]
    if not paths:
        raise GillError(f"there is no such notebook in {folder}.")
    for path in paths:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".refresh-") as scratch:
            executed = Path(scratch) / path.name
            with measuring() as cost:
                execute(path, executed, {})
            normalise(executed)
            _write_measured(executed, cost)
            if found := problems(executed):
                raise GillError(f"{path.name} {found[0]}: mend it and run `make notebooks` again.")
            write_bytes(path, executed.read_bytes())
    total = sum(path.stat().st_size for path in every)
    if total > MAX_TOTAL_BYTES:
        raise GillError(f"the notebooks take {total} bytes, more than {MAX_TOTAL_BYTES}.")
    return paths


@contextmanager
def measuring():
    """Fills a dict with the `seconds` and the `memory_gb` that the block's kernels took at most."""
    import psutil

    cost, done = {"seconds": 0.0, "memory_gb": 0.0}, threading.Event()

    def watch():
        while not done.wait(0.2):
            kernels = psutil.Process().children(recursive=True)
            held = sum(_resident(kernel) for kernel in kernels) / 2**30
            cost["memory_gb"] = max(cost["memory_gb"], held)

    watcher, began = threading.Thread(target=watch, daemon=True), time.monotonic()
    watcher.start()
    try:
        yield cost
    finally:
        done.set()
        watcher.join()
        cost["seconds"] = time.monotonic() - began


def _resident(process) -> int:
    """Bytes a process holds; 0 for one that has just ended."""
    import psutil

    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def _write_measured(path: Path, cost: dict) -> None:
    """Put what a run took into the line of the first cell that is there for it."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    line = (
        f"- **Measured:** {cost['seconds']:.0f} seconds and {cost['memory_gb']:.1f} GB of memory "
        f"at the defaults, on {usable_cores()} cores without a GPU."
    )
    notebook.cells[0].source = MEASURED.sub(line, notebook.cells[0].source)
    write_text(path, nbformat.writes(notebook).rstrip() + "\n")


def _problems_of_parameters(cells) -> list[str]:
    code = [c for c in cells if c.cell_type == "code"]
    tagged = [i for i, c in enumerate(code) if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        return [f"has {len(tagged)} cells tagged parameters instead of one"]
    following = code[tagged[0] + 1 : tagged[0] + 2]
    if not following or "validate_parameters" not in following[0].source:
        return ["does not validate its parameters in the cell behind them"]
    lines = [line for line in code[tagged[0]].source.splitlines() if "=" in line]
    return ["has a parameter without a comment"] if any("#" not in x for x in lines) else []


def _problems_of_text(cells) -> list[str]:
    from gill_lite.report.page import DISCUSSION

    text = [c.source.lower() for c in cells if c.cell_type == "markdown"]
    if not text:
        return ["has no text"]
    found = [f"does not open with '{word}'" for word in OPENING if word not in text[0]]
    if not MEASURED.search(cells[0].source):
        found.append("has no line for the measured time and memory")
    if any(TYPED.search(cell.source) for cell in cells if cell.source.startswith(DISCUSSION)):
        found.append("has typed in results; its tables have the numbers, the discussion has words")
    for words in (len(part.split()) for source in text for part in BREAK.split(source)):
        if words > MAX_PARAGRAPH_WORDS:
            found.append(f"has a paragraph of {words} words, more than {MAX_PARAGRAPH_WORDS}")
    return found + [f"does not close with '{word}'" for word in CLOSING if word not in text[-1]]


def _problems_of_code(cell) -> list[str]:
    found = []
    imports = ("import ", "from ")
    lines = sum(not line.startswith(imports) for line in cell.source.splitlines())
    if lines > MAX_CELL_LINES:
        found.append(f"has {lines} lines, more than {MAX_CELL_LINES}")
    if any(output.output_type == "error" for output in cell.outputs):
        found.append("holds an error")
    if any(output.get("name") == "stderr" for output in cell.outputs):
        found.append("holds stderr output (run `make notebooks`)")
    return found


def _refuse_machine_paths(outputs, where: str) -> None:
    folders = {str(repository_root()), str(Path.home()), sys.prefix} - {"/"}
    for output in outputs:
        texts = [output.get("text", "")]
        texts += [v for k, v in output.get("data", {}).items() if not k.startswith("image/")]
        for folder in folders:
            if any(folder in str(text) for text in texts):
                raise GillError(f"{where} prints a folder of this machine ({folder}): drop it.")


if __name__ == "__main__":
    try:
        done = refresh(beginnings=tuple(sys.argv[1:]) or ("",))
        print("\n".join(f"executed {path.name}" for path in done))
    except GillError as error:
        sys.exit(f"make notebooks: {error}")
