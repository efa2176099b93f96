"""The tables: their cells, a run cut off and resumed, and the committed reference runs."""

import dataclasses
from pkgutil import resolve_name

import pandas as pd
import pytest

from gill_lite import provenance
from gill_lite.errors import GillError
from gill_lite.evaluation.evaluate import Evaluation, prepare, results, save
from gill_lite.evaluation.run import work_items
from gill_lite.evaluation.scorer import Scorer
from gill_lite.evaluation.tables import REVERSED, TABLES, choose, get_table
from gill_lite.evaluation.tasks import VISDIAL, VIST, of_files, of_world
from gill_lite.experiments.deciding import outcome
from gill_lite.files import DATA, read_json
from gill_lite.report import claims, numbers
from gill_lite.report.scores import scores_frame
from gill_lite.training import recipes
from gill_lite.world.scene import ATTRIBUTES, is_novel
from tests.helpers.places import RECORDINGS

RESULTS = DATA.parent / "results"
STORIES = 3
LMS = recipes.lms_there()[1:]  # GILL on other language models than the mini world's
# three methods with one caption, four times the stories, and in longer contexts; others once
CELLS = 4 * 3 + 3 + 1 + 3 * len(LMS)
COLORS = ATTRIBUTES["color"]


@pytest.fixture(params=[t for t in ("1", "2", "context", "tokens") if TABLES[t].ready])
def table(request):
    return TABLES[request.param]


@pytest.fixture
def reference(table):
    return read_json(RESULTS / f"{table.name}.json")


def scores_of(table) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{table.name}_scores.csv", dtype={"example": str})


@pytest.fixture
def frame(table):
    return scores_of(table)


def test_baselines_have_one_cell_a_context_and_gill_one_with_every_joints():
    cells = [("sd", "caption1", 0), ("sd", "captions5", 0)]
    cells += [("glide", *cell[1:]) for cell in cells]
    cells += [("gill", context, seed) for seed in (0, 1) for context in VIST.contexts]
    cells += [(lm, c, 0) for lm in LMS for c in VIST.contexts]
    assert TABLES["1"].cells([0, 1]) == cells
    rounds = ["rounds1", "rounds5", "rounds10"]
    assert TABLES["2"].elsewhere().cells([2]) == [
        *[("sd", context, 0) for context in rounds],
        *[("gill", context, 2) for context in rounds],
    ]
    context = TABLES["context"]
    assert {c.images for c in context.text_contexts} == {0} and len(context.all_contexts) == 10
    with pytest.raises(GillError, match="no table '7' to evaluate; known: 1, 2, mappers"):
        get_table("7")


