"""The report: what it reads of results files, whatever they lack, and what its page says."""

import base64
import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from gill_lite.evaluation.tables import TABLES
from gill_lite.files import DATA
from gill_lite.report import claims, page, summary
from tests.helpers.places import ROOT

COMMITTED = DATA.parent / "results"
PNG = base64.b64encode(b"\x89PNG one").decode()
ROW = {
    "method": "GILL", "context": "5 captions", "metric": "CLIP similarity ↑", "mean": 0.5,
    "low": 0.4, "high": 0.6, "n": 3, "undefined": "", "paper": 0.612, "paper_pm": 0.0011,
}  # fmt: skip
PROVENANCE = {
    "command": "gill-lite reproduce --tables 1", "profile": "mini", "git_commit": "a" * 40,
    "lock_sha256": "b" * 64, "weights_manifest_sha256": "c" * 64, "wall_seconds": 90.0,
    "peak_memory_mb": 2048.0, "finished_utc": "2026-01-01 00:00:00",
    "hardware": {"processor": "Some <CPU>", "cores": 2, "gpu": None},
    "inputs": {"data": {"sha256": "d" * 64}, "joints": {"gill-0": "e" * 64, "mine-1": "f" * 64}},
}  # fmt: skip


def verdict_row(name: str, difference: float | None, half: float = 0.1) -> dict:
    """A verdict of a results file, its interval `half` to each side."""
    claim = next(claim for claim in claims.read_claims() if claim.id == name)
    known = difference is not None
    return {"id": name, "statement": claim.statement, "verdict": "as stored", "n": 90,
            "difference": difference, "low": difference - half if known else None,
            "high": difference + half if known else None, "undefined": "" if known else "not run",
            "source": claim.source, "statistic": claim.statistic.text}  # fmt: skip


def judged() -> list:
    """Claims of GILL's paper that have a statistic."""
    every = [claim for claim in claims.read_claims() if claim.statistic.bounds]
    return [claim for claim in every if claims.GILL in claim.source]


def vist(**changes) -> dict:
    """A results file of Table 1."""
    return {
        "table": "table1_vist", "title": "Table 1 <VIST>", "topic": "vist", "rows": [ROW],
        "verdicts": [verdict_row("vist-five-captions", 0.3), verdict_row("vist-images-help", 0.05)],
        "counts": {"scored": 8, "eligible": 9, "skipped": {"missing image": 1}},
        "settings": {"seeds": [0, 1]}, "provenance": PROVENANCE, "figures": [], **changes,
    }  # fmt: skip


def decide() -> dict:
    control = {"id": "control-coin", "statement": "Better than a coin", "verdict": "not reproduced",
               "difference": -0.01, "low": -0.02, "high": -0.005, "n": 90, "undefined": "",
               "source": "control", "statistic": "macro F1: linear - coin > 0"}  # fmt: skip
    return vist(table="decide", title="Decide", topic="decide", controls=[control],
                verdicts=[verdict_row("decide-f1", 0.2)])  # fmt: skip


def saved(folder: Path, **results) -> Path:
    """Results files in a folder of their own."""
    (folder / "results").mkdir(parents=True, exist_ok=True)
    for name, content in results.items():
        (folder / "results" / f"{name}.json").write_text(json.dumps(content))
    return folder / "results"


def complete(**results) -> dict:
    return {name: summary.complete(result) for name, result in results.items()}


def page_of(results: dict, folder: Path, problems=(), **options) -> str:
    path = page.write(folder, complete(**results), list(problems), {"profile": "mini"}, **options)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


# ---- reading -----------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_claims(tmp_path):
    other = vist(table="zz", topic="zz", verdicts=[])
    folder = saved(tmp_path, aa=decide(), table1_vist=vist(), zz=other, search={"trials": []})
    (folder / "table1_vist_scores.csv").write_text("example\n")
    assert list(summary.read_results(folder)[0]) == ["table1_vist", "aa", "zz"]


def test_a_table_without_a_topic_is_known_by_its_claims():
    old = vist()
    del old["topic"]
    assert summary.complete(old)["topic"] == "vist"
    official = vist(table="context_official", verdicts=[], topic="")
    assert summary.complete(official)["topic"] == "context"


