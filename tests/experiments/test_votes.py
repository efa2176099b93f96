"""Votes: the official ones, how much people agree, and raters made up to agree as much."""

import numpy as np
import pandas as pd
import pytest

from gill_lite.datasets.partiprompts import Prompt, read_partiprompts
from gill_lite.errors import GillError
from gill_lite.experiments.deciding import votes
from gill_lite.files import DATA
from tests.helpers.places import RECORDINGS

ORIGINALS = [RECORDINGS / f"PartiPromptsAllDecisions_{q}.tsv" for q in ("Alignment", "Realism")]
HUMAN = 0.8510681024099351  # printed by the official notebook


# ---- the real votes ----------------------------------------------------------------------


def test_the_shipped_votes_are_the_official_ones():
    shipped = (DATA / "partiprompts_votes.csv").read_text()
    assert shipped == votes.votes_csv(*ORIGINALS)
    with pytest.raises(GillError, match="is missing"):
        votes.votes_csv(ORIGINALS[0], RECORDINGS / "gone.tsv")


def test_the_shipped_votes_hold_votes_only():
    frame = pd.read_csv(DATA / "partiprompts_votes.csv")
    assert list(frame.columns) == votes.COLUMNS and list(frame["row"]) == list(range(1, 1633))
    assert set(frame.drop(columns="row").stack().dropna()) == {"gen", "ret", "same"}
    assert frame.isna().sum().sum() == 4, "two prompts have four votes on each question"


def test_figures_of_the_real_votes():
    real = votes.read_votes()
    labels = pd.Series([prompt.label for prompt in real]).value_counts()
    assert labels.to_dict() == {"same": 721, "gen": 592, "ret": 319}
    cast = pd.Series([v for prompt in real for v in prompt.votes]).value_counts()
    assert cast.to_dict() == {"gen": 3854, "ret": 2836, "same": 1468}
    figures = votes.agreement(real)
    assert figures["human macro F1"] == pytest.approx(HUMAN, abs=1e-12)
    assert figures["confident labels, share"] == pytest.approx(911 / 1632)
    assert figures["votes for same, share"] == pytest.approx(1468 / (3854 + 2836 + 1468))
    assert 0.09 < figures["Cohen's kappa, mean of pairs"] < 0.12
    realism = pd.Series([p.label for p in votes.read_votes(question="realism")]).value_counts()
    assert realism.to_dict() == {"same": 860, "gen": 402, "ret": 370}


def test_broken_votes_are_refused(tmp_path):
    with pytest.raises(GillError, match="alignment and realism, not on 'beauty'"):
        votes.read_votes(question="beauty")
    path = tmp_path / "votes.csv"
    path.write_text("row,a\n1,gen\n")
    with pytest.raises(GillError, match="votes.csv must have the columns row, alignment_1"):
        votes.read_votes(path)
    path.write_text(",".join(votes.COLUMNS) + "\n1" + ",gen" * 4 + ",both" + ",gen" * 5 + "\n")
    with pytest.raises(GillError, match="line 2 of .*votes that are none.*both"):
        votes.read_votes(path)


def test_votes_of_other_prompts_are_refused(tmp_path):
    head = "Prompt\tCategory\tChallenge\tNote\tDecisions\n"
    for name, text in (("a", "a ball"), ("b", "a box")):
        (tmp_path / name).write_text(f"{head}{text}\tx\tx\tx\tgen,ret,gen,gen,same\n")
    with pytest.raises(GillError, match="not about the same prompts"):
        votes.votes_csv(tmp_path / "a", tmp_path / "b")
    lines = votes.votes_csv(tmp_path / "a", tmp_path / "a").splitlines()
    assert lines[1] == "1,gen,ret,gen,gen,same,gen,ret,gen,gen,same" and "ball" not in lines[1]


# ---- agreement ---------------------------------------------------------------------------


def test_human_macro_f1_is_the_official_constant():
    prompts = read_partiprompts(ORIGINALS[0]).examples
    assert votes.human_macro_f1(prompts) == pytest.approx(HUMAN, abs=1e-15)
    truth = [prompt.label for prompt in votes.labelled(prompts)]
    assert len(truth) == 911
    # always "gen": F1 of gen is 2*592/(911+592), of ret 0
    assert votes.constant_macro_f1(truth, "gen") == pytest.approx(592 / (911 + 592), abs=1e-12)
    assert votes.constant_macro_f1(truth, "ret") == pytest.approx(319 / (911 + 319), abs=1e-12)


def test_human_macro_f1_by_hand():
    def prompt(label, *votes):
        return Prompt("x", "", "", "", votes, label)

    prompts = [
        prompt("gen", "gen", "same"),
        prompt("ret", "ret", "gen"),
        prompt("gen", "gen", "gen"),
        prompt("same", "ret", "gen"),  # not labelled: does not count
    ]
    # first annotator 1.0; second: truth ret, gen; answers gen, gen: F1 of gen 2/3, of ret 0
    assert votes.human_macro_f1(prompts) == pytest.approx((1.0 + 1 / 3) / 2)
    with pytest.raises(GillError, match="labelled gen or ret"):
        votes.human_macro_f1(prompts[3:])


