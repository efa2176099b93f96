"""A step waits for no GPU: it runs on torch's meta device, whose tensors have nothing to read."""

from contextlib import nullcontext

import pytest
import torch

from gill_lite.model import gill as model
from gill_lite.model.gill import build_gill, count_groups
from gill_lite.training import processes, train
from gill_lite.training.data import Examples
from gill_lite.training.step import Stepper
from tests.helpers import tiny_backbones

CAPTIONS = ["a small red ball", "a ball", "a big blue box at the beach by night", "it turned"]


def stepper_on(device: str, micro_batches: int = 1) -> tuple[Stepper, object]:
    """A stepper around tiny backbones on the device, and those."""
    backbones, profile = tiny_backbones.backbones(), tiny_backbones.profile()
    gill = build_gill(profile, backbones).to(device)
    part = processes.split_batch(profile, micro_batches=micro_batches)
    return Stepper(profile, gill, part, "bf16"), backbones


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_reads_nothing_from_the_device(micro_batches, monkeypatch):
    stepper, backbones = stepper_on("meta", micro_batches)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    monkeypatch.setattr(model, "TOKENS_TOGETHER", 16)  # several groups
    pixels = torch.randn(4, 3, 16, 16)
    loader = [Examples([0, 1, 2, 3], pixels, CAPTIONS)] * 3
    for step, batches in enumerate(train.coming(stepper, backbones, loader, 0, 0)):
        assert all(batch.images.is_meta and batch.images.dim() == 2 for batch in batches)
        assert not any(batch.img_rows.labels.is_meta for batch in batches)
        stepper.start(step, batches)
    with pytest.raises((NotImplementedError, RuntimeError)):  # there would be the wait
        stepper.finish()


def test_groups_are_of_rows_on_a_cpu_and_of_positions_on_a_gpu():
    lengths, long = torch.full((200,), 32), torch.full((200,), 200)
    assert count_groups(lengths, torch.device("cpu")) == 200 // model.ROWS_TOGETHER
    assert count_groups(lengths, torch.device("cuda")) == 6400 // model.TOKENS_TOGETHER
    assert count_groups(long, torch.device("cuda")) == 40_000 // model.TOKENS_TOGETHER
    assert count_groups(lengths[:3], torch.device("cuda")) == 1


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_gradient_is_the_same_whatever_the_groups(groups, monkeypatch):
    found = []
    for count in (1, groups):
        monkeypatch.setattr(model, "count_groups", lambda *_, count=count: count)
        stepper, backbones = stepper_on("cpu")
        stepper.mixed_precision = "no"
        loader = [Examples([0, 1, 2, 3], torch.ones(4, 3, 16, 16), CAPTIONS)]
        [batches] = train.coming(stepper, backbones, loader, 0, 0)
        losses = stepper.backward(batches)
        found.append([*losses, *(p.grad for p in stepper.parameters)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_next_batch_is_made_while_a_step_is_under_way(monkeypatch, tmp_path):
    told, backbones = [], tiny_backbones.backbones()
    for where, name in ((Stepper, "start"), (Stepper, "finish"), (train, "make_batch")):
        inner = getattr(where, name)
        monkeypatch.setattr(
            where, name, lambda *a, _n=name, _f=inner, **k: told.append(_n) or _f(*a, **k)
        )
    pairs = [(i, caption) for i, caption in enumerate(CAPTIONS * 2)]
    features = {"image_features": torch.randn(8, 8), "steps": 2}
    train.train(tiny_backbones.profile(), backbones, pairs, tmp_path, **features)
    assert told == ["make_batch", "start", "make_batch", "finish", "start", "finish"]
