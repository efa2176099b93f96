"""Table 1: its cells, a run cut off and resumed, and the committed reference run."""

import pandas as pd
import pytest

from gill_lite.errors import GillError
from gill_lite.evaluate import claims, protocol, provenance, run, table1, tables
from gill_lite.files import DATA, read_json
from gill_lite.readme import with_course, with_results

RESULTS = DATA.parent / "results"
STORIES = 3


@pytest.fixture(scope="module")
def reference():
    return read_json(RESULTS / "table1_vist.json")


@pytest.fixture(scope="module")
def frame():
    return pd.read_csv(RESULTS / "table1_vist_scores.csv", dtype={"example": str})


def test_cells_are_stable_diffusion_once_and_gill_with_every_joints():
    assert table1.cells([0, 1]) == [
        ("sd", "caption1", 0),
        ("sd", "captions5", 0),
        *[("gill", context, seed) for seed in (0, 1) for context in protocol.VIST_CONTEXTS],
    ]


def test_a_run_cut_off_and_resumed_ends_bit_identical(tmp_path, monkeypatch):
    monkeypatch.setattr(table1, "BATCH", 2)
    options = {"seeds": [0], "num_stories": STORIES, "progress": False}
    whole = table1.compute(tmp_path / "whole", **options)
    assert whole.scored == whole.eligible == STORIES * 5

    calls, score = [], table1.Scorer.score

    def cut(self, items, pictures):
        calls.append(items)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(self, items, pictures)

    monkeypatch.setattr(table1.Scorer, "score", cut)
    with pytest.raises(KeyboardInterrupt):
        table1.compute(tmp_path / "cut", **options)
    monkeypatch.setattr(table1.Scorer, "score", score)
    resumed = table1.compute(tmp_path / "cut", **options)
    assert resumed.rows == whole.rows
    with pytest.raises(GillError, match="another configuration .*run_seed: 0 there, 1 now"):
        table1.compute(tmp_path / "cut", **options, run_seed=1)


def test_real_photographs_and_prompts_walk_through_reader_model_and_metrics(tmp_path):
    """Two real photographs and real PartiPrompts in VIST's own format, to scores."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from gill_lite.datasets.partiprompts import read_partiprompts
    from gill_lite.datasets.vist import read_vist
    from gill_lite.world.export import write_vist

    parti = DATA.parent.parent / "shared/data/PartiPromptsAllDecisions_Alignment.tsv"
    if not parti.exists():
        pytest.skip("the PartiPrompts annotations are not beside this checkout")
    texts = [prompt.text for prompt in read_partiprompts(parti).examples[:10]]
    photos = [Image.fromarray(image) for image in load_sample_images().images]
    stories = [
        (str(s), [(f"{s}{n}", texts[5 * s + n], photos[n % 2]) for n in range(5)]) for s in range(2)
    ]
    write_vist(tmp_path / "val.json", tmp_path / "images", stories)
    read = read_vist(tmp_path / "val.json", tmp_path / "images", strict=True).stories
    scorer = table1.Scorer(table1.load_responders("mini", [0]), read, scenes={})
    for cell in table1.cells([0]):
        for score in scorer(run.work_items([story.example_id for story in read], [cell])):
            assert set(score) == {"clip_similarity", "lpips"}
            assert -1 <= score["clip_similarity"] <= 1 and score["lpips"] > 0


def test_the_reference_run_is_whole(reference, frame):
    settings = reference["settings"]
    assert settings["num_stories"] >= 300 and len(settings["seeds"]) == 3
    assert len(frame) == reference["counts"]["scored"] == settings["num_stories"] * 11
    assert reference["counts"]["eligible"] == reference["counts"]["scored"]


def test_the_reference_table_and_verdicts_follow_from_its_scores(reference, frame):
    rows = tables.result_rows(frame, "vist", protocol.VIST_CONTEXTS.values())
    judged = [c for c in claims.read_claims() if c.table == "vist"]
    assert _close(rows, reference["rows"])
    verdicts = {v["id"]: v["verdict"] for v in claims.verdict_rows(judged, frame)}
    assert verdicts == {v["id"]: v["verdict"] for v in reference["verdicts"]}


def _close(mine, theirs) -> bool:
    pairs = zip(mine, theirs, strict=True)
    return all(
        a[key] == b[key] if not isinstance(a[key], float) else abs(a[key] - b[key]) < 1e-6
        for a, b in pairs
        for key in a
    )


def test_the_reference_run_is_of_these_weights(reference):
    now = provenance.sha256_of(DATA / "mini" / "manifest.json")
    assert reference["provenance"]["weights_manifest_sha256"] == now


def test_the_readme_shows_the_reference_run(reference):
    readme = (DATA.parent / "README.md").read_text(encoding="utf-8")
    assert with_results(readme, reference) == readme


def test_the_readme_lists_every_notebook():
    readme = (DATA.parent / "README.md").read_text(encoding="utf-8")
    assert with_course(readme, DATA.parent / "notebooks") == readme
    for path in (DATA.parent / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in readme


def test_more_stories_than_exported_is_one_sentence(tmp_path):
    table1.stories_of_world(tmp_path / "data", 1)
    with pytest.raises(GillError, match="holds 1 stories, 2 are asked for"):
        table1.stories_of_world(tmp_path / "data", 2)


def test_a_frame_of_scores_reads_back(tmp_path):
    rows = [{"key": "gill/captions5/0/s1", "clip_similarity": 0.5}]
    assert run.scores_frame(rows).iloc[0]["seed"] == 0