def test_macro_f1_of_nothing_is_undefined():
    assert votes.macro_f1([], []) is None and votes.constant_macro_f1([], "gen") is None
    with pytest.raises(GillError, match="one answer a label"):
        votes.macro_f1(["gen"], [])


def of(*rows: str):
    """Prompts from votes written as letters: "ggrs"."""
    names = {"g": "gen", "r": "ret", "s": "same"}
    return [votes.voted([names[letter] for letter in row]) for row in rows]


def test_kappa_of_perfect_and_of_no_agreement():
    assert votes.pairwise_kappas(of("ggg", "rrr", "sss")) == pytest.approx([1, 1, 1])
    assert votes.pairwise_kappas(of("gr", "rg")) == pytest.approx([-1])
    assert votes.pairwise_kappas(of("gg", "rr", "s")) == pytest.approx([1]), "a vote is missing"


def test_left_out_macro_f1_by_hand():
    # four raters agree, the fifth never does: he scores 0, and so does nobody else
    prompts = of("ggggr", "rrrrg")
    assert votes.left_out_macro_f1(prompts) == pytest.approx(4 / 5)
    assert votes.human_macro_f1(prompts) == pytest.approx(4 / 5)
    # three to two: no label; left out, a vote of the larger side leaves two to two, no label
    assert votes.left_out_macro_f1(of("gggrr", "ggggg", "rrrrr")) == pytest.approx(
        (3 * 1.0 + 2 * votes.macro_f1(["gen", "ret", "gen"], ["gen", "ret", "ret"])) / 5
    )


def test_votes_dealt_at_random_stay_with_their_annotator():
    real = votes.read_votes()
    dealt = votes.shuffled(real, seed=3)
    whole = [p for p in real if len(p.votes) == 5]
    assert len(dealt) == len(whole) == 1630
    for annotator in range(5):
        before, after = (sorted(p.votes[annotator] for p in x) for x in (whole, dealt))
        assert before == after
    figures = votes.agreement(dealt)
    assert abs(figures["Cohen's kappa, mean of pairs"]) < 0.02
    assert figures["human macro F1"] > 0.77, "each vote is part of its label"
    assert figures["macro F1, own vote left out"] == pytest.approx(0.5, abs=0.04)


# ---- simulated raters --------------------------------------------------------------------


def test_raters_without_noise_vote_by_the_lead():
    prompts = votes.Raters(0.0, 0.5).votes([2, 0, -1], np.ones((3, 5)))
    assert [set(p.votes) for p in prompts] == [{"gen"}, {"same"}, {"ret"}]
    assert [p.label for p in prompts] == ["gen", "same", "ret"]
    noisy = votes.Raters(1.0, 0.5).votes([0], [[1.0, -1.0, 0.2, 0.5, -0.4]])[0]
    assert noisy.votes == ("gen", "ret", "same", "gen", "same")


def test_raters_judge_by_the_lead_of_the_generated_picture(monkeypatch):
    monkeypatch.setattr(votes, "calibrate", lambda *_, **__: votes.Raters(0.0, 0.5))
    frame = pd.DataFrame({"example": ["a", "b"], "seed": 0})
    frame = frame.assign(generated=[6, 2], retrieved=[2, 6])
    assert list(votes.vote(frame, [])[0].label) == ["gen", "ret"]


def test_each_rater_has_noise_of_their_own():
    noise = votes.rater_noise([(0, "a"), (0, "b"), (1, "a")])
    assert noise.shape == (3, 5) and len(np.unique(noise)) == 15
    np.testing.assert_array_equal(votes.rater_noise([(1, "a")])[0], noise[2])


def test_calibration_finds_the_raters_again():
    rng = np.random.default_rng(0)
    leads, noise = rng.integers(-2, 3, 1500), rng.normal(size=(1500, 5))
    true = votes.Raters(1.5, 0.5)
    grid = [0.5, 1.0, 1.5, 2.0], [0.1, 0.5, 1.0]
    assert votes.calibrate(leads, noise, true.votes(leads, noise), *grid) == true


def test_at_a_tie_raters_vote_as_people_did_on_realism():
    frame = pd.DataFrame({"seed": 0, "example": [f"seen-{i}" for i in range(3_000)]})
    tastes = votes.tastes_of(frame)
    assert tastes.shape == (3_000, votes.RATERS)
    both = zip(votes.read_votes(), votes.read_votes(question="realism"), strict=True)
    people = [real.votes for agrees, real in both
              if agrees.label == "same" and len(real.votes) == votes.RATERS]  # fmt: skip
    for vote in ("gen", "ret", "same"):
        assert (tastes == vote).mean() == pytest.approx((np.array(people) == vote).mean(), abs=0.02)
    assert set(map(tuple, tastes.tolist())) <= set(people), "whole rows: who agrees stays so"
    cast = votes.Raters(0.0, 0.5).votes([1.0, 0.0, -1.0], np.zeros((3, 5)), tastes[:3])
    assert [p.label for p in cast][::2] == ["gen", "ret"] and cast[1].votes == tuple(tastes[1])
