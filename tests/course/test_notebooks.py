"""The course's notebooks keep their form, and the tools that enforce it can tell."""

import base64
import io
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from gill_lite.course import hand_out, kernels, notebooks
from gill_lite.errors import GillError
from gill_lite.world import render, scene
from tests.helpers.places import ROOT

COMMITTED = sorted((ROOT / "notebooks").glob("*.ipynb"))


def good_notebook():
    """The smallest notebook that keeps every rule, as executed."""
    cells = [
        new_markdown_cell(
            "# Try\nWhat you will do, what you will learn, what you need.\n- **Measured:** not yet"
        ),
        new_code_cell("flag = False  # whether", execution_count=1),
        new_code_cell(
            "from gill_lite.course import lab\nlab.validate_parameters({'flag': False}, globals())",
            execution_count=2,
        ),
        new_code_cell(
            "print(flag)",
            execution_count=3,
            outputs=[new_output("stream", name="stdout", text="False\n")],
        ),
        new_markdown_cell("Recap · paper versus code · go further"),
    ]
    cells[1].metadata["tags"] = ["parameters"]
    metadata = {"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}}
    return new_notebook(cells=cells, metadata=metadata)


def saved(notebook, folder: Path) -> Path:
    path = folder / "00_try.ipynb"
    nbformat.write(notebook, path)
    return path


def test_there_are_notebooks():
    assert COMMITTED, "nothing to teach with"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_notebooks_keep_the_form(path):
    assert notebooks.problems(path) == []


def test_committed_notebooks_fit_the_budget():
    assert sum(path.stat().st_size for path in COMMITTED) <= notebooks.MAX_TOTAL_BYTES


def test_a_good_notebook_has_no_problems(tmp_path):
    assert notebooks.problems(saved(good_notebook(), tmp_path)) == []


def break_tag(nb):
    nb.cells[1].metadata = {}


def break_validation(nb):
    nb.cells[2].source = "pass"


def break_comment(nb):
    nb.cells[1].source = "flag = False"


def break_opening(nb):
    nb.cells[0].source = "# Try"


def break_measured(nb):
    nb.cells[0].source = nb.cells[0].source.replace("**Measured:**", "")


def break_closing(nb):
    nb.cells[-1].source = "Recap."


def break_discussion(nb):
    nb.cells.insert(4, new_markdown_cell("**What came out.** GILL has 0.75 of them right."))


def break_paragraph(nb):
    point = "- " + "word " * (notebooks.MAX_PARAGRAPH_WORDS - 1) + "\n"  # a point of a list is one
    nb.cells.insert(4, new_markdown_cell(2 * point + "1. one " + "more " * 99))


def break_length(nb):
    nb.cells[3].source = "\n".join(["pass"] * 21)


def break_order(nb):
    nb.cells[3].execution_count = 7


def break_error(nb):
    nb.cells[3].outputs = [new_output("error", ename="E", evalue="", traceback=[])]


def break_stderr(nb):
    nb.cells[3].outputs = [new_output("stream", name="stderr", text="10%|#  |")]


def break_kernel(nb):
    nb.metadata.kernelspec.name = "my-env"


def break_size(nb):
    picture = base64.b64encode(bytes(notebooks.MAX_NOTEBOOK_BYTES)).decode()
    nb.cells[3].outputs = [new_output("display_data", data={"image/png": picture})]


@pytest.mark.parametrize(
    ("break_it", "word"),
    [
        (break_tag, "tagged parameters"),
        (break_validation, "does not validate"),
        (break_comment, "without a comment"),
        (break_opening, "does not open"),
        (break_measured, "no line for the measured time"),
        (break_closing, "does not close"),
        (break_discussion, "typed in results"),
        (break_paragraph, "has a paragraph of 101 words, more than 100"),
        (break_length, "21 lines"),
        (break_order, "top to bottom"),
        (break_error, "holds an error"),
        (break_stderr, "stderr"),
        (break_kernel, "kernelspec"),
        (break_size, "larger than 600 KB"),
    ],
)
def test_each_broken_rule_is_told(break_it, word, tmp_path):
    notebook = good_notebook()
    break_it(notebook)
    found = notebooks.problems(saved(notebook, tmp_path))
    assert any(word in problem for problem in found), found


def test_normalise_drops_what_differs_between_machines(tmp_path):
    notebook = good_notebook()
    notebook.metadata["papermill"] = {"duration": 3.2, "input_path": "somewhere"}
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    notebook.cells[3].metadata["nbgrader"] = {"grade": True}
    for cell in notebook.cells:
        cell.metadata["papermill"] = {"start_time": "2026-01-01"}
        cell.metadata["execution"] = {"iopub.execute_input": "2026-01-01"}
    notebook.cells[3].outputs.append(new_output("stream", name="stderr", text="10%|#  |\r"))
    notebook.cells[3].outputs.append(new_output("stream", name="stdout", text="and more\n"))
    path = saved(notebook, tmp_path)
    notebooks.normalise(path)
    first = path.read_bytes()
    notebooks.normalise(path)
    assert path.read_bytes() == first, "cleaning twice changes nothing"
    text = first.decode()
    for word in ("papermill", "3.11.7", "2026", "stderr", "10%"):
        assert word not in text
    cleaned = nbformat.read(path, as_version=4)
    assert cleaned.cells[1].metadata == {"tags": ["parameters"]}
    assert cleaned.cells[3].metadata == {"nbgrader": {"grade": True}}
    assert [output.text for output in cleaned.cells[3].outputs] == ["False\nand more\n"]


def test_a_cell_that_only_draws_is_folded(tmp_path):
    notebook = good_notebook()
    notebook.cells[3].metadata = {"tags": ["hide-input"], "jupyter": {"outputs_hidden": True}}
    path = saved(notebook, tmp_path)
    notebooks.normalise(path)
    folded = nbformat.read(path, as_version=4).cells[3].metadata
    assert folded == {"tags": ["hide-input"], "jupyter": {"source_hidden": True}}
    handed_out = hand_out.student(nbformat.read(path, as_version=4)).cells[3]
    assert handed_out.metadata == folded


def test_a_chapter_must_have_its_exercises(tmp_path):
    path = tmp_path / "05_try.ipynb"
    nbformat.write(good_notebook(), path)
    assert "has 0 exercises instead of two to four" in notebooks.problems(path)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_normalise_changes_no_committed_notebook(path, tmp_path):
    copy = Path(shutil.copy(path, tmp_path))
    notebooks.normalise(copy)
    assert copy.read_bytes() == path.read_bytes(), "run `make notebooks`"


@pytest.mark.parametrize("folder", [ROOT, Path.home()])
def test_normalise_refuses_folders_of_this_machine(folder, tmp_path):
    notebook = good_notebook()
    notebook.cells[3].outputs = [new_output("stream", name="stdout", text=f"in {folder}/data")]
    path = saved(notebook, tmp_path)
    before = path.read_bytes()
    with pytest.raises(GillError, match="cell 3 prints a folder"):
        notebooks.normalise(path)
    assert path.read_bytes() == before


def test_refresh_executes_and_cleans(tmp_path):
    notebook = good_notebook()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    path = saved(notebook, tmp_path)
    assert notebooks.refresh(tmp_path) == [path]
    assert notebooks.problems(path) == []
    executed = nbformat.read(path, as_version=4)
    assert executed.cells[3].outputs[0].text == "False\n"
    seconds, gigabytes = re.search(
        r"\*\* (\d+) seconds and ([\d.]+) GB", executed.cells[0].source
    ).groups()
    assert 0 < int(seconds) < 300 and 0 < float(gigabytes) < 2, "a bare kernel"
    assert list(tmp_path.iterdir()) == [path], "no scratch is left behind"


def test_refresh_can_do_some_only(tmp_path):
    path = saved(good_notebook(), tmp_path)
    (tmp_path / "01_broken.ipynb").write_text("not read")
    assert notebooks.refresh(tmp_path, ("00",)) == [path]
    with pytest.raises(GillError, match="no such notebook"):
        notebooks.refresh(tmp_path, ("07",))


def test_refresh_leaves_a_failing_notebook_alone(tmp_path):
    from papermill.exceptions import PapermillExecutionError

    notebook = good_notebook()
    notebook.cells[3].source = "1 / 0"
    path = saved(notebook, tmp_path)
    before = path.read_bytes()
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError"):
        notebooks.refresh(tmp_path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_parameter_given_as_text_is_refused_in_the_notebook(tmp_path):
    from papermill.exceptions import PapermillExecutionError

    path = saved(good_notebook(), tmp_path)
    with pytest.raises(PapermillExecutionError, match="'flag' must be True or False"):
        kernels.execute(path, tmp_path / "out.ipynb", {"flag": "false"}, progress=False)
    assert (tmp_path / "out.ipynb").is_file(), "the record of the failure stays"


def test_a_notebook_whose_kernel_was_stripped_is_refused_in_one_sentence(tmp_path):
    stripped, name = good_notebook(), COMMITTED[0].name
    stripped.metadata = {}
    nbformat.write(stripped, tmp_path / name)
    with pytest.raises(GillError, match=f"{name} names no kernel; restore it from git, or set"):
        kernels.execute(tmp_path / name, tmp_path / "out.ipynb", {}, progress=False)


def test_a_parameter_nobody_reads_is_refused_before_the_run(tmp_path):
    path = saved(good_notebook(), tmp_path)
    with pytest.raises(GillError, match="00_try.ipynb has no parameter 'flagg'; it has flag"):
        kernels.execute(path, tmp_path / "out.ipynb", {"flagg": True}, progress=False)
    assert not (tmp_path / "out.ipynb").exists()


def test_no_colour_becomes_another_in_the_palette():
    strip = Image.new("RGB", (3 * 128, 128), "white")
    for place, (color, where, time) in enumerate(
        [("green", "forest", "day"), ("blue", "desert", "night"), ("purple", "beach", "night")]
    ):
        one = scene.Scene("ball", color, "small", "left", where, time)
        drawn = render.render(one, scene.rng_for("palette", place))
        strip.paste(drawn.resize((128, 128), Image.Resampling.BICUBIC), (128 * place, 0))
    content = io.BytesIO()
    strip.save(content, "PNG")
    data = {"image/png": base64.b64encode(content.getvalue()).decode()}
    notebooks._with_fewer_colors(data)
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as image:
        assert image.mode == "P", "it was worth it"
        kept = np.asarray(image.convert("RGB"), dtype=int)
    assert np.abs(kept - np.asarray(strip)).max() < 40
