"""A run cut in parts: the same rows, the same bytes, and no merge of parts that do not fit."""

import json
import shutil
import time
from types import SimpleNamespace

import pytest

from gill_lite import provenance
from gill_lite.cli.evaluate import run_shared
from gill_lite.errors import GillError
from gill_lite.evaluation import run as runs
from gill_lite.evaluation.evaluate import Evaluation
from gill_lite.evaluation.shards import ALL, Shard, merge
from gill_lite.evaluation.tables import Table
from gill_lite.evaluation.tasks import VIST

TABLE = Table("9", "table9", VIST, "A table", tuple(VIST.contexts.values()))
STORIES = [str(n) for n in range(7)]


def score(batch) -> list[dict]:
    """Depends on the item and, as float noise does, on who shares the batch."""
    return [{"clip_similarity": len(batch) + 0.01 * int(item.example_id)} for item in batch]


def evaluation(folder, scorer=score, config=None, stories=STORIES) -> Evaluation:
    """A run of seven stories in five cells, by batches of three."""
    examples = [SimpleNamespace(example_id=name) for name in stories]
    whole = {"ids": list(stories), "fault": lambda name: None}
    dataset = SimpleNamespace(examples=examples, **whole)
    config = config or {"weights": "x"}
    return Evaluation(TABLE, dataset, {}, scorer, (0,), config, folder / "table9", batch_size=3)


def parts(folder, count, **options):
    for number in range(1, count + 1):
        evaluation(folder, **options).run(Shard(number, count), progress=False)


def files(folder) -> list[bytes]:
    return [(folder / "table9" / name).read_bytes() for name in ("rows.jsonl", "config.json")]


@pytest.fixture
def whole(tmp_path):
    result = evaluation(tmp_path / "whole").run(progress=False)
    assert result.scored == 7 * 5
    return result, files(tmp_path / "whole")


@pytest.mark.parametrize("count", [1, 2, 4, 15, 20])
def test_parts_merged_are_the_run_of_one_process(tmp_path, whole, count):
    parts(tmp_path, count)
    merged = merge(tmp_path / "table9") if count > 1 else evaluation(tmp_path).run()
    assert (merged, files(tmp_path)) == whole
    again = evaluation(tmp_path, lambda batch: pytest.fail("scored again"))
    assert again.run(ALL, progress=False) == whole[0], "a merged run is a finished run"


def test_the_time_of_all_starts_and_parts_adds_up(tmp_path):
    def slow(batch):
        time.sleep(0.02)
        if batch[0].example_id == "3" and batch[0].context == "captions5":
            raise RuntimeError("killed")
        return score(batch)

    with pytest.raises(RuntimeError, match="killed"):
        evaluation(tmp_path, slow).run(progress=False)
    spent = runs.kept_seconds(tmp_path / "table9")
    assert spent > 0.02, "kept, though the run did not end"
    resumed = evaluation(tmp_path).run(progress=False)
    assert resumed.earlier_seconds == spent
    assert evaluation(tmp_path).run(progress=False).earlier_seconds >= spent
    parts(tmp_path / "cut", 2)
    folders = (tmp_path / "cut" / "table9").glob("shard-*")
    told = sum(runs.kept_seconds(folder) for folder in folders)
    assert merge(tmp_path / "cut" / "table9").earlier_seconds == told > 0
    assert evaluation(tmp_path / "cut").run(progress=False).earlier_seconds == pytest.approx(told)


def test_wall_time_in_results_counts_earlier_starts():
    now = provenance.collect(time.time(), earlier_seconds=100)["wall_seconds"]
    assert 100 <= now < 160


def test_batches_are_dealt_whole(tmp_path):
    items = evaluation(tmp_path).items()
    cuts = [Shard(i, 2).share(items, 3) for i in (1, 2)]
    assert [len(cut) for cut in cuts] == [18, 17]
    assert [item.example_id for item in cuts[0][:6]] == ["0", "1", "2", "6", "3", "4"]
    assert {item.key for cut in cuts for item in cut} == {item.key for item in items}


def test_a_killed_part_goes_on_and_the_merge_waits_for_it(tmp_path, whole):
    left = [2]

    def killed(batch):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return score(batch)

    evaluation(tmp_path).run(Shard(1, 2), progress=False)
    with pytest.raises(KeyboardInterrupt):
        evaluation(tmp_path, killed).run(Shard(2, 2), progress=False)
    with pytest.raises(GillError, match="shard 2/2 has 6 of 17 rows .* it goes on where"):
        merge(tmp_path / "table9")
    assert not (tmp_path / "table9" / "rows.jsonl").exists(), "nothing half-merged"
    scored = []
    evaluation(tmp_path, lambda b: scored.append(b) or score(b)).run(Shard(2, 2), progress=False)
    assert len(scored) == 5
    assert (merge(tmp_path / "table9"), files(tmp_path)) == whole


