"""Contexts, protocols, and the resumable run."""

import dataclasses
import json
import multiprocessing

import pytest
from PIL import Image

from gill_lite.datasets.visdial import Dialogue
from gill_lite.datasets.vist import VistStory
from gill_lite.errors import GillError
from gill_lite.evaluation import protocol as pr
from gill_lite.evaluation import run as runs
from gill_lite.files import DATA

# ---- contexts ----------------------------------------------------------------------------


@pytest.fixture
def story(tmp_path):
    paths = []
    for i in range(5):
        Image.new("RGB", (10, 6), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    captions = tuple(f"sentence {i} ." for i in range(5))
    return VistStory("1", captions, tuple("01234"), tuple(paths))


def shape_of(prompt) -> list:
    return [part if isinstance(part, str) else part.getpixel((0, 0))[0] // 50 for part in prompt]


def test_vist_prompts_interleave_as_the_official_evaluation_does(story):
    assert pr.vist_prompt(story, "caption1") == ["sentence 4 ."]
    assert pr.vist_prompt(story, "captions5") == [f"sentence {i} ." for i in range(5)]
    prompt = pr.vist_prompt(story, "captions5_images4", image_size=4)
    assert shape_of(prompt) == [
        "sentence 0 .", 0, "sentence 1 .", 1, "sentence 2 .", 2, "sentence 3 .", 3, "sentence 4 .",
    ]  # fmt: skip
    assert all(part.size == (4, 4) for part in prompt[1::2])


def test_the_picture_asked_for_is_never_shown(story):
    for context in pr.VIST_CONTEXTS:
        assert 4 not in shape_of(pr.vist_prompt(story, context))
    with pytest.raises(GillError, match="too many"):
        pr.vist_prompt(story, pr.Context("all", 5, 5, "all"))


def test_other_contexts_can_be_made(story):
    context = pr.Context("captions3_images2", 3, 2, "3 captions, 2 images")
    assert shape_of(pr.vist_prompt(story, context)) == [
        "sentence 2 .", 2, "sentence 3 .", 3, "sentence 4 .",
    ]  # fmt: skip
    assert pr.vist_text(story, pr.Context("captions2", 2, 0, "")) == "sentence 3 . sentence 4 ."


def test_stable_diffusion_gets_the_text(story):
    assert pr.vist_text(story, "caption1") == "sentence 4 ."
    assert pr.vist_text(story, "captions5") == " ".join(story.captions)
    with pytest.raises(GillError, match="takes no images"):
        pr.vist_text(story, "captions5_images4")
    with pytest.raises(GillError, match="did you mean 'captions5'"):
        pr.vist_text(story, "caption5")


def test_visdial_text(tmp_path):
    rounds = tuple((f"is it {i}", f"no {i}") for i in range(10))
    dialogue = Dialogue("1", 1, "never shown", rounds, tmp_path)
    assert pr.visdial_text(dialogue, "rounds1") == "Q: is it 0?\nA: no 0"
    assert pr.visdial_text(dialogue, "rounds5").count("\n") == 9
    whole = pr.visdial_text(dialogue, "rounds10")
    assert whole.endswith("A: no 9") and "never shown" not in whole


def test_protocols_differ_where_the_official_code_is_at_fault():
    official, corrected = pr.get_protocol("official"), pr.get_protocol("corrected")
    assert official.one_generator and not corrected.one_generator
    assert (official.output_key, corrected.output_key) == ("target", "example")
    assert (official.visdial_lpips, corrected.visdial_lpips) == (False, True)
    with pytest.raises(GillError, match="corrected and official"):
        pr.get_protocol("mine")


def test_the_docs_tell_every_choice_as_the_code_has_it():
    page = (DATA.parent / "docs" / "protocols.md").read_text(encoding="utf-8")
    table = pr.markdown_table()
    assert table in page, "write docs/protocols.md anew from protocol.markdown_table()"
    choices = [choice.name for choice in dataclasses.fields(pr.Protocol)]
    assert choices[0] == "name" and len(choices) == len(table.splitlines()) - 2 + 1
    for name in choices[1:]:
        values = [getattr(protocol, name) for protocol in (pr.OFFICIAL, pr.CORRECTED)]
        assert values[0] != values[1], f"{name} is no choice"
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{name}` |")]
        assert all(f"| `{value!r}`: " in row for value in values)


def test_gill_sees_a_dialogue_as_one_text_without_a_picture(tmp_path):
    rounds = tuple((f"is it {i}", f"no {i}") for i in range(10))
    dialogue = Dialogue("1", 1, "never shown", rounds, tmp_path)
    for context in pr.VISDIAL_CONTEXTS:
        assert pr.visdial_prompt(dialogue, context, 64) == [pr.visdial_text(dialogue, context)]


# ---- the run -----------------------------------------------------------------------------

ITEMS = runs.work_items(["a", "b", "c"], [("sd", "caption1", 0), ("gill", "captions5", 1)])


def score(batch) -> list[dict]:
    """A score that depends on the item and, as float noise does, on who shares the batch."""
    return [{"clip_similarity": len(batch) + 0.1 * len(item.key)} for item in batch]


def run(tmp_path, score_fn=score, items=ITEMS, config=None, **options):
    config = {"weights": "x"} if config is None else config
    options = {"batch_size": 2, "progress": False, **options}
    return runs.run_resumable(items, score_fn, tmp_path / "run", config, **options)


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
    def some(batch):
        return [{"skipped": "unreadable image"} if item.example_id == "b" else {"lpips": 0.5}
                for item in batch]  # fmt: skip

    result = run(tmp_path, some)
    assert (result.scored, result.eligible, result.skipped) == (4, 6, {"unreadable image": 2})
    assert run(tmp_path, lambda batch: pytest.fail("scored again")) == result


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

    runs.run_resumable(ITEMS, wait, folder, {"weights": "x"}, batch_size=2, progress=False)


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


def test_scores_frame_and_story_table(tmp_path):
    items = runs.work_items(["a", "b"], [("sd", "caption1", 0), ("gill", "caption1", 0),
                                       ("gill", "caption1", 1)])  # fmt: skip
    values = iter([0.1, 0.2, 0.3, 0.4, 0.5, 0.8])
    result = run(tmp_path, lambda batch: [{"lpips": next(values)} for _ in batch], items)
    frame = runs.scores_frame(result.rows)
    assert list(frame) == ["example", "method", "context", "seed", "lpips"] and len(frame) == 6
    table = runs.story_table(frame, "lpips")
    assert table["gill", "caption1"].tolist() == pytest.approx([0.4, 0.6])
    assert table["sd", "caption1"].tolist() == pytest.approx([0.1, 0.2])
    partial = runs.story_table(frame[:-1], "lpips")  # story b lacks one seed of gill
    assert partial["gill", "caption1"].isna().tolist() == [False, True]
    with pytest.raises(GillError, match="no metric 'clip'; they have lpips"):
        runs.story_table(frame, "clip")


def test_ids_may_hold_slashes(tmp_path):
    items = runs.work_items(["album/7"], [("sd", "caption1", 0)])
    frame = runs.scores_frame(run(tmp_path, lambda batch: [{"lpips": 0.0}], items).rows)
    assert frame["example"].tolist() == ["album/7"]


def test_rows_are_readable_json_lines(tmp_path):
    run(tmp_path)
    lines = (tmp_path / "run" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [item.key for item in ITEMS]
