"""`gill-lite evaluate`: the paper profile on tiny random models and official files, in parts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import gill_lite
from gill_lite.cli import main as cli
from gill_lite.course.kernels import execute
from gill_lite.files import read_json
from gill_lite.provenance import repository_root
from gill_lite.report import claims, summary
from tests.helpers import tiny_evaluation as tiny
from tests.helpers.places import RECORDINGS

KEYS = ["example", "method", "context", "seed"]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Tiny models and official files, as the options that name them."""
    folder = tmp_path_factory.mktemp("paper")
    return [*tiny.photographs(folder), *tiny.save_paper(folder)]


def evaluate(number, given, folder, *more) -> int:
    cache = f"--cache={folder / 'cache'}"
    return cli.main(["evaluate", number, *given, "-o", str(folder), cache, *more])


def scores(folder, name) -> pd.DataFrame:
    return pd.read_csv(folder / "results" / f"{name}_scores.csv", dtype={"example": str})


@pytest.fixture(scope="module")
def alone(given, tmp_path_factory):
    """VIST and VisDial by one process."""
    folder = tmp_path_factory.mktemp("alone")
    assert [evaluate(number, given, folder, "--batch-size=2") for number in "12"] == [0, 0]
    return folder


def test_both_tables_come_from_official_files(alone):
    for name, contexts, cells in (("table1_vist", 3, 5), ("table2_visdial", 3, 6)):
        result = read_json(alone / "results" / f"{name}.json")
        frame = scores(alone, name)
        assert len(frame) == 4 * cells and frame["context"].nunique() == contexts
        assert set(frame) == {*KEYS, "clip_similarity"}, "no scenes, no attribute accuracy"
        data = result["provenance"]["inputs"]["data"]
        assert data["skipped"] == {"missing image": 1}
        assert (data["eligible"], data["usable"], data["taken"]) == (5, 4, 4)
        assert {row["metric"] for row in result["rows"]} == {"CLIP similarity ↑", "LPIPS ↓"}
        verdicts = {v["id"]: v["verdict"] for v in result["verdicts"]}
        assert {v == "not run" for k, v in verdicts.items() if "lpips" in k} == {True}
        there = {v for k, v in verdicts.items() if not re.search("lpips|glide", k)}
        assert there and "not run" not in there
        assert result["provenance"]["profile"] == "paper"
        assert result["provenance"]["inputs"]["profile"]["num_inference_steps"] == 3
        assert result["provenance"]["command"].startswith(f"gill-lite evaluate {name[5]}")


def test_single_captions_come_from_an_official_file(tmp_path):
    given = [*tiny.photographs(tmp_path), *tiny.save_paper(tmp_path, range(4))]
    more = ("--seeds=0", "--num-captions=3")
    assert evaluate("mappers-captions", given, tmp_path, *more) == 0
    frame = scores(tmp_path, "mappers_captions")
    assert sorted(set(frame["example"])) == ["0.png", "1.png", "2.png"]
    assert set(frame["method"]) == {"sd", "linear", "mlp", "encoder", "gill"} and len(frame) == 15


def test_the_report_notebook_judges_a_paper_run(alone):
    """docs/paper_scale.md: the claims of the tables that were run, all others "not run"."""
    name = "19_assemble_report.ipynb"
    parameters = {"profile": "paper", "output_dir": str(alone)}
    execute(repository_root() / "notebooks" / name, alone / name, parameters, progress=False)
    results, problems = summary.read_results(alone / "results")
    rows = summary.claim_rows(results)
    page = (alone / "report.html").read_text(encoding="utf-8")
    assert problems == []
    assert claims.count_text(rows).split(" ", 1)[1] in page and "gill-lite evaluate 1 " in page
    silent = {claims.NOT_RUN, claims.NO_STATISTIC}
    run = {row["table"] for row in rows if row["verdict"] not in silent}
    assert run == {"vist", "visdial"}
    assert {row["verdict"] for row in rows if row["table"] not in run} <= silent


def test_a_finished_table_is_not_computed_again(alone, given, monkeypatch):
    from gill_lite.evaluation.scorer import Scorer

    monkeypatch.setattr(Scorer, "__call__", lambda *_: pytest.fail("scored again"))
    assert evaluate("1", given, alone, "--batch-size=2") == 0