def test_missing_parts_are_named(tmp_path):
    for number in (2, 4):
        evaluation(tmp_path).run(Shard(number, 4), progress=False)
    with pytest.raises(GillError, match="lacks the shards 1/4, 3/4; .*--shard 1/4"):
        merge(tmp_path / "table9")
    with pytest.raises(GillError, match="holds no shards"):
        merge(tmp_path / "elsewhere")


def test_overlapping_parts_are_named(tmp_path):
    parts(tmp_path, 2)
    parts(tmp_path / "other", 3)
    shutil.copytree(tmp_path / "other/table9/shard-3-of-3", tmp_path / "table9/shard-3-of-3")
    with pytest.raises(GillError, match="overlap, .*: shard-1-of-2, shard-2-of-2, shard-3-of-3"):
        merge(tmp_path / "table9")


def test_a_part_copied_under_another_name_is_told(tmp_path):
    parts(tmp_path, 2)
    folder = tmp_path / "table9"
    shutil.rmtree(folder / "shard-2-of-2")
    shutil.copytree(folder / "shard-1-of-2", folder / "shard-2-of-2")
    with pytest.raises(GillError, match="shard-2-of-2 was made by other settings .shard was"):
        merge(folder)
    path = folder / "shard-2-of-2" / "config.json"
    path.write_text(path.read_text().replace('"shard": "1/2"', '"shard": "2/2"'))
    with pytest.raises(GillError, match="shards 1/2 and 2/2 .* overlap in gill/caption1/0/0"):
        merge(folder)


def test_parts_of_different_runs_are_told(tmp_path):
    evaluation(tmp_path).run(Shard(1, 2), progress=False)
    evaluation(tmp_path, config={"weights": "y"}).run(Shard(2, 2), progress=False)
    with pytest.raises(GillError, match="shard-2-of-2 was made by other settings .weights was"):
        merge(tmp_path / "table9")


def test_a_part_goes_on_only_in_its_own_cut(tmp_path):
    evaluation(tmp_path).run(Shard(1, 2), progress=False)
    for shard in (Shard(1, 3), ALL):
        with pytest.raises(GillError, match="shards of another cut .*shard-1-of-2.*as before"):
            evaluation(tmp_path).run(shard, progress=False)


def test_a_merge_does_not_replace_another_run(tmp_path, whole):
    folder = tmp_path / "whole"
    shutil.rmtree(folder)
    evaluation(folder, config={"weights": "y"}).run(progress=False)
    before = files(folder)
    parts(tmp_path, 2)
    for path in (tmp_path / "table9").iterdir():
        shutil.move(path, folder / "table9" / path.name)
    with pytest.raises(GillError, match="weights was 'y' and is 'x'"):
        merge(folder / "table9")
    assert files(folder) == before


def test_rows_mended_by_hand_are_put_in_order(tmp_path, whole):
    parts(tmp_path, 2)
    path = tmp_path / "table9/shard-1-of-2/rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[5:]))  # a broken line was removed, say
    evaluation(tmp_path).run(Shard(1, 2), progress=False)
    assert (merge(tmp_path / "table9"), files(tmp_path)) == whole


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_shard_is_i_of_n(text):
    with pytest.raises(GillError, match=f"a shard is i/n .* not '{text}'"):
        Shard.read(text)
    assert Shard.read("2/4") == Shard(2, 4)


def test_processes_share_the_work_and_the_first_returns_it_all(tmp_path, whole):
    """What each of two processes does, one after the other; the barrier is the test's order."""

    def process(index):
        return SimpleNamespace(
            num_processes=2, process_index=index, is_main_process=index == 0,
            wait_for_everyone=lambda: None,
        )  # fmt: skip

    assert run_shared(evaluation(tmp_path), process(1)) is None
    assert run_shared(evaluation(tmp_path), process(0)) == whole[0]
    assert files(tmp_path) == whole[1]


def test_every_cell_of_a_row_is_in_its_key():
    (item,) = runs.work_items(["album/7"], [("gill", "captions5", 2)])
    assert runs.row_cell(item.key) == ("gill", "captions5", "2")
    assert json.loads(runs.line({"key": item.key, "lpips": 0.5}))["key"] == item.key
