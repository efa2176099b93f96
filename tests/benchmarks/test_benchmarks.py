"""The benchmark table: goals are judged and numbers written by code, as the page has them."""

import pickle

import numpy as np
import pandas as pd
import pytest

from benchmarks import held, plots, sampler_steps, table
from benchmarks.record import as_long, at_most, faster
from gill_lite.answering.index import ImageIndex
from gill_lite.files import read_json, read_text
from gill_lite.profiles import MINI
from tests.helpers.places import ROOT

RESULTS = ROOT / "results" / "benchmarks.json"


@pytest.mark.parametrize(
    ("goal", "ours", "reference", "met"),
    [
        (faster(4), 1.0, 4.0, True),
        (faster(4), 1.0, 3.9, False),
        (as_long(1.3), 1.3, 1.0, True),
        (as_long(1.3), 1.4, 1.0, False),
        (at_most(10), 10.0, None, True),
        (at_most(10), 10.1, 3.0, False),
    ],
)
def test_a_goal_is_met_or_missed(goal, ours, reference, met):
    assert goal.met(ours, reference) is met
    row = {"what": "it", "weights": "mini", "unit": "s", "ours": ours, "reference": reference}
    row |= {"goal": goal._asdict(), "met": met}
    assert table.verdict(row) == ("met" if met else "**missed**")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0123, "s", "12.3 ms"), (1.5, "s", "1.5 s"), (1680.27, "MB", "1,680 MB"), (None, "s", "–")],
)
def test_amounts_have_three_digits(value, unit, text):
    assert table.amount(value, unit) == text


def test_the_exponent_of_a_square_is_two():
    assert plots.exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)


@pytest.mark.skipif(not RESULTS.is_file(), reason="`make bench` was not run yet")
def test_the_pages_hold_what_was_measured():
    result = read_json(RESULTS)
    page = read_text(ROOT / "docs" / "benchmarks.md")
    assert table.rows_table(result) in page and table.where_table(result) in page
    assert (ROOT / "docs" / "growth.png").stat().st_size < 80_000


def test_steps_are_compared_picture_by_picture_with_the_most():
    def found(shift, seconds):
        scores = [0.2, 0.5, 0.6, 0.9]
        frame = pd.DataFrame({"clip_similarity": scores, "attribute_accuracy": scores[::-1]})
        return frame.assign(clip_similarity=frame.clip_similarity + shift), seconds

    few, most = sampler_steps.compared({8: found(-0.1, 3.0), sampler_steps.MOST: found(0.0, 12.0)})
    assert few["clip_similarity"][0] == pytest.approx(-0.1)
    assert few["attribute_accuracy"] == [0.0, None, None] and few["time"] == 0.25
    assert most["clip_similarity itself"] == pytest.approx(0.55) and most["time"] == 1
    page = sampler_steps.text([{"model": "GILL", "context": "captions5", **r} for r in (few, most)])
    assert "-0.100" in page and "0.550 itself" in page


def test_the_page_shows_the_steps_that_were_compared():
    result = read_json(ROOT / "results" / "sampler_steps.json")
    assert sampler_steps.text(result["rows"]) in read_text(ROOT / "docs" / "benchmarks.md")
    assert result["used"] == MINI.num_inference_steps


def test_the_process_whose_memory_is_watched_builds_an_index_of_all_shards(tmp_path):
    for number in range(2):
        record = {
            "paths": [f"{number}{place}" for place in range(3)],
            "embeddings": np.ones((3, 4)),
        }
        (tmp_path / f"cc3m_{number}.npy").write_bytes(pickle.dumps(record))
    found = held.build(tmp_path, tmp_path / "index")
    assert found["peak"] >= found["before"] > 0 and len(ImageIndex.load(tmp_path / "index")) == 6
