"""The spread over language models, from scores made up so that the answer is known."""

import pandas as pd
import pytest

from gill_lite.evaluation.tables import TABLES
from gill_lite.evaluation.tasks import VIST_CONTEXTS
from gill_lite.report import claims, spread
from gill_lite.training import recipes

FIVE = VIST_CONTEXTS["captions5"]


def frame(levels: dict) -> pd.DataFrame:
    """levels: (method, seed) -> mean; forty stories around it."""
    rows = [
        {"example": f"s{i}", "method": m, "context": "captions5", "seed": seed,
         "clip_similarity": level + 0.01 * (i % 4 - 1.5) * (1 + len(m))}
        for (m, seed), level in levels.items() for i in range(40)
    ]  # fmt: skip
    return pd.DataFrame(rows)


LEVELS = {("sd", 0): 0.5, ("gill", 0): 0.7, ("gill", 1): 0.72, ("gill", 2): 0.74,
          ("gill_lm1", 0): 0.8, ("gill_lm2", 0): 0.4}  # fmt: skip


def test_deviations_over_joints_and_over_language_models():
    (row,) = spread.rows(frame(LEVELS), [FIVE])
    assert row["joints"] == pytest.approx([0.7, 0.72, 0.74])
    assert row["joints_sd"] == pytest.approx(0.02)
    assert row["lms"] == pytest.approx({"gill": 0.72, "gill_lm1": 0.8, "gill_lm2": 0.4})
    assert row["lms_sd"] == pytest.approx(0.212, abs=1e-3)
    shown = spread.means_frame([row])
    assert list(shown.columns) == ["LM 0", "LM 1", "LM 2", "sd over LMs", "sd over joints of LM 0"]
    assert shown.iloc[0, 0] == "0.720"


def test_one_seed_has_no_deviation_and_one_language_model_no_rows():
    alone = {cell: level for cell, level in LEVELS.items() if cell[1] == 0}
    (row,) = spread.rows(frame(alone), [FIVE])
    assert row["joints_sd"] is None and "one seed" in spread.means_frame([row]).to_string()
    assert spread.rows(frame({("sd", 0): 0.5, ("gill", 0): 0.7}), [FIVE]) == []
    assert spread.means_frame([]).empty and spread.verdicts_frame([]).empty


def test_a_claim_is_judged_on_each_language_model_with_its_first_joints():
    judged = [c for c in claims.read_claims() if c.id == "vist-five-captions"]
    told = spread.verdicts(judged, frame(LEVELS))
    assert [(row["lm"], row["verdict"]) for row in told] == [
        ("0", claims.REPRODUCED), ("1", claims.REPRODUCED), ("2", claims.NOT_REPRODUCED)
    ]  # fmt: skip
    differences = [row["difference"] for row in told]
    assert differences == pytest.approx([0.2, 0.3, -0.1])
    table = spread.verdicts_frame(told)
    assert table.loc[judged[0].statement, "LM 2"] == claims.NOT_REPRODUCED


def test_tables_1_and_2_have_every_language_model_that_ships():
    assert TABLES["1"].learned == TABLES["2"].learned == recipes.lms_there()
    assert "gill" in recipes.lms_there() and set(recipes.lms_there()) <= set(recipes.EVERY_LM)
    cells = TABLES["1"].cells([1, 2])
    others = {(name, "captions5", 0) for name in recipes.lms_there()[1:]}
    assert others < set(cells) and ("gill", "captions5", 0) not in cells
    elsewhere = TABLES["1"].elsewhere()
    assert elsewhere.learned == ("gill",) and elsewhere.baselines == ("sd",)


def test_every_recipe_names_the_command_that_makes_it():
    for name, recipe in recipes.RECIPES.items():
        command = recipes.train_command(name, recipe.seeds[0])
        assert command.startswith("gill-lite train ") and command.endswith(" --seed 0")
        if recipe.lm:
            assert recipe.lm_folder.is_dir() or not recipes.there(name)
            assert f"--lm data/lms/{recipe.lm}/lm" in command
    assert recipes.train_options("linear", 2) == {
        "mapper": "linear", "learning_rate": 1e-2, "seed": 2
    }  # fmt: skip