def test_the_committed_results_make_a_report(tmp_path):
    results, problems = summary.read_results(COMMITTED)
    assert problems == []
    assert {"table1_vist", "table2_visdial", "decide"} <= set(results)
    html = page_of(results, tmp_path, source=DATA.parent)
    for result in results.values():
        assert f">{result['title']}" in unescape(html)
        assert result["provenance"]["command"] in html
    shown = results["table1_vist"]["figures"] + results["table2_visdial"]["figures"]
    assert len(shown) == 4, "they come from the committed notebooks"
    for name in shown:
        assert f'{Path(name).stem.replace("_", " ")}" src="data:image/png;base64,' in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html), "one self-contained page"


def test_a_broken_results_file_is_told_on_top(tmp_path):
    folder = saved(tmp_path, table1_vist=vist())
    (folder / "context.json").write_text("{")
    results, problems = summary.read_results(folder)
    assert list(results) == ["table1_vist"]
    html = page_of(results, tmp_path, problems)
    assert '<p class="failed">results file' in html and "broken JSON at line 1" in html


@pytest.mark.parametrize("key", summary.KEYS[1:])
def test_a_results_file_that_lacks_something_is_told_on_top(key, tmp_path):
    broken = vist()
    del broken[key]
    folder = saved(tmp_path, decide=decide(), table1_vist=broken)
    results, (problem,) = summary.read_results(folder)
    assert problem.endswith(f"table1_vist.json lacks {key}; make its table anew")
    assert list(results) == ["decide"] and problem in page_of(results, tmp_path, [problem])


def test_the_page_brings_no_torch():
    code = "import sys, gill_lite.report.page; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


# ---- claims ------------------------------------------------------------------------------


def test_the_count_stands_first_and_verdicts_are_computed(tmp_path):
    html = page_of({"table1_vist": vist()}, tmp_path)
    total = len(judged())
    told = f"<b>1</b> of {total} claims reproduced; 1 same direction, within noise; {total - 2} not"
    assert told in html
    assert html.index(told) < html.index("All claims") < html.index("Where these numbers come from")
    overview = html[html.index("All claims") : html.index("<h2 id=")]
    assert "as stored" not in overview and overview.count(">–</span> not run") == total - 2
    assert "clip_similarity: gill/captions5 - sd/captions5 &gt; 0" in overview
    assert "0.300 [0.200, 0.400]" in overview and "Koh et al. 2023" in overview


def test_controls_stand_below_their_claim_and_are_not_counted(tmp_path):
    rows = summary.claim_rows(complete(decide=decide()))
    assert claims.count_text(rows).startswith("1 of ")
    shown = summary.claims_frame(rows)
    place = shown.index[shown["table"] == "decide"]
    assert list(shown.loc[place, "verdict"]) == ["reproduced", "not reproduced"]
    assert shown.loc[place[1], "the paper says"] == "(control) Better than a coin"
    html = page_of({"decide": decide()}, tmp_path)
    assert html.count("our control: Better than a coin") == 2, "in the overview and at its table"


def test_the_corrected_protocol_counts_where_both_were_run():
    official = vist(table="table1_vist_official")
    official["verdicts"] = [verdict_row("vist-five-captions", -0.3)]
    for order in (("a", "b"), ("b", "a")):
        both = {"a": vist(), "b": official}
        ordered = complete(**{name: both[name] for name in order})
        rows = {row["id"]: row for row in summary.claim_rows(ordered)}
        assert rows["vist-five-captions"]["difference"] == 0.3
    alone = {row["id"]: row["verdict"] for row in summary.claim_rows(complete(b=official))}
    assert alone["vist-five-captions"] == claims.NOT_REPRODUCED
    assert alone["vist-images-help"] == claims.NOT_RUN


def test_a_claim_not_run_in_one_file_does_not_hide_another(tmp_path):
    second = vist(table="other", verdicts=[verdict_row("vist-five-captions", None)])
    rows = {row["id"]: row for row in summary.claim_rows(complete(a=vist(), b=second))}
    assert rows["vist-five-captions"]["verdict"] == claims.REPRODUCED


