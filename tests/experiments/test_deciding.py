"""Retrieve or generate: the prompts, the split, the choices, their intervals, the results."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from gill_lite.answering.decision import load_decision
from gill_lite.answering.gallery import drawn_gallery
from gill_lite.errors import GillError
from gill_lite.experiments.deciding import choices, outcome, pairs, questions, reasons, votes
from gill_lite.report import claims, summary
from gill_lite.report.intervals import two_level_interval
from gill_lite.world.scene import ATTRIBUTES, is_novel
from tests.helpers.places import RECORDINGS, ROOT

ORIGINALS = [RECORDINGS / f"PartiPromptsAllDecisions_{q}.tsv" for q in ("Alignment", "Realism")]
HUMAN = 0.8510681024099351  # printed by the official notebook


# ---- questions and pairs -----------------------------------------------------------------


def test_questions_are_half_seen_half_novel_and_say_all():
    asked = questions.make(20)
    assert [q.split for q in asked] == ["seen"] * 10 + ["novel"] * 10
    assert all(is_novel(q.scene) == (q.split == "novel") for q in asked)
    for question in asked:
        for name in ("shape", "color", "size", "position", "place"):
            assert getattr(question.scene, name) in question.text
    assert asked[:5] == questions.make(900)[:5]
    with pytest.raises(GillError, match="must be even and at least 2, not 7"):
        questions.make(7)


def test_the_gallery_is_known_and_seen_only():
    scenes = questions.gallery_scenes()
    assert len(scenes) == 400 and not any(is_novel(scene) for scene in scenes)
    gill = SimpleNamespace(image_features=lambda x: torch.ones(400, 2))
    prompts = SimpleNamespace(pixel_values=lambda pictures: None)
    pictures = drawn_gallery(gill, prompts).pictures
    again, drawn = reasons.gallery_of(400)
    assert again == scenes
    for number in (0, 7, 399):
        assert pictures[str(number)].tobytes() == drawn[number].tobytes()


def test_matches_counts_attributes():
    scene = questions.gallery_scenes()[0]
    assert questions.matches(scene, scene) == 6
    other = "big" if scene.size == "small" else "small"
    assert questions.matches(scene, scene.change(size=other)) == 5


def test_a_row_of_a_pair():
    """The retrieved picture is scored by its scene, the generated one by the probes."""
    asked = questions.make(2)
    values = [len(v) for v in ATTRIBUTES.values()]

    def probes(pictures):
        logits = {}
        for (name, _), size, label in zip(ATTRIBUTES.items(), values, asked[0].scene.labels()):
            logits[name] = torch.nn.functional.one_hot(torch.tensor([label]), size).float()
        logits["time"] = 1 - logits["time"]  # the one attribute that is wrong
        return logits

    scorer = pairs.PairScorer({0: SimpleNamespace()}, asked)
    scorer.probes = probes
    hits = SimpleNamespace(indices=torch.tensor([[3]]), scores=torch.tensor([[0.25]]))
    item = pairs.items_of(asked, [0])[0]
    row = scorer.score([item], hits, torch.zeros(1, 3, 64, 64))[0]
    assert row["generated"] == 5 and row["right_time"] == 0 and row["right_shape"] == 1
    assert row["retrieved"] == questions.matches(asked[0].scene, questions.gallery_scenes()[3])
    assert (row["retrieved_id"], row["retrieved_score"]) == (3, 0.25)


def test_another_profile_is_refused():
    with pytest.raises(GillError, match="in the mini world only, not for 'paper'"):
        pairs.load_responders([0], "paper")


# ---- choosing ----------------------------------------------------------------------------


def test_a_scene_is_in_one_part_only():
    asked = questions.make()
    parts = choices.split_by_scene(asked)
    where: dict = {}
    for question in asked:
        where.setdefault(question.scene, set()).add(parts[question.example_id])
    assert all(len(found) == 1 for found in where.values())
    counts = pd.crosstab([q.split for q in asked], [parts[q.example_id] for q in asked])
    assert (counts["test"] - 150).abs().max() <= 8 and (counts["train"] - 225).abs().max() <= 8
    assert parts != choices.split_by_scene(asked, seed=1)


def cloud(n: int = 240):
    rng = np.random.default_rng(0)
    labels = rng.choice(["gen", "ret", "same"], n)
    features = rng.normal(size=(n, 5))
    features[:, 1] += np.where(labels == "ret", 3.0, 0.0)
    return features, labels, rng.choice(["train", "validation", "test"], n)


def test_the_fit_never_looks_at_the_test_part():
    features, labels, parts = cloud()
    model, strength = choices.fit_linear(features, labels, parts)
    threshold = choices.fit_threshold(features[:, 1], labels, parts)
    test = parts == "test"
    known = test & (labels != "same")
    assert votes.macro_f1(labels[known], model.decide(features[known]).answers) > 0.85
    assert 0.5 < threshold < 2.5
    other_features, other_labels = features.copy(), labels.copy()
    other_features[test], other_labels[test] = 1e3, "ret"
    again, same_strength = choices.fit_linear(other_features, other_labels, parts)
    np.testing.assert_array_equal(again.weight, model.weight)
    assert strength == same_strength
    assert choices.fit_threshold(other_features[:, 1], other_labels, parts) == threshold
    with pytest.raises(GillError, match="no prompt of the validation part"):
        choices.fit_linear(features, labels, np.where(parts == "validation", "test", parts))


def test_the_classifier_of_each_seed_is_kept_where_its_joints_lie(tmp_path):
    features, labels, parts = cloud()
    frame = pd.DataFrame({"seed": 1, "label": labels, "part": parts})
    choices.save_decisions(frame, {1: features}, tmp_path)
    model, _ = choices.fit_linear(features, labels, parts)
    np.testing.assert_array_equal(load_decision(tmp_path / "gill-1").weight, model.weight)


def table():
    """Four test pairs with one seed: labels gen, ret, gen, same."""
    return pd.DataFrame({
        "example": list("abcd"), "seed": 0, "part": "test", "retrieved": [3, 6, 6, 5],
        "generated": [6, 3, 6, 6], "label": ["gen", "ret", "gen", "same"],
        "votes": ["gen gen gen gen ret", "ret ret ret ret same", "gen gen gen same same",
                  "same same same gen ret"],
        "context": "seen", "linear": ["gen", "ret", "ret", "ret"], "retrieved_score": 0.5,
    })  # fmt: skip


def test_references_need_no_fitting():
    train = table().assign(part="train", label=["gen", "gen", "gen", "ret"])
    frame = choices.with_references(pd.concat([table(), train]))
    assert set(frame.coin) == {0.25} and set(frame.gen) == {"gen"}
    assert list(frame.perfect[:4]) == ["gen", "ret", "gen", "gen"], "equal ones are generated"


def test_scores_by_hand():
    frame = table().assign(gen="gen", ret="ret", coin=0.5)
    scenes = list("abcd")
    assert choices.f1_interval(frame, scenes, "linear").mean == pytest.approx(
        votes.macro_f1(["gen", "ret", "gen"], ["gen", "ret", "ret"])
    )
    assert choices.f1_interval(frame, scenes, "coin").mean == pytest.approx(
        (2 * 1 / 3.5 + 2 * 0.5 / 2.5) / 2
    )
    lead = choices.f1_lead(frame, scenes, "linear", ("gen", "ret"))
    assert lead.mean == pytest.approx(2 / 3 - 0.4), "always gen: F1 0.8 and 0"
    assert choices.quality_interval(frame, scenes, "linear").mean == pytest.approx(23 / 24)
    assert choices.quality_lead(frame, scenes, "linear", ("gen", "ret")).mean == pytest.approx(
        23 / 24 - 21 / 24
    )
    # raters 1 to 5 on the labelled prompts, each against gen, ret, gen; `same` does not count
    assert choices.raters_interval(frame, scenes).mean == pytest.approx((3 + 1 + 0) / 5)
    with pytest.raises(GillError, match="no prompt has a confident label"):
        choices.f1_interval(frame.assign(label="same"), scenes, "linear")


def test_macro_f1_of_counts_is_scikit_learns():
    rng = np.random.default_rng(0)
    truth, one, other = (rng.choice(["gen", "ret"], 300, p=[0.8, 0.2]) for _ in range(3))
    counts = [choices.confusion(truth, answers).sum(axis=0) for answers in (one, other)]
    expected = [votes.macro_f1(truth, answers) for answers in (one, other)]
    assert choices.macro_f1_of_counts(counts[0]) == pytest.approx(expected[0])
    assert choices.macro_f1_of_counts(np.concatenate(counts)) == pytest.approx(np.mean(expected))


def test_intervals_resample_scenes_not_prompts():
    values = np.random.default_rng(0).normal(size=60)
    whole = np.stack([values, np.ones(60)], axis=1)

    def mean(totals):
        return totals[..., 0] / totals[..., 1]

    alone = choices.scene_interval(whole, range(60), mean)
    tenfold = choices.scene_interval(np.tile(whole, (10, 1)), np.tile(range(60), 10), mean)
    assert (tenfold.low, tenfold.high) == pytest.approx((alone.low, alone.high), abs=0.01)
    assert tenfold.n == 600 and alone.low < alone.mean < alone.high
    alike = choices.scene_interval(np.ones((5, 2)), range(5), mean)
    assert alike.mean == 1 and alike.low is None and alike.undefined == "all scenes are alike"


def test_intervals_resample_the_seeds_of_the_joints_too():
    values = np.random.default_rng(0).normal(size=(3, 60))
    scenes, seeds = np.tile(range(60), 3), np.repeat(range(3), 60)

    def interval(by_seed):
        totals = np.stack([by_seed.ravel(), np.ones(180)], axis=1)
        return choices.scene_interval(totals, scenes, lambda t: t[..., 0] / t[..., 1], seeds)

    near, far = interval(values), interval(values + [[-1], [0], [1]])
    assert near.mean == pytest.approx(values.mean()) == pytest.approx(far.mean)
    assert near.n == 180 and near.seeds == 3
    for made, scores in ((near, values), (far, values + [[-1], [0], [1]])):
        mean = two_level_interval({"gill": scores.T}, {"gill"})
        assert (made.low, made.high) == pytest.approx((mean.low, mean.high)), "the mean's own"
    assert far.high - far.low > 3 * (near.high - near.low), "seeds that differ say little"
    assert far.low < -1 and far.high > 1, "three seeds a whole apart"


def test_an_answer_is_worth_its_attributes_or_its_votes():
    frame = pd.DataFrame({"retrieved": [3, 6], "generated": [6, 3],
                          "votes": ["ret ret same gen gen", "gen gen gen gen gen"]})  # fmt: skip
    ret, gen, both = ["ret", "ret"], ["gen", "gen"], np.array([0.5, 0.5])
    assert choices.quality(frame, ret) == pytest.approx([0.5, 1])
    assert choices.quality(frame, gen, choices.raters_votes) == pytest.approx([0.5, 1])
    assert choices.quality(frame, ret, choices.raters_votes) == pytest.approx([0.5, 0])
    assert choices.quality(frame, both) == pytest.approx([0.75, 0.75])


def test_what_is_common_is_asked_for_and_at_hand():
    asked, shown = questions.make(400), set(questions.gallery_scenes())
    there = {split: np.mean([q.scene in shown for q in asked if q.split == split])
             for split in questions.SPLITS}  # fmt: skip
    assert there["seen"] > 0.7 and there["novel"] == 0
    balls = np.mean([scene.shape == "ball" for scene in questions.gallery_scenes()])
    assert balls == pytest.approx(1 / sum(k**-1.5 for k in range(1, 5)), abs=0.08)


def test_what_a_state_tells():
    """Features that hold one fact only: it is told, the others are not."""
    rng = np.random.default_rng(0)
    n = 600
    frame = pd.DataFrame({
        "seed": 0, "part": rng.choice(["train", "test"], n), "context": "seen",
        "retrieved": rng.integers(4, 7, n), "generated": rng.integers(4, 7, n),
    })  # fmt: skip
    frame["context"] = rng.choice(["seen", "novel"], n)
    frame["retrieved_score"] = frame.retrieved + rng.normal(size=n) * 0.1
    features = {0: rng.normal(size=(n, 4)) + 4 * (frame.generated == 6).to_numpy()[:, None]}
    told = reasons.told(frame, features).set_index("fact")
    assert told.loc["the generated picture is right", "state"] > 0.98
    assert 0.4 < told.loc["the scene is novel", "state"] < 0.6
    assert told.loc["the gallery has this very scene", "score"] == pytest.approx(1)
    assert told.loc["the gallery has this very scene", "state"] < 0.6


def test_the_scores_direction_is_not_taken_from_the_test_part():
    """The score tells the truth in training and its opposite on the test: worse than nothing."""
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame({
        "seed": 0, "part": np.repeat(["train", "test"], n // 2),
        "context": rng.choice(["seen", "novel"], n),
        "retrieved": rng.integers(4, 7, n), "generated": rng.integers(4, 7, n),
    })  # fmt: skip
    novel = (frame.context == "novel").to_numpy()
    frame["retrieved_score"] = np.where(frame.part == "train", novel, ~novel).astype(float)
    told = reasons.told(frame, {0: rng.normal(size=(n, 4))}).set_index("fact")
    assert told.loc["the scene is novel", "score"] == 0
    frame["retrieved_score"] = -novel.astype(float)  # turned round alike in both
    told = reasons.told(frame, {0: rng.normal(size=(n, 4))}).set_index("fact")
    assert told.loc["the scene is novel", "score"] == 1


def test_galleries_of_other_sizes():
    scenes, pictures = reasons.gallery_of(5)
    assert scenes == questions.gallery_scenes()[:5] and len(pictures) == 5
    whole, _ = reasons.gallery_of("every seen scene")
    assert len(whole) == len(set(whole)) == 1040 and not any(map(is_novel, whole))


# ---- the reference run -------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    result = json.loads((ROOT / "results" / "decide.json").read_text())
    return result, pd.read_csv(ROOT / "results" / "decide_scores.csv")


def test_one_seed_of_the_reference_run_stands_in_the_order_of_the_questions():
    own = outcome.committed(ROOT / "results", 1)
    assert list(own.example) == [q.example_id for q in questions.make()]
    assert set(own.seed) == {1} and list(own.index) == list(range(len(own)))


def test_the_reference_run_is_whole(reference):
    result, frame = reference
    assert {"table", "title", "rows", "verdicts", "counts", "provenance", "figures"} <= set(result)
    assert result["counts"] == {"scored": 2700, "eligible": 2700, "skipped": {}}
    assert list(frame.columns) == outcome.KEPT and len(frame) == 2700
    asked = {q.example_id: q for q in questions.make()}
    assert set(frame.example) == set(asked)
    scenes = questions.gallery_scenes()
    for row in frame.sample(50, random_state=0).itertuples():
        assert row.retrieved == questions.matches(
            asked[row.example].scene, scenes[row.retrieved_id]
        )
    rights = frame[[f"right_{name}" for name in ATTRIBUTES]].sum(axis=1)
    assert (rights == frame.generated).all()


def test_the_votes_of_the_reference_run_follow_from_its_raters(reference):
    result, frame = reference
    raters = votes.Raters(**result["raters"])
    drawn = votes.noise_of(frame), votes.tastes_of(frame)
    prompts = raters.votes(frame.generated - frame.retrieved, *drawn)
    assert [" ".join(p.votes) for p in prompts] == list(frame.votes)
    assert [p.label for p in prompts] == list(frame.label)
    people, simulated = (result["agreement"][who] for who in ("people", "simulated"))
    for figure in ("confident labels, share", "human macro F1"):
        assert abs(people[figure] - simulated[figure]) < 0.03


def test_the_reference_results_follow_from_its_scores(reference):
    result, frame = reference
    asked, frame = questions.make(), choices.with_references(frame)
    again = outcome.judged(frame, asked)
    for kind in ("verdicts", "controls"):
        for old, new in zip(result[kind], again[kind], strict=True):
            assert (old["id"], old["verdict"]) == (new["id"], new["verdict"])
            assert new["difference"] == pytest.approx(old["difference"], abs=1e-9)
            assert new["low"] == pytest.approx(old["low"], abs=1e-9)
    for old, new in zip(result["differences"], outcome.differences(frame, asked), strict=True):
        assert (old["against"], old["metric"]) == (new["against"], new["metric"])
        assert new["mean"] == pytest.approx(old["mean"], abs=1e-9)
    test, scenes = outcome.held_out(frame, asked)
    rows = {(r["method"], r["context"], r["metric"]): r for r in result["rows"]}
    for method, label in choices.METHODS.items():
        kept = rows[label, "all prompts", outcome.F1]["mean"]
        assert choices.f1_interval(test, scenes, method).mean == pytest.approx(kept, abs=1e-9)
    assert rows["people", "PartiPrompts", outcome.F1]["mean"] == pytest.approx(HUMAN, abs=1e-12)
    best = rows[choices.METHODS["perfect"], "all prompts", outcome.ACCURACY]["mean"]
    assert all(r["mean"] <= best + 1e-12 for k, r in rows.items()
               if k[1:] == ("all prompts", outcome.ACCURACY))  # fmt: skip


def test_the_report_can_show_the_results(reference, tmp_path):
    result, frame = reference
    text = summary.as_text(result)
    assert "linear decision on [IMG0]" in text and "2700 of 2700" in text
    assert claims.verdicts_frame(result["verdicts"]).shape == (1, 3)
    path = outcome.save(tmp_path, frame, result)
    assert json.loads(path.read_text()) == result
    assert len(pd.read_csv(tmp_path / "results" / "decide_scores.csv")) == len(frame)
