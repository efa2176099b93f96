"""A run as Markdown: a page a claim, whole or not at all, and beside another run."""

import json
import re
import shutil

import pytest

from gill_lite.cli.main import main
from gill_lite.report import claims
from tests.helpers.places import ROOT


@pytest.fixture
def run(tmp_path):
    """A run folder with the committed results and one figure."""
    shutil.copytree(ROOT / "results", tmp_path / "run" / "results")
    figures = json.loads((ROOT / "results" / "table1_vist.json").read_text())["figures"]
    figure = tmp_path / "run" / figures[0]
    figure.parent.mkdir(parents=True)
    figure.write_bytes(b"a picture")
    return tmp_path / "run"


def change(run, claim: str, difference: float) -> None:
    """The run with another difference of one claim, its interval as wide as it was, and a row."""
    path = run / "results" / "table1_vist.json"
    content = json.loads(path.read_text())
    row = next(row for row in content["verdicts"] if row["id"] == claim)
    for side in ("low", "high"):
        row[side] += difference - row["difference"]
    row["difference"] = difference
    content["rows"][0]["mean"] += 0.1
    path.write_text(json.dumps(content))


def test_every_claim_has_a_page_with_its_evidence(run, capsys):
    assert main(["logbook", str(run)]) == 0
    book = run / "logbook"
    assert capsys.readouterr().out == f"wrote {book / 'README.md'}\n"
    names = {claim.id for claim in claims.read_claims()}
    assert {path.stem for path in (book / "claims").iterdir()} == names
    page = (book / "claims" / "vist-images-help.md").read_text()
    assert "- **Evidence:** mini world" in page and "gill-lite reproduce --tables 1" in page
    assert "clip_similarity: gill/captions5_images4 - gill/captions5 > 0" in page


def test_every_link_of_the_book_leads_somewhere(run):
    main(["logbook", str(run)])
    pages = list((run / "logbook").rglob("*.md"))
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([^)]+)\)", page.read_text())
    ]
    assert any(link.endswith(".png") for _, link in links), "the figure is shown"
    assert not [link for page, link in links if not (page.parent / link).is_file()]


def test_a_run_beside_itself_differs_in_nothing(run):
    main(["logbook", str(run), "--against", str(ROOT / "results")])
    told = (run / "logbook" / "compare.md").read_text()
    assert "every number of every table is the same" in told and "**differs**" not in told


def test_a_run_beside_another_shows_what_differs(run, tmp_path):
    change(run, "vist-five-captions", 0.3)
    main(["logbook", str(run), "-o", str(tmp_path / "book"), "--against", str(ROOT / "results")])
    told = (tmp_path / "book" / "compare.md").read_text()
    (line,) = [line for line in told.splitlines() if "**differs**" in line]
    assert (
        "vist-five-captions" in line and "| reproduced: 0.300" in line and "not reproduced" in line
    )
    numbers = told.split("## Numbers that differ")[1]
    assert numbers.count("table1_vist") == 1


def test_paper_scale_is_said(run):
    path = run / "results" / "table1_vist.json"
    content = json.loads(path.read_text())
    content["provenance"]["profile"] = "paper"
    path.write_text(json.dumps(content))
    main(["logbook", str(run)])
    assert "| paper scale |" in (run / "logbook" / "README.md").read_text()
    assert "| mini world |" in (run / "logbook" / "README.md").read_text()


def test_what_cannot_be_a_logbook_is_one_sentence(run, tmp_path, capsys):
    assert main(["logbook", str(tmp_path / "gone")]) == 2
    assert "holds no results; name a run folder" in capsys.readouterr().err
    (run / "results" / "table1_vist.json").write_text("{")
    assert main(["logbook", str(run)]) == 2
    assert "table1_vist.json" in capsys.readouterr().err
    assert not (run / "logbook").exists()


def test_a_folder_with_something_in_it_stays_as_it_is(run, capsys):
    (run / "logbook").mkdir()
    (run / "logbook" / "mine.md").write_text("mine")
    assert main(["logbook", str(run)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in (run / "logbook").iterdir()] == ["mine.md"]
