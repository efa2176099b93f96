"""`gill-lite reproduce` over several tables, with notebooks that compute nothing."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from pretended import pretend_repository

from gill_lite import cli, reproduce
from gill_lite.evaluate.catalog import TABLES as EVALUATED
from gill_lite.files import read_json

PARAMETERS = """profile = "mini"  # a
seeds = [0]  # b
{size} = 3  # c
recompute = False  # d
output_dir = ""  # e
run_seed = 0  # f
protocol = "corrected"  # g"""
WRITE = """import json, pathlib
name = "{name}" + ("_official" if protocol == "official" else "")
settings = dict(seeds=seeds, size={size}, run_seed=run_seed, protocol=protocol)
rows = [dict(method="m", context="c", metric="x", mean=0.5, low=0.4, high=0.6, n=3, undefined="",
             paper=None, paper_pm=None)]
result = dict(table=name, title=f"Title of {{name}}", rows=rows, verdicts=[], figures=[],
              counts=dict(scored=3, eligible=3, skipped={{}}), provenance=settings)
path = pathlib.Path(output_dir, "results", name + ".json")
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps(result))"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A pretended repository; returns a function that writes a table's notebook."""
    pretend_repository(tmp_path, monkeypatch)

    def write(number: str, source: str | None = None):
        table = reproduce.TABLES[number]
        source = source or WRITE.format(name=table.name, size=table.size)
        cells = [new_code_cell(PARAMETERS.format(size=table.size)), new_code_cell(source)]
        cells[0].metadata["tags"] = ["parameters"]
        metadata = {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}
        notebook = new_notebook(cells=cells, metadata=metadata)
        nbformat.write(notebook, tmp_path / "repo/notebooks" / table.notebook)

    return write


def given(name: str) -> dict:
    return read_json(Path("run/results") / f"{name}.json")["provenance"]


def test_each_table_is_given_its_own_size_and_the_defaults(repository, capsys):
    repository("1")
    repository("2")
    assert cli.main("reproduce --tables 1,2 --num-dialogues 7 -o run".split()) == 0
    expected = {"seeds": [0, 1, 2], "run_seed": 0, "protocol": "corrected"}
    assert given("table1_vist") == {**expected, "size": 300}
    assert given("table2_visdial") == {**expected, "size": 7}
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert page.index("Title of table1_vist") < page.index("Title of table2_visdial")
    assert json.loads(Path("run/results/table1_vist.json").read_text())["rows"]


def test_the_official_protocol_has_results_of_its_own(repository):
    repository("1")
    assert cli.main("reproduce --protocol official --run-seed 42 -o run".split()) == 0
    told = given("table1_vist_official")
    assert (told["protocol"], told["run_seed"]) == ("official", 42)


def test_a_failing_notebook_leaves_the_others_results(repository, capsys):
    repository("1", "raise ValueError('broken')")
    repository("2")
    assert cli.main("reproduce --tables 1,2 -o run".split()) == 1
    told = capsys.readouterr()
    assert "10_reproduce_table1_vist.ipynb failed in cell" in told.err and "broken" in told.err
    assert "Title of table2_visdial" in told.out and given("table2_visdial")["size"] == 300
    assert "Title of table2_visdial" in Path("run/report.html").read_text(encoding="utf-8")


def test_a_notebook_that_is_not_there_is_named(repository, capsys):
    repository("2")
    assert cli.main("reproduce --tables 1,2 -o run".split()) == 1
    told = capsys.readouterr().err
    assert "10_reproduce_table1_vist.ipynb is missing; restore it from git" in told
    assert Path("run/results/table2_visdial.json").is_file()


def test_what_is_reproduced_is_what_is_evaluated():
    for number, table in reproduce.TABLES.items():
        spec = EVALUATED[number]
        assert table.name == spec.name and table.size == f"num_{spec.task.examples}"