def close(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    both = one.merge(other, on=KEYS, suffixes=("", "_other"))
    gap = (both["clip_similarity"] - both["clip_similarity_other"]).abs().max()
    return len(both) == len(one) == len(other) and gap <= 1e-5


def test_two_processes_give_the_scores_of_one(alone, given, tmp_path):
    """Started as a user starts them, meeting on 127.0.0.1."""
    here = Path(gill_lite.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}
    environment["ACCELERATE_USE_CPU"] = "true"  # the same numbers where there is a GPU
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launch, "-m", "gill_lite", "evaluate", "2", *given, "-o", str(tmp_path)]
    command += ["--batch-size=2", f"--cache={tmp_path / 'cache'}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = sorted(p.name for p in (tmp_path / "table2_visdial").glob("shard-*"))
    assert parts == ["shard-1-of-2", "shard-2-of-2"]
    assert close(scores(tmp_path, "table2_visdial"), scores(alone, "table2_visdial"))
    assert done.stdout.count("results: ") == 1, "one process reports"


def test_parts_by_hand_and_their_merge(alone, given, tmp_path, capsys):
    for shard in ("1/2", "2/2"):
        assert evaluate("1", given, tmp_path, "--batch-size=2", f"--shard={shard}") == 0
        assert f"part {shard} is done" in capsys.readouterr().out
        assert not (tmp_path / "results").exists()
    assert cli.main(["evaluate", "1", "--merge", "-o", str(tmp_path)]) == 0
    assert close(scores(tmp_path, "table1_vist"), scores(alone, "table1_vist"))
    mine, theirs = (read_json(f / "results/table1_vist.json") for f in (tmp_path, alone))
    assert mine["provenance"]["inputs"] == theirs["provenance"]["inputs"]
    assert mine["settings"] == {"num_stories": 4, "seeds": [0], "run_seed": 0}
    shutil.rmtree(tmp_path / "table1_vist" / "shard-2-of-2")
    assert cli.main(["evaluate", "1", "--merge", "-o", str(tmp_path)]) == 2
    assert "lacks the shards 2/2" in capsys.readouterr().err


def test_the_official_protocol_lies_beside_ours(alone, given):
    assert evaluate("1", given, alone, "--protocol=official", "--run-seed=42") == 0
    official = read_json(alone / "results" / "table1_vist_official.json")
    assert official["title"].endswith("(official protocol)")
    assert official["provenance"]["inputs"]["protocol"]["one_generator"] is True
    assert not close(scores(alone, "table1_vist_official"), scores(alone, "table1_vist"))


def test_half_precision(alone, given, tmp_path):
    assert evaluate("2", given, tmp_path, "--dtype=bf16", "--num-dialogues=2") == 0
    result = read_json(tmp_path / "results" / "table2_visdial.json")
    assert result["provenance"]["inputs"]["weights"]["dtype"] == "torch.bfloat16"
    assert result["counts"]["scored"] == 6, "of the two, one has its picture"
    frame = scores(tmp_path, "table2_visdial").merge(scores(alone, "table2_visdial"), on=KEYS)
    assert (frame["clip_similarity_x"] - frame["clip_similarity_y"]).abs().max() < 0.3


def without(given, *names) -> list[str]:
    return [word for word in given if not word.startswith(names)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda g: without(g, "--vist-json"), "name both --vist-json and --vist-images"),
        (lambda g: without(g, "--vist"), "is evaluated on official files: name --vist-json"),
        (lambda g: g[: g.index("--joints")], "no joints are shipped for profile 'paper'"),
        (lambda g: [*g[:-1], "nowhere"], "--joints: nowhere holds no joints.safetensors"),
        (
            lambda g: [*g, "--seeds=0,1"],
            "1 folders of joints are given, and 2 are needed (gill-0, gill-1); --seeds",
        ),
        (lambda g: [*g, "--num-stories=9"], "holds 5 stories that are whole, 9 are asked for"),
        (lambda g: [*g, "--metrics=beauty"], "there is no metric 'beauty'"),
        (lambda g: [*g, "--metrics=attribute_accuracy"], "needs the mini world's scenes"),
        (lambda g: [*g, "--shard=3/2"], "a shard is i/n with i from 1 to n"),
        (lambda g: [*g, "--lm=/no/model"], "the lm weights '/no/model' cannot be loaded"),
    ],
)
def test_what_is_missing_is_one_sentence(given, tmp_path, capsys, monkeypatch, change, sentence):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert evaluate("1", change(given), tmp_path) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("gill-lite: ") and sentence in told
    assert not (tmp_path / "results").exists()


def test_lpips_without_its_alexnet_is_one_sentence(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert evaluate("1", [*given, "--metrics=lpips"], tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "LPIPS needs torchvision's AlexNet" in told and "--metrics clip_similarity" in told
    path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a network")
    assert evaluate("1", [*given, "--metrics=lpips"], tmp_path / "out") == 2
    assert "is not torchvision's AlexNet (sha256 differs)" in capsys.readouterr().err


def test_retrieval_by_what_one_has_of_the_methods(given, tmp_path):
    assert evaluate("retrieval", without(given, "--metrics"), tmp_path, "--methods=clip,gill") == 0
    frame = scores(tmp_path, "retrieval")
    assert set(frame["method"]) == {"clip", "gill"} and len(frame) == 4 * (2 + 3)
    assert frame["rank"].between(1, 4).all()


def test_the_decision_is_fitted_to_the_official_votes(given, tmp_path, capsys):
    votes = RECORDINGS / "PartiPromptsAllDecisions_Alignment.tsv"
    options = (f"--partiprompts-tsv={votes}",)
    assert evaluate("decide", without(given, "--metrics"), tmp_path, *options) == 0
    assert "linear decision on [IMG0]" in capsys.readouterr().out
    result, frame = read_json(tmp_path / "results" / "decide.json"), scores(tmp_path, "decide")
    assert result["counts"]["eligible"] == 1632 and result["counts"]["scored"] == len(frame)
    assert set(frame["label"]) == {"gen", "ret"} and set(frame["part"]) == {
        "train", "validation", "test"
    }  # fmt: skip
    f1 = {row["method"]: row["mean"] for row in result["rows"]}
    assert f1["always generate"] < 0.5 and 0 < f1["linear decision on [IMG0]"] < 1
    assert [verdict["id"] for verdict in result["verdicts"]] == ["decide-f1"]
    assert evaluate("decide", given, tmp_path) == 2
    assert "name --partiprompts-tsv" in capsys.readouterr().err
    assert evaluate("decide", given, tmp_path, *options, "--merge") == 2
    assert "has no parts; leave out --shard and --merge" in capsys.readouterr().err


def test_fast_drawing_is_not_for_the_mini_world(tmp_path, capsys):
    assert cli.main(["evaluate", "1", "--fast-drawing", "-o", str(tmp_path / "run")]) == 2
    assert "--fast-drawing is for the paper's models" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("**/*.json"))
