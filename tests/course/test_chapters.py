"""Stray and broken notebooks, and a user's environment: the course is made and run all the same."""

import json
import os
import shutil
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from gill_lite.course import hand_out, kernels
from gill_lite.course.chapters import chapters
from gill_lite.errors import GillError
from tests.helpers.places import ROOT

FIGURE = """\
import os
import sys

from gill_lite.course import lab

lab.setup()
import matplotlib.pyplot as plt

print(os.environ.get("OMP_NUM_THREADS"), __debug__, len(sys.warnoptions), sys.prefix)
plt.plot([1, 2])
plt.show()
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone's notebooks and docs, as `hand_out.build` reads them."""
    for name in ("notebooks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / "clone" / name)
    monkeypatch.setattr(hand_out, "repository_root", lambda: tmp_path / "clone")
    return tmp_path / "clone"


def test_strays_are_named_and_left_out(clone, tmp_path, capsys):
    folder = clone / "notebooks"
    ours = [path.name for path in chapters(folder)]
    assert ours == [path.name for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    strays = ["03_learn_img_tokens-Copy1.ipynb", "Untitled.ipynb", "Untitled1.ipynb"]
    shutil.copyfile(folder / "03_learn_img_tokens.ipynb", folder / strays[0])
    for name in strays[1:]:
        (folder / name).write_text("")
    hand_out.build("student", tmp_path / "student")
    assert [path.name for path in sorted((tmp_path / "student" / "notebooks").iterdir())] == ours
    told = capsys.readouterr().err
    assert all(f"skipped: {name} is no chapter" in told for name in strays)


@pytest.mark.parametrize(
    "content, what",
    [
        ("", "is empty"),
        ('{"cells": [', "is not a whole notebook"),
        ("<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> x\n", "holds the marks of a merge"),
    ],
)
def test_a_broken_chapter_is_one_sentence_and_nothing_is_written(clone, tmp_path, content, what):
    (clone / "notebooks" / "03_learn_img_tokens.ipynb").write_text(content)
    said = f"03_learn_img_tokens.ipynb {what}.*`git -C .* checkout -- 03_"
    with pytest.raises(GillError, match=said):
        hand_out.build("student", tmp_path / "student")
    assert not (tmp_path / "student").exists()
    with pytest.raises(GillError, match=what):
        kernels.execute(clone / "notebooks/03_learn_img_tokens.ipynb", tmp_path / "x.ipynb", {})


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """An environment that would spoil a notebook."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = ["/gone/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "gone", "language": "python"}))
    startup = tmp_path / "ipython" / "profile_default" / "startup" / "00.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("raise SystemExit('a profile of the user')")
    home = tmp_path / "home"
    home.write_text("a file: nothing can be written below it")
    for name, value in {
        "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "512", "HOME": str(home), "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "1",
        "JUPYTER_PATH": str(tmp_path / "jupyter"), "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_CONFIG_DIR": str(home / "config"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def test_a_notebook_runs_alike_in_any_environment(foreign, tmp_path):
    source, done = tmp_path / "00_figure.ipynb", tmp_path / "done.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(FIGURE)], metadata=kernel), source)
    before = dict(os.environ)
    kernels.execute(source, done, {}, progress=False)
    assert dict(os.environ) == before, "what the user has set is put back"
    outputs = nbformat.read(done, as_version=4).cells[0].outputs
    (printed,) = [
        output.text.split(maxsplit=3) for output in outputs if output.get("name") == "stdout"
    ]
    assert printed[3].strip() == sys.prefix and int(printed[0]) <= os.cpu_count()
    assert printed[1:3] == ["True", "0"], "asserts hold, warnings are no errors"
    assert any("image/png" in output.get("data", {}) for output in outputs), "the figure is there"