def test_the_tally_has_a_row_a_table_and_a_column_a_verdict():
    tally = summary.tally(summary.claim_rows(complete(a=vist(), d=decide())))
    assert list(tally.columns) == [
        "reproduced",
        "same direction, within noise",
        "not run",
        "no statistic",
        "claims",
    ]
    count = sum(claim.table == "vist" for claim in judged())
    assert list(tally.loc["vist"]) == [1, 1, count - 2, 0, count]
    assert list(tally.loc["decide"]) == [1, 0, 0, 0, 1]


# ---- tables, figures, provenance ---------------------------------------------------------


def notebook_of(folder: Path, name: str = "11_some_name") -> None:
    """A notebook that reads Table 1's results, shows a figure, and discusses."""
    shown = new_output("display_data", data={"image/png": f"{PNG}\n"})
    cells = [
        new_code_cell('x = here.results / "table1_vist.json"'),
        new_code_cell('figure.savefig(folder / "table1_vist_grid.png")', outputs=[shown]),
        new_markdown_cell("**What came out, and why.** `a < b`\nis *so*.\n\nSecond."),
    ]
    (folder / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), folder / "notebooks" / f"{name}.ipynb")


def test_figures_are_taken_from_files_then_from_the_notebook(tmp_path):
    notebook_of(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "table1_vist_context.png").write_bytes(b"\x89PNG two")
    names = [f"figures/table1_vist_{name}.png" for name in ("context", "grid", "lost")]
    html = page_of({"table1_vist": vist(figures=names)}, tmp_path)
    two = base64.b64encode(b"\x89PNG two").decode()
    assert f'context" src="data:image/png;base64,{two}"' in html
    assert f'grid" src="data:image/png;base64,{PNG}"' in html
    assert "Table 1 &lt;VIST&gt;: table1 vist lost: this figure is not at hand." in html


def test_a_notebook_is_known_by_the_results_it_reads_before_its_name(tmp_path):
    notebook_of(tmp_path, "12_other_name")
    decoy = new_notebook(cells=[new_markdown_cell("**What came out: decoy.**")])
    nbformat.write(decoy, tmp_path / "notebooks" / "03_learn_table1_vist.ipynb")
    html = page_of({"t": vist(), "o": vist(table="table1_vist_official")}, tmp_path)
    assert html.count("<p>Second.</p>") == 2 and "decoy" not in html
    html = page_of({"t": vist(table="learn_table1_vist")}, tmp_path)
    assert "decoy" in html


def test_a_chapter_that_shows_results_does_not_stand_in_for_their_notebook(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in ("16_decide", "06_decide"):
        cells = [new_code_cell('read("decide.json")'), new_markdown_cell(page.DISCUSSION + name)]
        nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / f"{name}.ipynb")
    assert "came out16_decide" in page_of({"decide": decide()}, tmp_path)
    (tmp_path / "notebooks" / "16_decide.ipynb").unlink()
    assert "came out06_decide" in page_of({"decide": decide()}, tmp_path)


def test_the_notebooks_discussion_stands_at_its_table(tmp_path):
    notebook_of(tmp_path)
    html = page_of({"table1_vist": vist(), "decide": decide()}, tmp_path)
    assert "<b>What came out, and why.</b> <code>a &lt; b</code>\nis <i>so</i>.</p>" in html
    assert html.count("<p>Second.</p>") == 1
    assert html.index("<p>Second.</p>") < html.index('<h2 id="decide">')


def test_the_spread_over_language_models_stands_beside_that_over_joints(tmp_path):
    spread = [{"context": "5 captions", "metric": "clip_similarity", "joints": [0.5, 0.52],
               "joints_sd": 0.014, "lms_sd": 0.141,
               "lms": {"gill": 0.51, "gill_lm1": 0.31}}]  # fmt: skip
    by_lm = [{"lm": lm, **verdict_row("vist-five-captions", 0.3), "verdict": verdict}
             for lm, verdict in (("0", "reproduced"), ("1", "not reproduced"))]  # fmt: skip
    html = page_of({"t": vist(spread=spread, verdicts_by_lm=by_lm)}, tmp_path)
    part = html[html.index("How much hangs on the one language model") :]
    for text in ("LM 0", "LM 1", "0.510", "0.310", "sd over LMs", "0.141", "0.014"):
        assert text in part
    assert "How much hangs" not in page_of({"t": vist()}, tmp_path)


