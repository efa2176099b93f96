"""`gill-lite reproduce` over several tables, with notebooks that compute nothing."""

import json
from pathlib import Path

import pytest

from gill_lite.cli import main as cli
from gill_lite.evaluation.tables import TABLES as EVALUATED
from gill_lite.experiments import reproduce
from gill_lite.files import read_json
from tests.helpers.pretended import parameters, pretend_repository, write_notebook

WRITE = """import json, pathlib
name = "{name}" + ("_official" if protocol == "official" else "")
settings = dict(seeds=seeds, sizes=[{sizes}], run_seed=run_seed, protocol=protocol)
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
        source = source or WRITE.format(name=table.name, sizes=", ".join(table.sizes))
        write_notebook(tmp_path, source, parameters(*table.sizes), table.notebook)

    return write


def given(name: str) -> dict:
    return read_json(Path("run/results") / f"{name}.json")["provenance"]


def test_each_table_is_given_its_own_size_and_the_defaults(repository, capsys):
    repository("1")
    repository("2")
    assert cli.main("reproduce --tables 1,2 --num-dialogues 7 -o run".split()) == 0
    expected = {"seeds": [0, 1, 2], "run_seed": 0, "protocol": "corrected"}
    assert given("table1_vist") == {**expected, "sizes": [300]}
    assert given("table2_visdial") == {**expected, "sizes": [7]}
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert page.index("Title of table1_vist") < page.index("Title of table2_visdial")
    assert json.loads(Path("run/results/table1_vist.json").read_text())["rows"]


def test_the_official_protocol_has_results_of_its_own(repository):
    repository("1")
    assert cli.main("reproduce --tables 1 --protocol official --run-seed 42 -o run".split()) == 0
    told = given("table1_vist_official")
    assert (told["protocol"], told["run_seed"]) == ("official", 42)


def test_a_failing_notebook_leaves_the_others_results(repository, capsys):
    repository("1", "raise ValueError('broken')")
    repository("2")
    assert cli.main("reproduce --tables 1,2 -o run".split()) == 1
    told = capsys.readouterr()
    assert "10_reproduce_table1_vist.ipynb failed in cell" in told.err and "broken" in told.err
    assert "Title of table2_visdial" in told.out and given("table2_visdial")["sizes"] == [300]
    assert "Title of table2_visdial" in Path("run/report.html").read_text(encoding="utf-8")


def test_a_notebook_that_is_not_there_is_named(repository, capsys):
    repository("2")
    assert cli.main("reproduce --tables 1,2 -o run".split()) == 1
    told = capsys.readouterr().err
    assert "10_reproduce_table1_vist.ipynb is missing; restore it from git" in told
    assert Path("run/results/table2_visdial.json").is_file()


def test_all_means_all_and_each_gets_what_it_has(repository):
    for number in reproduce.TABLES:
        repository(number)
    assert cli.main("reproduce --num-captions 5 --protocol official -o run".split()) == 0
    told = {table.number: table.name + "_official" * table.protocols
            for table in reproduce.TABLES.values()}  # fmt: skip
    told = {number: given(name) for number, name in told.items()}
    assert told["mappers"]["sizes"] == [300, 5] and told["decide"]["sizes"] == [900]
    assert told["tokens"]["seeds"] == [0] and told["context"]["seeds"] == [0, 1, 2]
    assert {n for n, t in told.items() if t["protocol"] == "official"} == {"1", "2"}


def test_every_table_has_its_notebook_and_its_parameters():
    """What reproduce gives is what the real notebooks take."""
    import papermill

    for table in reproduce.TABLES.values():
        notebook = reproduce.repository_root() / "notebooks" / table.notebook
        known = set(papermill.inspect_notebook(str(notebook)))
        wanted = {"profile", "seeds", "run_seed", "output_dir", "recompute", "joints_dir"}
        wanted |= {*table.sizes, *(["protocol"] if table.protocols else [])}
        assert wanted <= known, (table.number, wanted - known)


def test_what_is_reproduced_is_what_is_evaluated():
    drawn = [number for table in reproduce.TABLES.values() for number in table.drawn]
    assert sorted(drawn) == sorted(EVALUATED)
    for table in reproduce.TABLES.values():
        for number in table.drawn:
            assert f"num_{EVALUATED[number].task.examples}" in table.sizes
        if table.drawn:
            assert table.name == EVALUATED[table.drawn[0]].name
