"""What `gill-lite doctor` says can run here, and the memory counted on the meta device."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gill_lite.cli import doctor
from gill_lite.cli import main as cli
from gill_lite.model import memory
from gill_lite.model.gill import build_gill
from gill_lite.model.memory import GIB, Need
from gill_lite.profiles import PAPER, REVISIONS
from tests.helpers import tiny_backbones

# ---- memory ------------------------------------------------------------------------------


def test_the_papers_models_have_the_sizes_known_of_them():
    """Parameter counts as the models' authors and users give them."""
    known = {"lm": 6_658_473_984, "vision": 427_616_513, "text_encoder": 123_060_480}
    known |= {"unet": 859_520_964, "vae": 83_653_863}
    models = memory.paper_models()
    assert {name: memory.parameters(model) for name, model in models.items()} == known
    joints = memory.paper_gill().trainable_parameters().values()
    assert sum(p.numel() for p in joints) == 50_096_385
    assert {p.device.type for model in models.values() for p in model.parameters()} == {"meta"}


def test_bytes_of_weights_by_precision():
    lm = tiny_backbones.causal_lm("llama", 22, 64, tie_word_embeddings=True)
    linear = sum(m.weight.numel() for m in lm.model.modules() if isinstance(m, nn.Linear))
    rest = memory.parameters(lm) - linear  # the tied rows once
    assert memory.weight_bytes(lm) == 2 * (rest + linear)
    assert memory.weight_bytes(lm, "8bit") == 2 * rest + linear
    assert memory.weight_bytes(lm, "4bit") == 2 * rest + linear * 9 / 16
    untied = tiny_backbones.causal_lm("llama", 22, 64, tie_word_embeddings=False)
    grown = memory.weight_bytes(untied, "4bit") - memory.weight_bytes(lm, "4bit")
    assert grown == 2 * 22 * 64  # output rows are never quantised


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_autograd_keeps_is_counted_once_and_without_weights(device):
    with torch.device(device):
        first, last = nn.Linear(8, 16), nn.Linear(16, 4)
        x = torch.zeros(5, 8, requires_grad=True)
    for layer in (first, last):
        layer.requires_grad_(False)
    frozen = memory.kept_bytes(lambda: last(first(x).relu()), first, last)
    assert frozen == 5 * 16 * 4  # frozen layers need no input, relu needs its result
    last.requires_grad_(True)
    assert memory.kept_bytes(lambda: last(first(x).relu()), first, last) == frozen
    assert memory.kept_bytes(lambda: last(first(x).exp() + 1), first, last) == 2 * frozen


def test_a_pair_walked_on_the_meta_device_keeps_what_a_real_one_keeps():
    base = tiny_backbones.backbones()
    real = build_gill(tiny_backbones.profile(), base)
    with sdpa_kernel(SDPBackend.MATH):  # the plain form, as on the meta device
        seen = memory.kept_bytes(lambda: memory.pair_pass(real, 24), real)
    fused = memory.kept_bytes(lambda: memory.pair_pass(real, 24), real)
    meta = real.to("meta")
    counted = memory.kept_bytes(lambda: memory.pair_pass(meta, 24), meta)
    assert counted == pytest.approx(seen, rel=0.01)
    assert fused < counted  # so what doctor says is rather too much
    longer = memory.kept_bytes(lambda: memory.pair_pass(meta, 48), meta)
    assert longer > 1.5 * counted


def test_a_language_model_that_reads_its_own_mask_can_be_counted(monkeypatch):
    """As OPT of transformers 5.17 does, where the meta device has nothing to read."""
    from transformers.models.opt import modeling_opt

    make_mask = modeling_opt.create_causal_mask

    def reading(inputs_embeds, attention_mask, **others):
        if attention_mask is None:
            attention_mask = torch.ones(inputs_embeds.shape[:2], device=inputs_embeds.device)
        return make_mask(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **others)

    gill = build_gill(tiny_backbones.profile(), tiny_backbones.backbones())
    assert gill.lm.config.model_type == "opt"
    embeds = torch.randn(1, 9, gill.lm.config.hidden_size)
    torch.testing.assert_close(memory.lm_states(gill.lm, embeds), gill.lm_states(embeds))
    meta = gill.to("meta")
    counted = memory.kept_bytes(lambda: memory.pair_pass(meta, 24), meta)
    monkeypatch.setattr(modeling_opt, "create_causal_mask", reading)
    assert memory.kept_bytes(lambda: memory.pair_pass(meta, 24), meta) == counted > 0


