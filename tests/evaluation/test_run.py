"""A run over a dataset: kept as it goes, and ended with the same bytes however often it stops."""

import json
import multiprocessing

import pytest

from gill_lite.datasets.reading import Unusable
from gill_lite.errors import GillError
from gill_lite.evaluation.run import run_resumable, work_items
from gill_lite.report.scores import scores_frame, story_scores

ITEMS = work_items(["a", "b", "c"], [("sd", "caption1", 0), ("gill", "captions5", 1)])


def score(batch) -> list[dict]:
    """A score that depends on the item and, as float noise does, on who shares the batch."""
    return [{"clip_similarity": len(batch) + 0.1 * len(item.key)} for item in batch]


def run(tmp_path, score_fn=score, items=ITEMS, config=None, **options):
    config = {"weights": "x"} if config is None else config
    options = {"batch_size": 2, "progress": False, **options}
    return run_resumable(items, score_fn, tmp_path / "run", config, **options)


def test_batches_never_cross_cells(tmp_path):
    batches = []

    def watch(batch):
        batches.append([item.key for item in batch])
        return score(batch)

    result = run(tmp_path, watch)
    assert batches == [
        ["sd/caption1/0/a", "sd/caption1/0/b"], ["sd/caption1/0/c"],
        ["gill/captions5/1/a", "gill/captions5/1/b"], ["gill/captions5/1/c"],
    ]  # fmt: skip
    assert (result.scored, result.eligible, result.skipped) == (6, 6, {})


class Killed(Exception):
    pass


def killed_after(batches: int):
    left = [batches]

    def die(batch):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return score(batch)

    return die


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_killed_run_continues_and_ends_with_the_same_bytes(tmp_path, batches):
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", killed_after(batches))
    scored = []
    result = run(tmp_path / "cut", lambda batch: scored.append(batch) or score(batch))
    assert result == whole and len(scored) == 4 - batches
    both = [(tmp_path / n / "run" / "rows.jsonl").read_bytes() for n in ("whole", "cut")]
    assert both[0] == both[1]


@pytest.mark.parametrize("lost", [1, 10, 60, 100])
def test_torn_last_line_is_redone_with_its_whole_batch(tmp_path, lost):
    whole = run(tmp_path)
    path = tmp_path / "run" / "rows.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3 * 2 - lost])
    assert run(tmp_path) == whole
    assert path.read_bytes() == content


def test_finished_run_scores_nothing_again(tmp_path):
    first = run(tmp_path)
    again = run(tmp_path, lambda batch: pytest.fail("scored again"))
    assert again == first


def test_other_configuration_is_refused_with_the_difference(tmp_path):
    run(tmp_path)
    with pytest.raises(GillError, match="weights was 'x' and is 'y'"):
        run(tmp_path, config={"weights": "y"})
    with pytest.raises(GillError, match="steps was 'absent' and is 12"):
        run(tmp_path, config={"weights": "x", "steps": 12})
    run(tmp_path / "nested", config={"profile": {"name": "mini", "steps": 12}, "data": {}})
    with pytest.raises(GillError, match=r"\(profile.steps was 12 and is 8\); name a new folder"):
        run(tmp_path / "nested", config={"profile": {"name": "mini", "steps": 8}, "data": {}})
    with pytest.raises(GillError, match="data was {} and is 'absent'"):
        run(tmp_path / "nested", config={"profile": {"name": "mini", "steps": 12}})
    with pytest.raises(GillError, match="items was 6 and is 5"):
        run(tmp_path, items=ITEMS[:5])
    with pytest.raises(GillError, match="batch_size was 2 and is 3"):
        run(tmp_path, batch_size=3)
    with pytest.raises(GillError, match="items_sha256"):
        run(tmp_path, items=ITEMS[::-1])