def prepared(folder, table=TABLES["1"], **options) -> Evaluation:
    options = {"seeds": [0], "num_examples": STORIES, "cache_dir": False, **options}
    return prepare(table, folder, batch_size=2, **options)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Table 1 of three stories, computed without a break, and its scores."""
    folder = tmp_path_factory.mktemp("first")
    evaluation = prepared(folder / "whole")
    return evaluation, evaluation.run(progress=False)


def test_a_run_cut_off_and_resumed_ends_bit_identical(first, tmp_path, monkeypatch):
    evaluation, whole = first
    assert whole.scored == whole.eligible == STORIES * CELLS
    cut = dataclasses.replace(evaluation, folder=tmp_path / "cut")
    calls, score = [], Scorer.score

    def cut_off(self, items, pictures, real):
        calls.append(items)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(self, items, pictures, real)

    monkeypatch.setattr(Scorer, "score", cut_off)
    with pytest.raises(KeyboardInterrupt):
        cut.run(progress=False)
    monkeypatch.setattr(Scorer, "score", score)
    assert cut.run(progress=False).rows == whole.rows
    other = dataclasses.replace(cut, config={**cut.config, "run_seed": 1})
    with pytest.raises(GillError, match="other settings .*run_seed was 0 and is 1"):
        other.run(progress=False)


def test_live_scores_are_those_of_the_reference_run(first, table, tmp_path):
    done = first[1]
    if table is not TABLES["1"]:
        done = prepared(tmp_path, table, num_examples=1).run(progress=False)
    frame, scores = scores_of(table), scores_frame(done.rows)
    keys = ["example", "method", "context", "seed"]
    both = frame.merge(scores, on=keys, suffixes=("", "_now"))
    assert len(both) == len(scores)
    for metric, noise in (("clip_similarity", 1e-3), ("lpips", 5e-3), ("attribute_accuracy", 0)):
        assert (both[metric] - both[f"{metric}_now"]).abs().max() <= noise, metric


def test_configuration_tells_all_that_scores_depend_on(first):
    config = first[0].config
    assert config["protocol"]["name"] == "corrected" and config["run_seed"] == 0
    assert config["data"]["taken"] == config["data"]["usable"] == 4 * STORIES
    assert config["count"] == STORIES
    joints = DATA / "mini/joints/gill-0/joints.safetensors"
    assert config["joints"]["gill-0"] == provenance.sha256_of(joints)
    assert set(config["joints"]) == {"gill-0", *(f"{lm}-0" for lm in LMS)}
    assert set(config["baselines"]) == {"glide"}
    assert config["weights"]["manifest"] == provenance.sha256_of(DATA / "mini/manifest.json")
    assert config["metrics"] == ["clip_similarity", "lpips", "attribute_accuracy"]
    assert "lms" not in config and config["profile"]["lm"] == "lm"


def test_configuration_tells_every_language_model_apart(tmp_path):
    """Each that rows stand on, by its weights, and none by a folder of this machine."""
    config = prepared(tmp_path, TABLES["ladder"], num_examples=1).config
    assert config["profile"]["lm"] == "lm" and set(config["lms"]) == {"lm64", "lm128"}
    assert len({config["weights"]["lm_clip_text_encoder"], *config["lms"].values()}) == 3
    one = prepared(tmp_path / "one", TABLES["ladder"].of(["lm64"]), num_examples=1).config
    assert one["profile"]["lm"] == "lms/64x2/lm" and set(one["lms"]) == {"lm64"}


def test_results_hold_what_a_report_needs(first, tmp_path):
    evaluation, done = first
    result = results(evaluation.table, evaluation.config, done, 0.0)
    assert result["table"] == "table1_vist" and result["settings"] == {
        "num_stories": STORIES,
        "seeds": [0],
        "run_seed": 0,
    }
    assert {v["id"] for v in result["verdicts"]} == {
        c.id for c in claims.read_claims() if c.table == "vist"
    }
    assert result["provenance"]["inputs"]["data"]["sha256"] == evaluation.config["data"]["sha256"]
    path = save(tmp_path, done, result)
    assert read_json(path) == result
    kept = pd.read_csv(tmp_path / "results/table1_vist_scores.csv", dtype={"example": str})
    assert len(kept) == STORIES * CELLS


def test_table_2_walks_from_exported_dialogues_to_verdicts(tmp_path):
    evaluation = prepared(tmp_path, TABLES["2"], num_examples=2, protocol="official")
    assert evaluation.folder.name == "table2_visdial_official"
    done = evaluation.run(progress=False)
    assert done.scored == done.eligible == 2 * (3 * (4 + 1 + 1) + 3 * len(LMS))
    frame = scores_frame(done.rows)
    ten = frame[frame["context"] == "rounds10"]
    assert set(ten["example"]) == {"200000", "200001"}, "the image's id, as in VisDial"
    assert "lpips" not in frame and "attribute_accuracy" in frame
    result = results(evaluation.table, evaluation.config, done, 0.0)
    assert result["title"].endswith("(official protocol)")
    verdicts = {v["id"]: v["verdict"] for v in result["verdicts"]}
    lpips = {verdicts.pop(name) for name in list(verdicts) if "lpips" in name}
    assert lpips == {claims.NOT_RUN}
    assert len(verdicts) >= 5 and set(verdicts.values()) == {claims.TOO_FEW}


def test_the_second_form_ends_in_scenes_never_trained(tmp_path):
    table = TABLES["1"].of_split("novel")
    assert table.name == "table1_vist_novel" and TABLES["1"].of_split("seen") is TABLES["1"]
    cell = ("gill", "caption1", 0)
    assert table.learned == ("gill",) and table.size(cell) == 300 != TABLES["1"].size(cell)
    assert TABLES["1"].size(("gill_lm1", "caption1", 0)) == 300
    data = of_world(VIST, tmp_path / "novel", 3, "novel")
    lasts = [data.scenes[story.photo_ids[-1]] for story in data.examples]
    assert all(map(is_novel, lasts))


def test_reversed_captions_are_the_same_words_last_first(tmp_path):
    (story,) = of_world(VIST, tmp_path / "one", 1).examples
    assert VIST.prompt(story, REVERSED) == list(reversed(story.captions))
    assert VIST.text(story, REVERSED) == " ".join(reversed(story.captions))


def test_a_table_takes_the_seeds_that_ship_and_a_ladder_waits_for_its_rungs():
    assert TABLES["1"].seeds == recipes.there("gill") and TABLES["tokens"].seeds == (0,)
    assert recipes.seeds_of("mlp", (0, 3, 4)) == (0,) and recipes.seeds_of("r1", (2,)) == (0,)
    assert TABLES["ladder"].ready == all(map(recipes.there, TABLES["ladder"].learned))
    assert (TABLES["ladder"] in choose(["all"])) == TABLES["ladder"].ready


def test_attributes_of_a_dialogue_are_those_of_its_picture(tmp_path):
    data = of_world(VISDIAL, tmp_path / "visdial", 3)
    for dialogue in data.examples:
        answers = " ".join(answer for _, answer in dialogue.rounds)
        scene = data.scenes[VISDIAL.target(dialogue)[0]]
        said = [word for word in COLORS if word in answers.split()]
        assert set(said) <= {scene.color}


def test_real_photographs_and_prompts_walk_through_reader_model_and_metrics(first, tmp_path):
    """Two real photographs and real PartiPrompts in VIST's own format, to scores."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from gill_lite.datasets.partiprompts import read_partiprompts
    from gill_lite.world.export import write_vist

    parti = RECORDINGS / "PartiPromptsAllDecisions_Alignment.tsv"
    texts = [prompt.text for prompt in read_partiprompts(parti).examples[:10]]
    photos = [Image.fromarray(image) for image in load_sample_images().images]
    stories = [
        (str(s), [(f"{s}{n}", texts[5 * s + n], photos[n % 2]) for n in range(5)]) for s in range(2)
    ]
    write_vist(tmp_path / "val.json", tmp_path / "images", stories)
    data = of_files(VIST, tmp_path / "val.json", tmp_path / "images")
    scorer = Scorer(data, first[0].models, TABLES["1"])
    for cell in TABLES["1"].cells([0]):
        for score in scorer(work_items([story.example_id for story in data.examples], [cell])):
            assert set(score) == {"clip_similarity", "lpips"}
            assert -1 <= score["clip_similarity"] <= 1 and score["lpips"] > 0


