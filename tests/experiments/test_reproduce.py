"""`gill-lite reproduce` over several tables, with notebooks that compute nothing."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from gill_lite.cli import main as cli
from gill_lite.evaluation.tables import TABLES, choose
from gill_lite.experiments import reproduce
from gill_lite.files import read_json
from gill_lite.training import recipes
from tests.helpers.places import ROOT
from tests.helpers.pretended import parameters, pretend_repository, write_notebook

WRITE = """import json, pathlib
name = "{name}" + ("_official" if protocol == "official" else "")
settings = dict(seeds=seeds, sizes=[{sizes}], run_seed=run_seed, protocol=protocol)
made = dict(command="c", git_commit="g", lock_sha256="l", weights_manifest_sha256="w",
            hardware=dict(processor="p", cores=2), wall_seconds=1, peak_memory_mb=1,
            profile="mini", finished_utc="now")
rows = [dict(method="m", context="c", metric="x", mean=0.5, low=0.4, high=0.6, n=3, undefined="",
             paper=None, paper_pm=None)]
result = dict(table=name, title=f"Title of {{name}}", rows=rows, verdicts=[], figures=[],
              counts=dict(scored=3, eligible=3, skipped={{}}), settings=settings, provenance=made)
path = pathlib.Path(output_dir, "results", name + ".json")
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps(result))"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A pretended repository; returns a function that writes a table's notebook."""
    pretend_repository(tmp_path, monkeypatch)

    def write(number: str, source: str | None = None):
        table = TABLES[number]
        source = source or WRITE.format(name=table.name, sizes=", ".join(table.sizes))
        write_notebook(tmp_path, source, parameters(*table.sizes), table.notebook)

    return write


def given(name: str) -> dict:
    return read_json(Path("run/results") / f"{name}.json")["settings"]


def test_each_table_is_given_its_own_size_and_the_defaults(repository, capsys):
    repository("1")
    repository("2")
    assert cli.main("reproduce --tables 1,2 --num-dialogues 7 -o run".split()) == 0
    expected = {"seeds": list(recipes.there("gill")), "run_seed": 0, "protocol": "corrected"}
    assert given("table1_vist") == {**expected, "sizes": [300]}
    assert given("table2_visdial") == {**expected, "sizes": [7]}
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert page.index("Title of table1_vist") < page.index("Title of table2_visdial")
    assert json.loads(Path("run/results/table1_vist.json").read_text())["rows"]


def test_the_report_and_the_terminal_show_each_table_as_soon_as_it_is_there(
    repository, capsys, monkeypatch
):
    monkeypatch.setattr(reproduce, "usable_cores", lambda: 1)
    for table in ("1", "2", "retrieval"):
        repository(table)
    pages, told, inner = [], [], reproduce._tell

    def tell(*arguments):
        pages.append(Path("run/report.html").read_text(encoding="utf-8"))
        inner(*arguments)
        told.append(capsys.readouterr().out)

    monkeypatch.setattr(reproduce, "_tell", tell)
    assert cli.main("reproduce --tables 1,2,retrieval -o run".split()) == 0
    order = ["retrieval", "table1_vist", "table2_visdial"]  # the quickest first
    for page, text, name, number in zip(pages, told, order, range(3), strict=True):
        assert f"Title of {name}" in page and f"Title of {name}" in text
        assert ('http-equiv="refresh"' in page) == ("Still to come" in page) == (number < 2)
    assert TABLES["1"].title in pages[0] and "Title of table1_vist" not in pages[0]
    assert f"loads itself anew:\n<ul><li>{TABLES['2'].title}</li></ul>" in pages[1]
    assert "report so far: run/report.html, 1 to come" in told[2]


def test_tables_that_share_pictures_wait_for_each_other():
    one, two, mappers, context, found = (
        TABLES[name] for name in ("1", "2", "mappers", "context", "retrieval")
    )
    free = partial(reproduce.shares_nothing, seeds=None)
    assert free(two, [one], []) and free(found, [one], []), "of other tasks, and nothing drawn"
    assert not free(mappers, [one], []), "GILL on a full story is in both"
    assert not free(mappers, [context], [])
    assert free(mappers, [context], [one]), "what they share is made"


