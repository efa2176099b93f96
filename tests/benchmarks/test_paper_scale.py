"""The measures at the paper's size, taken here from toy models on a CPU; the page they fill."""

import json
import math

import pytest
import torch

from benchmarks.paper_scale import paper_scale, scale_table, speed
from benchmarks.paper_scale.random_backbones import (
    PAPER_SHAPES,
    SPARE_ROWS,
    Shapes,
    random_backbones,
    random_lm,
    random_pipeline,
    word_tokenizer,
)
from benchmarks.paper_scale.scale_table import Settings
from benchmarks.paper_scale.speed import WARMUP, Timing
from gill_lite.answering.respond import Responder
from gill_lite.errors import GillError
from gill_lite.model import memory, tokens
from gill_lite.model.gill import build_gill
from gill_lite.training import train
from tests.helpers import tiny_backbones
from tests.helpers.places import ROOT

PAGE = "# page\n\n<!-- paper_scale: made -->\nold\n<!-- /paper_scale -->\n\nend\n"
SMALL = Settings(
    batch_size=4, prompt_tokens=9, new_tokens=24, repeats=2, batches=(1, 3), pictures=500
)
PROFILE = tiny_backbones.profile(num_inference_steps=2)


@pytest.fixture(scope="module")
def backbones():
    base = tiny_backbones.backbones()
    base.profile = PROFILE
    base.pipeline.set_progress_bar_config(disable=True)
    return base


@pytest.fixture
def gill(backbones):
    return build_gill(PROFILE, backbones)


@pytest.fixture
def spy(monkeypatch):
    """spy(where, name): the calls of a function, as [(arguments, result), ...]."""

    def watch(where, name):
        calls, inner = [], getattr(where, name)

        def outer(*arguments, **options):
            result = inner(*arguments, **options)
            calls.append((arguments, result))
            return result

        monkeypatch.setattr(where, name, outer)
        return calls

    return watch


# ---- measuring ---------------------------------------------------------------------------


def test_warm_up_runs_are_not_counted(monkeypatch):
    clock, runs = iter(range(100)), []
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock) ** 2)
    timing = speed.timed(lambda: runs.append(1) or len(runs), "cpu", 3, "x")
    assert len(runs) == timing.last == WARMUP + 3
    counted = range(WARMUP, WARMUP + 3)
    assert timing.seconds == [(2 * i + 1) ** 2 - (2 * i) ** 2 for i in counted]
    assert timing.median == timing.seconds[1] and timing.peak is None


def test_the_gpu_is_waited_for_on_both_sides_of_a_run(monkeypatch):
    told = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: told.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: told.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 * scale_table.GIB)
    monkeypatch.setattr(speed, "WARMUP", 0)
    timing = speed.timed(lambda: told.append("run"), "cuda", 2, "x")
    assert told == ["reset", *("wait", "run", "wait") * 2]
    assert timing.peak == 7 * scale_table.GIB


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_training_steps_really_happen(backbones, gill, spy, micro_batches):
    before = {name: value.clone() for name, value in gill.state_dict().items()}
    started, steps = spy(speed.Stepper, "start"), spy(speed.Stepper, "finish")
    batches = spy(train, "make_batch")
    timing = speed.train_timing(PROFILE, gill, backbones, 2, micro_batches)
    assert len(timing.seconds) == 2 and min(timing.seconds) > 0
    assert len(steps) == WARMUP + 2
    assert len(batches) == micro_batches * (len(steps) + 1)  # one is made ahead
    numbers = [arguments[1] for arguments, _ in started]
    assert numbers == [PROFILE.warmup_steps + i for i in range(len(steps))]
    assert all(row["learning_rate"] == PROFILE.learning_rate for _, row in steps)
    assert len({row["loss"] for _, row in steps}) == len(steps)
    joints = gill.trainable_parameters()
    for name, value in gill.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in joints), name
    assert all(joint.grad is None for joint in joints.values()) and not gill.training