def test_the_reference_run_is_whole(table, reference, frame):
    settings, counts = reference["settings"], reference["counts"]
    count = settings[f"num_{table.task.examples}"]
    assert count >= 300 and tuple(settings["seeds"]) == table.seeds
    wanted = {cell: table.size(cell, count) for cell in table.cells(settings["seeds"])}
    assert frame.groupby(["method", "context", "seed"]).size().to_dict() == wanted
    assert len(frame) == counts["eligible"] == counts["scored"]


def test_the_reference_table_and_verdicts_follow_from_its_scores(table, reference, frame):
    topic = "vist" if table.typed == "context" else table.topic  # whose paper numbers stand there
    there = (*table.baselines, *table.learned)
    shown = {method: label for method, label in table.labels.items() if method in there}
    metrics = numbers.MINI_METRICS | numbers.CHANGED
    rows = numbers.result_rows(frame, topic, table.all_contexts, metrics, methods=shown)
    judged = [c for c in claims.read_claims() if c.table == table.topic]
    assert _close(rows, reference["rows"])
    verdicts = {claim.id: claims.judge(claim, frame)["verdict"] for claim in judged}
    assert verdicts == {v["id"]: v["verdict"] for v in reference["verdicts"]}


def _close(mine, theirs) -> bool:
    pairs = zip(mine, theirs, strict=True)
    return all(
        a[key] == b[key] if not isinstance(a[key], float) else abs(a[key] - b[key]) < 1e-6
        for a, b in pairs
        for key in a
    )


@pytest.mark.parametrize("table", choose(["all"]), ids=lambda table: table.typed)
def test_the_catalogue_tells_what_came_out(table):
    """Minutes and the score to expect are those of the committed run, and so is the command."""
    result, told = read_json(RESULTS / f"{table.name}.json"), table.came_out
    key = told.method, told.context, told.metric
    (row,) = [r for r in result["rows"] if (r["method"], r["context"], r["metric"]) == key]
    minutes = round(result["provenance"]["wall_seconds"] / 60, 1)
    assert (told.minutes, told.mean) == (minutes, round(row["mean"], 3))
    assert table.command == result["provenance"]["command"]
    assert table.title == result["title"]


def test_every_table_is_in_one_notebook_and_has_what_scores_it():
    groups = {table.group for table in TABLES.values() if table.ready}
    parts = [part.typed for table in choose(groups) for part in table.parts]
    assert sorted(parts) == sorted(name for name, table in TABLES.items() if table.ready)
    assert all(callable(resolve_name(table.scorer)) for table in TABLES.values())


def test_the_reference_run_is_of_these_weights(reference):
    now = provenance.sha256_of(DATA / "mini" / "manifest.json")
    assert reference["provenance"]["weights_manifest_sha256"] == now


def test_more_examples_than_there_are_is_one_sentence(tmp_path):
    data = of_world(VIST, tmp_path / "data", 1)
    with pytest.raises(GillError, match="holds 1 stories, 2 are asked for"):
        of_world(VIST, tmp_path / "data", 2)
    images = data.examples[0].image_paths[0].parent
    with pytest.raises(GillError, match="holds 1 stories that are whole, 2 are asked for"):
        of_files(VIST, data.source, images, 2)
    assert of_files(VIST, data.source, images).about()["taken"] == 1


def test_a_frame_of_scores_reads_back(tmp_path):
    rows = [{"key": "gill/captions5/0/s1", "clip_similarity": 0.5}]
    assert scores_frame(rows).iloc[0]["seed"] == 0


@pytest.mark.parametrize("scores", sorted(RESULTS.glob("*_scores.csv")), ids=lambda path: path.stem)
def test_no_interval_of_a_share_leaves_the_shares(scores):
    labels = numbers.METRICS | numbers.RECALLS | numbers.CHANGED | numbers.SEEING | numbers.EDITING
    shares = {labels[name] for name in numbers.SHARES} | {*outcome.COINS, outcome.F1}
    rows = read_json(scores.with_name(scores.name.replace("_scores.csv", ".json")))["rows"]
    ends = [row[end] for row in rows if row["metric"] in shares for end in ("low", "high")]
    assert ends and all(0 <= end <= 1 for end in ends if end is not None)