def test_skipped_examples_are_counted_with_reasons(tmp_path):
    damaged = {"b": Unusable("unreadable image", "b.png is damaged")}
    result = run(tmp_path, fault=damaged.get)
    assert (result.scored, result.eligible, result.skipped) == (4, 6, {"unreadable image": 2})
    assert result.lost == {"unreadable image": 1}
    assert run(tmp_path, lambda batch: pytest.fail("scored again"), fault=damaged.get) == result
    assert run(tmp_path) == run(tmp_path / "whole"), "the picture has come"
    with pytest.raises(GillError, match="1 of 3 examples are unusable .* 30% .*: b.png is damaged"):
        run(tmp_path / "new", fault=damaged.get, max_skipped=0.3)


def test_bad_rows_stop_the_run_and_name_the_item(tmp_path):
    with pytest.raises(GillError, match="sd/caption1/0/a cannot be kept"):
        run(tmp_path, lambda batch: [{"lpips": float("nan")} for _ in batch])
    with pytest.raises(GillError, match="gave 1 rows, not 2"):
        run(tmp_path, lambda batch: [{}])
    with pytest.raises(GillError, match="names sd/caption1/0/a twice"):
        run(tmp_path, items=[ITEMS[0], ITEMS[0]])
    with pytest.raises(GillError, match="batch_size"):
        run(tmp_path, batch_size=0)
    assert run(tmp_path).scored == 6  # nothing bad was kept


def test_broken_line_in_the_middle_is_named(tmp_path):
    run(tmp_path)
    path = tmp_path / "run" / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "{broken\n" + "".join(lines[2:]))
    with pytest.raises(GillError, match="line 2 of .*rows.jsonl is broken"):
        run(tmp_path)


def hold(folder, held, release):
    """In another process: a run that waits in its first batch."""

    def wait(batch):
        held.set()
        release.wait(60)
        return score(batch)

    run_resumable(ITEMS, wait, folder, {"weights": "x"}, batch_size=2, progress=False)


def test_second_run_on_one_folder_is_told(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", held, release))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(GillError, match="another run is writing to"):
            run(tmp_path)
    finally:
        release.set()
        other.join(60)
    assert other.exitcode == 0
    assert run(tmp_path, lambda batch: pytest.fail("scored again")).scored == 6


def test_lock_of_a_killed_run_does_not_stay(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", held, release))
    other.start()
    assert held.wait(60)
    other.kill()
    other.join(60)
    assert run(tmp_path).scored == 6


def test_scores_a_row_a_picture_and_a_row_a_story(tmp_path):
    items = work_items(["a", "b"], [("sd", "caption1", 0), ("gill", "caption1", 0),
                                       ("gill", "caption1", 1)])  # fmt: skip
    values = iter([0.1, 0.2, 0.3, 0.4, 0.5, 0.8])
    result = run(tmp_path, lambda batch: [{"lpips": next(values)} for _ in batch], items)
    frame = scores_frame(result.rows)
    assert list(frame) == ["example", "method", "context", "seed", "lpips"] and len(frame) == 6
    table = story_scores(frame, "lpips")
    assert table["gill", "caption1"].tolist() == pytest.approx([0.4, 0.6])
    assert table["sd", "caption1"].tolist() == pytest.approx([0.1, 0.2])
    partial = story_scores(frame[:-1], "lpips")  # story b lacks one seed of gill
    assert partial["gill", "caption1"].isna().tolist() == [False, True]
    with pytest.raises(GillError, match="no metric 'clip'; they have lpips"):
        story_scores(frame, "clip")


def test_ids_may_hold_slashes(tmp_path):
    items = work_items(["album/7"], [("sd", "caption1", 0)])
    frame = scores_frame(run(tmp_path, lambda batch: [{"lpips": 0.0}], items).rows)
    assert frame["example"].tolist() == ["album/7"]


def test_rows_are_readable_json_lines(tmp_path):
    run(tmp_path)
    lines = (tmp_path / "run" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [item.key for item in ITEMS]