def test_a_training_batch_is_full_and_its_targets_are_made_of_its_captions(backbones, gill, spy):
    batches = spy(train, "make_batch")
    speed.train_timing(PROFILE, gill, backbones, 1)
    (_, first), (_, second), *_ = batches
    assert first.images.shape == (4, 3, 16, 16)
    for batch in (first, second):
        ids, longest = batch.img_rows.input_ids, PROFILE.max_caption_tokens
        assert ids.shape in ((4, longest), (2, 2 * longest - 1)), "alone, or two and two joined"
        assert set(batch.img_rows.lengths.tolist()) == {ids.shape[1]}
        assert len(set(map(tuple, ids.tolist()))) == len(ids)
    assert first.prompt_targets.shape == (4, 77, 8)
    assert first.prompt_targets.data_ptr() != second.prompt_targets.data_ptr()  # computed anew


def test_a_training_step_that_is_not_finite_is_no_measure(backbones, gill):
    with torch.no_grad():
        gill.visual_fc.weight.fill_(math.nan)
    with pytest.raises(GillError, match="not finite"):
        speed.train_timing(PROFILE, gill, backbones, 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_decoding_gives_as_many_tokens_as_asked_through_the_cache(gill, spy, batch):
    answers, fed = spy(speed.decode, "generate"), spy(gill, "lm_step")
    first, rest = speed.decode_timing(gill, batch, 9, 24, repeats=2)
    assert [len(row) for row in first.last.ids] == [1] * batch
    assert [len(row) for row in rest.last.ids] == [24] * batch
    assert not any(token in gill.config.img_token_ids for row in rest.last.ids for token in row)
    assert len(answers) == 2 * (WARMUP + 2)
    lengths = [arguments[0].shape[:2] for arguments, _ in fed]
    assert lengths == [(batch, 9)] * (WARMUP + 2) + [(batch, 9), *[(batch, 1)] * 23] * (WARMUP + 2)
    assert min(first.seconds + rest.seconds) > 0
    _, row = scale_table.decode_rows(SMALL, batch, first, rest)
    assert row["unit"] == "tokens/s"
    assert row["low"] <= row["median"] <= row["high"]
    assert row["high"] == pytest.approx(23 * batch / min(rest.seconds))


@pytest.mark.parametrize("batch", [1, 3])
def test_as_many_pictures_are_drawn_as_asked(backbones, gill, spy, batch):
    runs = spy(backbones.pipeline.unet, "forward")
    responder = Responder(backbones, gill)
    timing = speed.draw_timing(responder, batch, repeats=2)
    assert timing.last.shape == (batch, 3, 16, 16)
    assert len(timing.seconds) == 2 and min(timing.seconds) > 0
    assert len(runs) == PROFILE.num_inference_steps * (WARMUP + 2)
    assert runs[0][0][0].shape[0] == 2 * batch  # with guidance
    (row,) = scale_table.draw_rows(SMALL, batch, timing, 2)
    assert row["what"] == f"drawing, 2 steps with guidance, batch {batch}"
    assert row["low"] == pytest.approx(batch / max(timing.seconds))


def test_too_little_memory_is_told_in_a_sentence(backbones, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(speed, "train_timing", full)
    with pytest.raises(GillError, match="measure 'train'.*more --gradient-accumulation-steps"):
        list(paper_scale.measure(["train"], SMALL, PROFILE, backbones))


# ---- rows --------------------------------------------------------------------------------


def test_the_papers_training_is_extrapolated_beside_its_96_hours():
    timing = Timing([3.0, 1.8, 2.0], 50 * scale_table.GIB, {})
    step, cost = scale_table.train_rows(Settings(), timing)
    assert (step["median"], step["low"], step["high"]) == (2000.0, 1800.0, 3000.0)
    assert (step["unit"], step["peak_gib"], cost["unit"]) == ("ms", 50.0, "GPU-hours")
    assert cost["median"] == pytest.approx(2.0 * 20_000 / 3600)
    assert cost["paper"].startswith("96 A6000-hours: 2 days on 2 A6000; Koh et al. 2023")


def test_other_models_and_batches_stand_beside_no_number_of_the_paper():
    for settings in (Settings(papers=False), Settings(batch_size=100)):
        assert len(scale_table.train_rows(settings)) == 1
    (row,) = scale_table.train_rows(Settings(batch_size=100, gradient_accumulation_steps=4))
    assert row["what"] == "training step, 100 pairs in 4 micro-batches"
    with pytest.raises(GillError, match="new_tokens must be at least 2, not 1"):
        Settings(new_tokens=1)


def test_measured_and_unmeasured_rows_are_the_same_rows(backbones):
    found = dict(paper_scale.measure(scale_table.KINDS, SMALL, PROFILE, backbones))
    assert list(found) == list(scale_table.KINDS)
    for kind, rows in found.items():
        timed = [row for row in rows if row["unit"] != "of 255"]
        assert all(row["low"] > 0 and "paper" in row for row in timed), kind
    assert [row["unit"] for row in found["decode"]] == ["ms", "tokens/s"] * 2
    empty = {kind: scale_table.empty_rows(kind) for kind in scale_table.KINDS}
    counts = {"train": 2, "decode": 4, "draw": 3, "search": 3}
    assert {kind: len(rows) for kind, rows in empty.items()} == counts
    for kind in ("decode", "draw", "search"):
        assert [row["unit"] for row in empty[kind]] == [row["unit"] for row in found[kind]]
    json.dumps(found, allow_nan=False)


# ---- the page ----------------------------------------------------------------------------


def cells_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def measured(kind: str, machine: str) -> tuple[str, list[dict], dict]:
    """One entry of the JSON file, with the number 2 in each of its rows."""
    rows = [
        {**row, "median": 2.0, "low": 1.0, "high": 1234.5, "peak_gib": 3.21, "seconds": [1.0]}
        for row in scale_table.empty_rows(kind)
    ]
    about = {"machine": machine, "command": f"measure {kind}", "lm": "random OPT", "cuda": "13.0"}
    about |= {"libraries": dict.fromkeys(scale_table.VERSIONS, "1.2")}
    about |= {"git_commit": "0123456789abcdef", "finished_utc": "2030-01-02 03:04:05"}
    return kind, rows, about


def test_a_table_without_measures_has_commands_and_no_numbers():
    head, rule, *rows = cells_of(scale_table.table({}))
    assert head == list(scale_table.HEADS) and len(rows) == 12
    assert {len(row) for row in (head, rule, *rows)} == {len(head)}
    assert {tuple(row[1:4]) for row in rows} == {("not measured", "–", "–")}
    assert {row[5] for row in rows} == {"–"}
    commands = [row[6] for row in rows]
    assert commands[0] == "`python -m benchmarks.paper_scale --measure train`"
    assert [kind for kind in scale_table.KINDS if f"--measure {kind}`" in str(commands)] == list(
        scale_table.KINDS
    )


def test_the_commands_of_the_table_are_understood():
    for row in cells_of(scale_table.table({}))[2:]:
        words = row[6].strip("`").removeprefix(scale_table.COMMAND).split()
        arguments = paper_scale.build_parser().parse_args(words)
        assert arguments.measure == [words[-1]]
        assert {name: getattr(arguments, name) for name in paper_scale.OPTIONS} == {
            name: getattr(Settings(), name) for name in paper_scale.OPTIONS
        }


def test_a_new_measure_replaces_its_rows_and_leaves_the_others(tmp_path):
    output, doc = tmp_path / "scale.json", tmp_path / "page.md"
    doc.write_text(PAGE)
    scale_table.write(*measured("draw", "GPU A"), output, doc)
    scale_table.write(*measured("train", "GPU B"), output, doc)
    found = json.loads(output.read_text())
    assert {kind: list(cards) for kind, cards in found.items()} == {
        "draw": ["GPU A"], "train": ["GPU B"],
    }  # fmt: skip
    text = doc.read_text()
    assert text.startswith("# page\n\n<!-- paper_scale: made -->\n\n| what")
    assert text.endswith("<!-- /paper_scale -->\n\nend\n") and "old" not in text
    rows = cells_of(text)[2:]
    assert [row[5] for row in rows] == ["GPU B"] * 2 + ["–"] * 4 + ["GPU A"] * 3 + ["–"] * 3
    assert rows[0][1:4] == ["2", "1 to 1,234", "3.2 GiB"] and rows[0][6] == "`measure train`"
    assert (
        "- `train` on GPU B: random OPT; torch 1.2, transformers 1.2, diffusers 1.2, CUDA 13.0; "
        in text
    )
    kind, rows, about = measured("draw", "GPU A")
    scale_table.write(kind, rows, {**about, "command": "again"}, output, doc)
    assert doc.read_text().count("| `again` ") == 3  # the same card's rows give way,
    scale_table.write(*measured("draw", "GPU C"), output, doc)  # another card's stay
    cards = [row[5] for row in cells_of(doc.read_text())[2:]]
    assert cards[6:12] == ["GPU A"] * 3 + ["GPU C"] * 3
    scale_table.write(kind, rows, {**about, "plain": True}, output, doc)
    assert [row[5] for row in cells_of(doc.read_text())[2:]].count("GPU A") == 6
    assert (
        scale_table.with_table(doc.read_text(), json.loads(output.read_text())) == doc.read_text()
    )


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    output, doc = tmp_path / "scale.json", tmp_path / "page.md"
    doc.write_text(PAGE)

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("gill_lite.files.os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        scale_table.write(*measured("draw", "GPU"), output, doc)
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"] and doc.read_text() == PAGE


def test_files_that_are_something_else_are_left_alone(tmp_path):
    output, doc = tmp_path / "scale.json", tmp_path / "page.md"
    doc.write_text("no place\n")
    with pytest.raises(GillError, match="page.md lacks the lines <!-- paper_scale: -->"):
        scale_table.write(*measured("draw", "GPU"), output, doc)
    assert not output.exists() and doc.read_text() == "no place\n"
    output.write_text('{"rows": {}}')
    with pytest.raises(GillError, match="scale.json was not written by .*move it away"):
        scale_table.known_measures(output)


def test_the_committed_page_is_made_of_the_committed_measures():
    doc = ROOT / "docs" / "paper_scale.md"
    text = doc.read_text(encoding="utf-8")
    found = scale_table.known_measures(ROOT / "results" / "paper_scale.json")
    assert scale_table.with_table(text, found) == text
    told = f"median of {Settings().repeats} runs behind {WARMUP} that are not counted"
    assert told in text.replace("\n", " ")


# ---- the command -------------------------------------------------------------------------


def test_without_a_gpu_one_sentence_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    output, doc = tmp_path / "scale.json", tmp_path / "page.md"
    doc.write_text(PAGE)
    assert paper_scale.main(["-o", str(output), "--doc", str(doc)]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("paper_scale: there is no CUDA GPU here, so ")
    assert told.err.count("\n") == 1
    assert not output.exists() and doc.read_text() == PAGE


def test_the_command_measures_writes_and_prints(tmp_path, monkeypatch, capsys, backbones):
    monkeypatch.setattr(paper_scale, "gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr(paper_scale, "paper_backbones", lambda *_: backbones)
    monkeypatch.setattr(paper_scale, "PAPER", PROFILE)
    output, doc = tmp_path / "scale.json", tmp_path / "page.md"
    doc.write_text(PAGE)
    options = "--measure draw train --batch-size 4 --gradient-accumulation-steps 2 --repeats 3"
    words = [*options.split(), "-o", str(output), "--doc", str(doc)]
    assert paper_scale.main(words) == 0
    found = json.loads(output.read_text())
    assert list(found) == ["draw", "train"]
    [entry] = found["train"].values()
    (row,), about = entry["rows"], entry["about"]
    assert row["what"] == "training step, 4 pairs in 2 micro-batches" and row["median"] > 0
    assert len(row["seconds"]) == 3
    assert about["command"].startswith(f"python -m benchmarks.paper_scale {options} -o ")
    assert set(scale_table.VERSIONS) <= set(about["libraries"])
    assert about["lm"].startswith("random OPTForCausalLM of 0.00 B") and about["machine"] == "CPU"
    told = capsys.readouterr().out
    assert scale_table.table(found) in told and scale_table.table(found) in doc.read_text()


def test_a_bad_page_is_refused_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paper_scale, "gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr(paper_scale, "paper_backbones", lambda *_: pytest.fail("measured"))
    words = ["-o", str(tmp_path / "scale.json"), "--doc", str(tmp_path / "gone.md")]
    assert paper_scale.main(words) == 2
    assert "gone.md is missing" in capsys.readouterr().err


# ---- random models -----------------------------------------------------------------------

TOWER = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
TOWER |= {"num_attention_heads": 2, "projection_dim": 8}
TINY = Shapes(
    lm={"model_type": "opt", "vocab_size": 40, "hidden_size": 16, "word_embed_proj_dim": 16,
        "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    text={**TOWER, "vocab_size": 30, "max_position_embeddings": 77},
    vision={**TOWER, "image_size": 16, "patch_size": 8},
    unet={"sample_size": 8, "block_out_channels": (8,), "norm_num_groups": 4,
          "layers_per_block": 1, "cross_attention_dim": 8, "attention_head_dim": 2,
          "down_block_types": ("CrossAttnDownBlock2D",),
          "up_block_types": ("CrossAttnUpBlock2D",)},
    vae={"block_out_channels": (8,), "norm_num_groups": 4, "latent_channels": 4},
)  # fmt: skip


@pytest.mark.parametrize("kind", ["opt", "llama"])
def test_random_models_of_any_shapes_are_measured(kind):
    lm = {**TINY.lm, "model_type": kind}
    if kind == "llama":
        lm = {"model_type": kind, "vocab_size": 40, "num_hidden_layers": 2, "hidden_size": 16,
              "intermediate_size": 32, "num_attention_heads": 2}  # fmt: skip
    base = random_backbones(PROFILE, shapes=TINY._replace(lm=lm))
    frozen = [base.lm, base.vision, base.pipeline.unet, base.pipeline.vae]
    for model in (*frozen, base.pipeline.text_encoder):
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert not any(p.requires_grad for p in model.parameters()) and not model.training
    assert base.lm.config.model_type == kind
    assert len(base.tokenizer) == 40 - SPARE_ROWS.get(kind, 0)
    small = Settings(batch_size=4, prompt_tokens=5, new_tokens=4, repeats=1, batches=(1,))
    found = dict(paper_scale.measure(["train", "draw"], small, PROFILE, base))
    timed = [row for rows in found.values() for row in rows if row["unit"] != "of 255"]
    assert all(row["median"] > 0 for row in timed)


def test_the_papers_shapes_are_those_that_memory_is_counted_from():
    lm = random_lm(PAPER_SHAPES.lm, torch.bfloat16, "meta")
    pipeline = random_pipeline(PAPER_SHAPES, "meta", torch.bfloat16)
    made = {"lm": lm, "text_encoder": pipeline.text_encoder, "unet": pipeline.unet}
    for name, model in {**made, "vae": pipeline.vae}.items():
        known = memory.paper_models()[name]
        assert memory.parameters(model) == memory.parameters(known), name
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    words = word_tokenizer(memory.OPT_6_7B["vocab_size"] - SPARE_ROWS["opt"])
    assert len(words) == 50_265
    assert tokens.img_token_ids(words, 8) == memory.paper_gill().config.img_token_ids
    assert words("w4 w9 w50264", add_special_tokens=False).input_ids == [4, 9, 50_264]


@pytest.mark.parametrize(
    ("lm", "told"),
    [
        ({"vocab_size": 40}, "no model_type"),
        ({"model_type": "nonsense"}, "no causal LM can be made .*nonsense.*config.json"),
        ({"model_type": "vit"}, "no causal LM can be made"),
    ],
)
def test_a_configuration_of_no_lm_is_refused(lm, told, tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(lm))
    monkeypatch.setattr("benchmarks.paper_scale.random_backbones.PAPER_SHAPES", TINY)
    with pytest.raises(GillError, match=told):
        paper_scale.paper_backbones("cpu", path)