def test_two_tables_are_made_at_the_same_time(repository, monkeypatch, tmp_path):
    monkeypatch.setattr(reproduce, "usable_cores", lambda: 2)
    for table, other in (("1", "2"), ("2", "1")):
        mine, its = str(tmp_path / f"begun-{table}"), str(tmp_path / f"begun-{other}")
        wait = (
            f"import pathlib, time\npathlib.Path({mine!r}).touch()\nbegun = time.time()\n"
            f"while not pathlib.Path({its!r}).exists():\n"
            "    assert time.time() - begun < 60\n    time.sleep(0.1)\n"
        )
        name, sizes = TABLES[table].name, ", ".join(TABLES[table].sizes)
        repository(table, wait + WRITE.format(name=name, sizes=sizes))
    assert cli.main("reproduce --tables 1,2 -o run".split()) == 0


def test_a_notebook_that_is_being_made_is_not_read_yet(repository, tmp_path):
    """The report reads what ended while others run; half a notebook would break it."""
    folder = tmp_path / "run/notebooks"
    done, half = folder / TABLES["1"].notebook, str(folder / ".10_*.ipynb")
    look = (
        "import json, pathlib, glob\n"
        f"open('seen.json', 'w').write(json.dumps([pathlib.Path({str(done)!r}).exists(), "
        f"glob.glob({half!r})]))\n"
    )
    repository("1", look + WRITE.format(name=TABLES["1"].name, sizes="num_stories"))
    assert cli.main("reproduce --tables 1 -o run".split()) == 0
    there, beside = json.loads((tmp_path / "repo/seen.json").read_text())
    assert not there and len(beside) == 1
    assert done.is_file() and not list(folder.glob(".*"))


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
    for table in choose(["all"]):
        repository(table.typed)
    assert cli.main("reproduce --num-captions 5 --protocol official -o run".split()) == 0
    told = {table.typed: given(table.name + "_official" * table.protocols)
            for table in choose(["all"])}  # fmt: skip
    assert told["mappers"]["sizes"] == [300, 5] and told["decide"]["sizes"] == [900]
    assert told["context"]["seeds"] == [0, 1, 2]
    assert "tokens" not in told or told["tokens"]["seeds"] == [0]
    assert {n for n, t in told.items() if t["protocol"] == "official"} == {"1", "2"}


def test_every_table_has_its_notebook_and_its_parameters():
    """What reproduce gives is what the real notebooks take."""
    import papermill

    for table in choose(["all"]):
        notebook = reproduce.repository_root() / "notebooks" / table.notebook
        known = set(papermill.inspect_notebook(str(notebook)))
        wanted = {"profile", "seeds", "run_seed", "output_dir", "recompute", "joints_dir"}
        wanted |= {*table.sizes, *(["protocol"] if table.protocols else [])}
        assert wanted <= known, (table.number, wanted - known)


@pytest.mark.parametrize("where", ["gill_lite/cli/reproduce.py", "Makefile", "docs/batch.md"])
def test_every_table_is_named_where_one_looks_for_it(where):
    text = (ROOT / where).read_text(encoding="utf-8").replace("`", "").replace(", ", ",")
    assert ",".join(table.typed for table in choose(["all"])) in text


def test_retrain_makes_what_the_tables_need_once(monkeypatch, tmp_path, capsys):
    made = []

    def run(command):
        made.append(command[command.index("train") + 1 :])
        folder = Path(command[-1])
        folder.mkdir(parents=True)
        (folder / "joints.safetensors").write_bytes(b"")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(reproduce.subprocess, "run", run)
    root = reproduce.retrain(choose(["1", "retrieval"]), [0, 1], tmp_path)
    several = [s for s in (0, 1) if s in recipes.there("fromage")]
    wanted = {*(f"fromage-{s}" for s in several), "gill-0", "gill-1"}
    wanted |= {f"{lm}-0" for lm in recipes.lms_there()[1:]}
    assert {p.name for p in root.iterdir()} == wanted
    fromage = next(c for c in made if str(c[-1]).endswith("fromage-0"))
    assert fromage[:-1] == [
        "--mapper", "none", "--num-img-tokens", "1", "--seed", "0", "-o"
    ]  # fmt: skip
    assert "gill-lite train --mapper none" in capsys.readouterr().out
    reproduce.retrain(choose(["1", "retrieval"]), [0, 1], tmp_path)
    assert len(made) == len(wanted)  # nothing twice


def test_a_failing_training_stops_all(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(reproduce.subprocess, "run", lambda command: SimpleNamespace(returncode=1))
    monkeypatch.setattr(reproduce, "reproduce", lambda *a: pytest.fail("went on"))
    status = cli.main(["reproduce", "--tables", "1", "--retrain", "-o", str(tmp_path / "run")])
    assert status == 2
    assert "training gill-0 failed" in capsys.readouterr().err