def test_needs_of_the_paper_follow_from_its_sizes():
    train, bf16, eight, four = memory.paper_needs()
    linear = 32 * (4 * 4096**2 + 2 * 4096 * 16384)  # OPT-6.7B's layers without biases
    assert bf16.total - eight.total == linear
    assert eight.total - four.total == pytest.approx(linear * 7 / 16, abs=1)
    assert train.batch == PAPER.batch_size and train.total > bf16.total > 2 * 6_658_473_984
    weights = sum(map(memory.weight_bytes, memory.paper_models().values()))
    assert bf16.total - weights - memory.ALLOWANCE == 50_096_385 * 4 + 2 * 32 * 4096 * 2048 * 2


def test_pairs_that_fit():
    need = Need("train", fixed=10 * GIB, each=GIB, batch=20)
    assert need.total == 30 * GIB
    assert [need.pairs(size * GIB) for size in (5, 10, 13, 30, 99)] == [0, 0, 3, 20, 20]
    assert Need("answer", fixed=GIB).pairs(GIB) == 0


# ---- the table ---------------------------------------------------------------------------


def fits(size: int) -> list[str]:
    """Whether each of the paper's runs fits into a GPU of so many GiB."""
    return [row.fits for row in doctor.paper_rows(size * GIB)]


def test_without_a_gpu_nothing_of_the_paper_fits():
    rows = doctor.paper_rows(0)
    assert [row.what.split(", ", 1)[1] for row in rows] == [
        "train, bf16", "answer, LM in bf16", "answer, LM in 8 bits", "answer, LM in 4 bits",
    ]  # fmt: skip
    assert {row[2:4] for row in rows} == {("no CUDA GPU", "no")}


def test_a_gpu_runs_what_fits_into_it():
    assert fits(139) == ["yes"] * 4
    train, *answers = fits(48)
    need = memory.paper_needs()[0]
    pairs = (48 * GIB - need.fixed) // need.each
    assert train == f"{pairs} pairs at a time" and 100 < pairs < 200
    assert answers == ["yes"] * 3
    assert fits(15) == ["no", "no", "yes", "yes"]
    assert fits(8) == ["no"] * 4


def test_the_table_says_what_runs_and_how_long():
    told = doctor.table()
    (mini,) = re.findall(r"^mini +([\d.]+) +RAM ([\d.]+) GiB +yes +(.*)$", told, re.MULTILINE)
    assert 0.3 < float(mini[0]) < float(mini[1])
    assert re.fullmatch(
        r"\d+ min for Table 1: [\d,]+ pictures of \d\.\d\d s, measured now", mini[2]
    )
    assert len(re.findall("^paper, ", told, re.MULTILINE)) == 4
    assert max(map(len, told.splitlines())) < 150


def test_the_papers_weights_are_looked_for_in_the_cache(tmp_path, monkeypatch, capsys):
    import huggingface_hub

    snapshot = tmp_path / "snapshot"
    (snapshot / "unet").mkdir(parents=True)
    (snapshot / "model_index.json").touch()
    (snapshot / "unet" / "x.safetensors").touch()

    def look(repo, name, revision):
        return (
            str(snapshot / name) if (repo, name) == (PAPER.diffusion, "model_index.json") else None
        )

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    monkeypatch.setattr(doctor, "table", lambda: "")
    assert cli.main(["doctor", "--profile", "paper"]) == 0
    told = capsys.readouterr().out
    assert "facebook/opt-6.7b is not here; run `gill-lite fetch opt`" in told
    assert f"{PAPER.diffusion} is in {snapshot}" in told and "fetch sd" not in told


def test_the_documented_needs_are_the_computed_ones():
    text = (Path(memory.__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| ((?:train|answer),[^|]*) \| ([\d.]+) GiB \|", text, re.MULTILINE))
    needs = memory.paper_needs()
    assert [float(size) for size in told.values()] == [round(n.total / GIB, 1) for n in needs]
    train = needs[0]
    assert f"{train.fixed / GIB:.1f} GiB once, {train.each / GIB:.2f} GiB a pair" in text
    assert f"OPT-6.7B alone {memory.weight_bytes(memory.paper_models()['lm']) / GIB:.1f}" in text
    assert f"of {memory.ALLOWANCE / GIB:.0f} GiB for CUDA" in text
    assert all(revision[:8] in text for revision in REVISIONS.values())


def test_the_papers_tables_are_estimated_from_measures(tmp_path):
    path = tmp_path / "paper_scale.json"
    assert doctor.paper_hours(path) == [
        "not measured; `python -m benchmarks.paper_scale --measure draw` does it on a GPU"
    ]
    rows = [{"unit": "images/s", "median": speed} for speed in (1.0, 2.5)]
    rows.append({"unit": "of 255", "median": 3.0})
    path.write_text(json.dumps({"draw": {"H200": {"rows": rows, "about": {}}}}))
    assert doctor.paper_hours(path) == [
        "1 on H200: all 4,990 stories in 2.8 hours, 5 pictures each, 2.5/s",
        "2 on H200: all 2,064 dialogues in 1.4 hours, 6 pictures each, 2.5/s",
    ]