def test_every_number_has_its_command_and_its_hashes(tmp_path):
    results = {"table1_vist": vist()}
    made = summary.made_frame(results).loc["table1_vist"]
    assert made["command"] == "gill-lite reproduce --tables 1" and made["seeds"] == "0, 1"
    assert (made["scored"], made["eligible"], made["skipped"]) == (8, 9, 1)
    assert (made["minutes"], made["memory (GB)"]) == ("1.5", "2.0")
    hashes = summary.hashes_frame(results).loc["table1_vist"]
    assert list(hashes[1:]) == ["a" * 10, "b" * 10, "c" * 10, "d" * 10]
    joints = summary.joints_frame(results)
    assert joints.loc["gill-0", "command"] == "gill-lite train --seed 0"
    assert joints.loc["mine-1", "command"] == "–"
    html = page_of(results, tmp_path)
    assert "8 of 9 eligible examples scored; skipped: missing image: 1." in html
    assert "gill-lite train --seed 0" in html and "Some &lt;CPU&gt;" in html
    assert "d" * 64 in html, "the whole hash among everything recorded"


def test_a_table_of_two_datasets_has_both_hashes():
    inputs = PROVENANCE["inputs"]
    parts = {"stories": inputs, "captions": {"data": {"sha256": "7" * 64}, "joints": {}}}
    results = {"a": vist(provenance={**PROVENANCE, "inputs": parts})}
    assert summary.hashes_frame(results).loc["a", "data"] == f"{'d' * 10}, {'7' * 10}"
    assert list(summary.joints_frame(results).index) == ["gill-0", "mine-1"]


def test_tables_made_differently_are_told():
    changed = {**PROVENANCE, "git_commit": "9" * 40 + "+changes"}
    results = {"a": vist(), "b": vist(provenance=changed)}
    assert summary.unlike(results) == "2 git commits"
    assert summary.unlike({"a": vist(), "b": vist()}) == ""
    assert summary.hashes_frame(results).loc["b", "git commit"] == "9" * 10 + "+changes"


def test_a_run_is_summed_up_from_its_tables():
    one, other = ({**PROVENANCE, "peak_memory_mb": peak} for peak in (None, 3000.0))
    assert summary.run_of({"a": vist(provenance=one), "b": vist(provenance=other)}) == {
        "profile": "mini", "tables": 2, "wall_seconds": 90.0, "peak_memory_mb_of_a_table": 3000.0
    }  # fmt: skip
    assert summary.run_of({})["profile"] == "unknown"
    made = summary.made_frame({"a": vist(provenance=one)})
    assert made.loc["a", "memory (GB)"] == "–", "as on Windows"


def test_problems_and_an_empty_run_are_told(tmp_path):
    html = page_of({}, tmp_path, ["10_x.ipynb failed in cell [3] with <Error>"])
    assert '<p class="failed">10_x.ipynb failed in cell [3] with &lt;Error&gt;</p>' in html
    assert f"<b>0</b> of {len(judged())} claims reproduced" in html


def test_the_terminal_shows_table_verdicts_controls_and_counts():
    text = summary.as_text(vist())
    assert text.startswith("Table 1 <VIST>\n\n") and "0.612 ± 0.0011" in text
    assert "8 of 9 eligible examples scored; skipped: missing image: 1." in text
    assert "Better than a coin" in summary.as_text(decide())


def test_two_runs_at_the_same_time_count_once():
    def run(ended: str, seconds: float) -> dict:
        return {"finished_utc": f"2026-01-01 {ended}", "wall_seconds": seconds}

    apart = [run("10:01:00", 60), run("11:01:00", 30)]
    assert summary.busy_seconds(apart) == 90
    within, over = run("10:00:50", 20), run("10:01:20", 30)  # from 10:00:30 and from 10:00:50
    assert summary.busy_seconds([*apart, within, over]) == 90 + 20


@pytest.mark.parametrize("table", [t for t in TABLES.values() if t.notebook and t.ready])
def test_every_tables_notebook_has_a_discussion_for_the_report(table):
    cells = nbformat.read(ROOT / "notebooks" / table.notebook, as_version=4).cells
    assert page._discussion(cells).startswith("<p><b>What came out")
