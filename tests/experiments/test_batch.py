"""`gill-lite reproduce` in parts and with joints made anew, over drawings that are made up."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gill_lite.cli import main as cli
from gill_lite.evaluation import evaluate as evaluate_table
from gill_lite.evaluation.run import run_resumable, scores_by_key, work_items
from gill_lite.evaluation.shards import ALL, refuse_other_cuts
from gill_lite.experiments import batch, reproduce


class Drawing:
    """In the place of an Evaluation: scores are lengths of names."""

    def __init__(self, spec, folder, names, seeds):
        self.spec, self.folder, self.models = spec, Path(folder) / spec.name, "models"
        self.items = work_items(names, spec.cells(seeds))

    def run(self, shard=ALL, progress=None):
        refuse_other_cuts(self.folder, shard)
        return run_resumable(
            shard.share(self.items, 4), lambda items: [{"x": len(i.key)} for i in items],
            shard.folder(self.folder), shard.config({}, self.items, 4), 4,
        )  # fmt: skip


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """Every call of table.prepare, and in its place a Drawing of six examples."""
    calls = []

    def prepare(spec, folder, profile, seeds, count, run_seed, protocol, **options):
        calls.append(SimpleNamespace(spec=spec, seeds=seeds, count=count, **options))
        return Drawing(spec, folder, [f"e{i}" for i in range(6)], seeds)

    monkeypatch.setattr(evaluate_table, "prepare", prepare)
    monkeypatch.chdir(tmp_path)
    return calls


def shard(part: str, tables: str = "tokens,mappers") -> int:
    return cli.main(f"reproduce --tables {tables} --num-captions 6 --shard {part} -o run".split())


def test_parts_and_their_merge_are_the_rows_of_one_run(prepared, monkeypatch, capsys):
    assert shard("1/2") == 0 and shard("2/2") == 0
    assert "gill-lite reproduce --merge" in capsys.readouterr().out
    batch.merge_shards(["tokens", "mappers"], Path("run"))
    for name in ("img_tokens", "mappers", "mappers_captions"):
        seen = next(c for c in prepared if c.spec.name == name)
        whole = Drawing(seen.spec, "whole", [f"e{i}" for i in range(6)], seen.seeds)
        whole.run()
        merged, alone = (Path(p) / name / "rows.jsonl" for p in ("run", "whole"))
        assert merged.read_text() == alone.read_text() and len(scores_by_key(merged)) > 6
        assert json.loads((merged.parent / "config.json").read_text()) == json.loads(
            (alone.parent / "config.json").read_text()
        )


def test_each_drawing_is_prepared_as_its_notebook_does(prepared):
    shard("1/1")
    told = {call.spec.name: (call.seeds, call.count) for call in prepared}
    assert told == {"mappers": ([0, 1, 2], 300), "mappers_captions": ([0, 1, 2], 6),
                    "img_tokens": ([0], 300)}  # fmt: skip
    shared = next(c for c in prepared if c.spec.name == "mappers_captions")
    assert shared.models == "models"  # loaded once


def test_a_merge_of_too_little_is_one_sentence(prepared, capsys):
    assert shard("1/2", "context") == 0
    assert cli.main("reproduce --tables context --merge -o run".split()) == 2
    assert "lacks the shards 2/2" in capsys.readouterr().err
    assert cli.main("reproduce --tables 1 --merge -o run".split()) == 2
    assert "holds no parts of these tables" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["0/2", "3/2", "half"])
def test_no_part_of_a_whole(prepared, capsys, part):
    assert shard(part) == 2
    assert "a shard is i/n" in capsys.readouterr().err


def test_retrain_makes_what_the_tables_need_once(monkeypatch, tmp_path, capsys):
    made = []

    def run(command):
        made.append(command[command.index("train") + 1 :])
        folder = Path(command[-1])
        folder.mkdir(parents=True)
        (folder / "joints.safetensors").write_bytes(b"")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(batch.subprocess, "run", run)
    root = batch.retrain(["1", "retrieval"], [0, 1], tmp_path)
    assert sorted(p.name for p in root.iterdir()) == [
        "fromage-0", "fromage-1", "gill-0", "gill-1", "gill_lm1-0", "gill_lm2-0"
    ]  # fmt: skip
    fromage = next(c for c in made if str(c[-1]).endswith("fromage-0"))
    assert fromage[:-1] == [
        "--mapper", "none", "--num-img-tokens", "1", "--seed", "0", "-o"
    ]  # fmt: skip
    assert "gill-lite train --mapper none" in capsys.readouterr().out
    batch.retrain(["1", "retrieval"], [0, 1], tmp_path)
    assert len(made) == 6  # nothing twice


def test_a_failing_training_stops_all(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(batch.subprocess, "run", lambda command: SimpleNamespace(returncode=1))
    monkeypatch.setattr(reproduce, "reproduce", lambda *a: pytest.fail("went on"))
    status = cli.main(["reproduce", "--tables", "1", "--retrain", "-o", str(tmp_path / "run")])
    assert status == 2
    assert "training gill-0 failed" in capsys.readouterr().err
