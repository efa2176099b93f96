"""README.md and docs/results.md: written by code, true to the committed runs, short."""

import re

import pytest

from gill_lite.errors import GillError
from gill_lite.evaluation.tables import choose
from gill_lite.experiments import readme
from gill_lite.files import read_json
from tests.helpers.places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BYTES = 10_000


@pytest.fixture(scope="module")
def results():
    return readme.reference_runs(ROOT / "results")


def test_it_can_be_read_in_one_sitting():
    assert len(README.encode()) <= BYTES


def test_it_lists_every_notebook():
    folder = ROOT / "notebooks"
    assert readme.with_course(README, folder) == README
    for path in folder.glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in README


def test_both_pages_show_the_reference_runs(results):
    assert readme.with_findings(README, results) == README
    verdicts = re.findall(r"\| (?:not )?reproduced \||within noise \|", README)
    assert len(verdicts) == len(readme.TELLING), "a row each, with a verdict"
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    novel = readme.novel_runs(ROOT / "results")
    assert readme.with_results(page, results, novel) == page
    assert page.count("eligible examples scored") == len(results) + len(novel)
    assert len(results) == len(choose(["all", "family"]))


def test_the_page_on_training_tells_what_the_manifest_kept():
    stages = read_json(ROOT / "data/mini/manifest.json")["stages"]
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    assert readme.placed(page, "stages", readme.stages_text(stages)) == page
    assert "5.6 h" in readme.stages_text({"denoiser": stages["denoiser"] | {"seconds": 20_300}})


def test_its_lines_of_python_answer_and_draw(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.chdir(tmp_path)
    [code] = readme.PYTHON.findall(README)
    assert len([line for line in code.splitlines() if line]) <= 12
    exec(code, {})
    said = capsys.readouterr().out.strip()
    assert f'"{said}"' in " ".join(README.split()), "what README quotes is what GILL says"
    assert (tmp_path / "answer.png").stat().st_size > 10_000


def test_a_page_without_a_place_is_refused():
    page = "a\n<!-- where: x -->\nold\n<!-- /where -->\nb"
    new = "a\n<!-- where: x -->\n\nnew\n\n<!-- /where -->\nb"
    assert readme.placed(page, "where", "new") == new == readme.placed(new, "where", "new")
    with pytest.raises(GillError, match="lacks the lines"):
        readme.placed("nothing", "where", "new")
