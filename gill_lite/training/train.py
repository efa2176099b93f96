"""Training the joints: one loop on Accelerate, the backbones frozen.

Two LM passes a step, captions padded to the longest of the batch, the generator's text
embeddings computed on the fly. Whatever a step does follows from (seed, step) and the weights
before it: data order, joining and learning rate need no state, so a run that was killed and
resumed ends bit-identical on a CPU. Started by `accelerate launch`, the processes share each
batch; see step.py. Paper: Sec. 3 and appendix; schedule: official code.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm

from gill_lite.errors import GillError
from gill_lite.files import only_one, sha256
from gill_lite.model import tokens
from gill_lite.model.backbones import fingerprint
from gill_lite.model.checkpoint import (
    WEIGHTS,
    put_joints,
    read_joints,
    refuse_other_backbones,
    save_joints,
)
from gill_lite.model.gill import Batch, Gill, build_gill
from gill_lite.training import processes
from gill_lite.training.data import Examples, Loading, Order
from gill_lite.training.state import Log, TrainState
from gill_lite.training.step import Stepper, joins

LOG, TENSORBOARD = "log.jsonl", "tensorboard"


@torch.no_grad()
def prompt_targets(pipeline, captions: list[str]) -> Tensor:
    """What the generator's own text encoder makes of the captions (B, L, E)."""
    return pipeline.encode_prompt(captions, pipeline.text_encoder.device, 1, False)[0].float()


def make_batch(
    gill: Gill, backbones, examples: Examples, max_tokens: int, joined=(False, False)
) -> Batch:
    """Examples as the model's batch; `joined` as `joins` gives it.

    Images and targets lie on the model's device, the rows on the host; see gill.py.
    """
    config = gill.config
    captions = tokens.encode_captions(
        backbones.tokenizer, examples.captions, config.img_token_ids, max_tokens
    )
    targets = prompt_targets(backbones.pipeline, examples.captions)  # (B, L, E)
    return Batch.of(config, gill.here(examples.images), captions, gill.here(targets), *joined)


def coming(stepper: Stepper, backbones, loader, seed: int, start: int) -> Iterator[list[Batch]]:
    """The micro-batches of each step from `start` on, for the examples of `loader`.

    The frozen encoders see them here, on a GPU beside the step that is under way.
    """
    gill, profile = stepper.gill, stepper.profile
    for step, examples in enumerate(loader, start):
        joined = joins(seed, step, profile.join_probability)
        with processes.beside(gill.logit_scale.device):
            batches = [
                make_batch(gill, backbones, examples.rows(own), profile.max_caption_tokens, joined)
                for own in stepper.part.micro_batches
            ]
            batches = [stepper.seen(batch) for batch in batches]
        yield batches


def train(
    profile,
    backbones,
    dataset,
    output_dir: str | Path,
    seed: int = 0,
    *,
    steps: int | None = None,
    mapper: str = "gill",
    resume: bool = True,
    image_features: Tensor | None = None,
    mixed_precision: str = "no",
    gradient_accumulation_steps: int = 1,
    save_every: int = 200,
    keep: int = 2,
    log_every: int = 10,
    tensorboard: bool = False,
    num_workers: int = 0,
    provenance: dict | None = None,
    validation=None,
    joints: str | Path | None = None,
) -> Gill:
    """Train the joints on (image, caption) pairs; see `Loading` for what `dataset` gives.

    Writes checkpoints, `log.jsonl` and at the end the joints to `output_dir`. With `resume` it
    goes on from the last checkpoint there, and raises GillError if that one was made by other
    settings. A loss that is not finite raises GillError with the step and the batch's ids.

    Processes of one launch share each batch of `profile.batch_size` pairs, in
    `gradient_accumulation_steps` micro-batches each; both change only the rounding of what is
    computed. `joints`: a folder of joints of the same sizes to begin with, in place of fresh ones;
    what is said there of how they were made is kept. `validation`: a `validation.Validation`,
    which the main process calls behind each step. Returns the trained Gill, in evaluation mode.
    """
    steps = profile.steps if steps is None else steps
    if steps < 1:
        raise GillError(f"steps must be at least 1, not {steps}")
    gill, begun = _begin(profile, backbones, mapper, seed, joints)
    group = PartialState(cpu=gill.logit_scale.device.type == "cpu")
    part = processes.split_batch(
        profile, group.process_index, group.num_processes, gradient_accumulation_steps
    )
    stepper = Stepper(profile, gill, part, mixed_precision)
    settings = {
        **{"seed": seed, "mapper": mapper, "mixed_precision": mixed_precision},
        **{"pairs": len(dataset), "pixels": image_features is None},
        **_recipe(profile, backbones, dataset, begun),
    }
    with _hold(output_dir, group):
        state = TrainState(Path(output_dir), gill, stepper.optimizer, settings, keep)
        start = _start(state, steps, resume, group)
        order = Order(len(dataset), profile.batch_size, seed, start, steps, part.own)
        loading = Loading(dataset, backbones.image_processor, image_features)
        records = Records(state, start, steps, save_every, log_every, tensorboard, group)
        validation = validation if group.is_main_process else None
        if validation:
            validation.begin(gill, state.directory, start)
        made = coming(stepper, backbones, loading.batches(order, num_workers), seed, start)
        batches = next(made, [])
        for step in records.bar(range(start, steps), f"train {mapper} {seed}"):
            stepper.start(step, batches)
            batches = next(made, [])  # while a GPU is busy with this step
            row = stepper.finish()
            if not all(np.isfinite(value) for value in row.values()):
                raise GillError(_not_finite(step, order.batch(step), row))
            records.after(step, row)
            if validation:
                validation(gill, state.directory, step + 1)
        about = {"steps": steps, "settings": settings, "torch": torch.__version__}
        records.end({**(provenance or {}), **begun, **about})
        group.wait_for_everyone()
    return gill.eval()


class Records:
    """What a run writes: log, checkpoints, the joints. Only the main process writes."""

    def __init__(self, state, start, steps, save_every, log_every, tensorboard: bool, group):
        self.state, self.start, self.steps = state, start, steps
        self.save_every, self.log_every = save_every, log_every
        self.main, self.began = group.is_main_process, time.monotonic()
        folder = state.directory
        if self.main:
            events = folder / TENSORBOARD if tensorboard else None
            self.log = Log(folder / LOG, start, events)

    def bar(self, numbers, title: str):
        """The steps' numbers behind a progress bar."""
        kind = {"initial": self.start, "total": self.steps, "unit": "step"}
        self.progress = tqdm(numbers, desc=title, disable=not self.main, **kind)
        return self.progress

    def after(self, step: int, row: dict[str, float]) -> None:
        """Log the step and save a checkpoint if it is time to."""
        last = step + 1 == self.steps
        if self.main and (last or step % self.log_every == 0):
            self.progress.set_postfix(loss=f"{row['loss']:.3f}")
            seconds = round(time.monotonic() - self.began, 2)
            self.log.add({"step": step, **row, "seconds": seconds})
        if self.main and (last or (step + 1) % self.save_every == 0):
            self.state.save(step + 1)

    def end(self, provenance: dict) -> None:
        """Write the joints."""
        if self.main:
            self.log.close()
            save_joints(self.state.gill, self.state.directory, provenance)


def _begin(profile, backbones, mapper: str, seed: int, joints) -> tuple[Gill, dict]:
    """A Gill, fresh or with the joints of that folder, and what to keep of their history."""
    gill = build_gill(profile, backbones, mapper, seed)
    if joints is None:
        return gill, {}
    saved, weights = read_joints(joints), Path(joints) / WEIGHTS
    refuse_other_backbones(saved.provenance, backbones, joints)
    put_joints(gill, saved.joints, weights)
    return gill, {"joints_sha256": sha256(weights), "earlier": saved.provenance}


def _hold(output_dir, group):
    """Two runs in one folder would spoil it; the main process alone writes there."""
    return only_one(output_dir) if group.is_main_process else nullcontext()


# Settings that do not change what a step computes.
_NO_MATTER = ("steps", "guidance_scale", "num_inference_steps", "seeds", "image_size",
              "answer_ends")  # fmt: skip


def _recipe(profile, backbones, dataset, begun: dict) -> dict:
    """What of the profile, the backbones and the data a checkpoint depends on."""
    recipe = {name: value for name, value in asdict(profile).items() if name not in _NO_MATTER}
    if hasattr(dataset, "about"):
        recipe["data"] = dataset.about()["digest"]
    if begun:
        recipe["joints"] = begun["joints_sha256"]
    return {**recipe, "backbones": fingerprint(backbones)}


def _start(state: TrainState, steps: int, resume: bool, group) -> int:
    """Put the last checkpoint back; returns the steps behind it, the same for all processes."""
    start = state.restore(steps) if resume else 0
    if not processes.agree(start, state.gill.logit_scale.device):
        raise GillError(
            f"the processes do not see the same checkpoints in {state.directory}; "
            "choose a folder that all machines share"
        )
    if group.is_main_process and not resume:
        state.clear()
    elif group.is_main_process:
        state.tidy()
    return start


def _not_finite(step: int, batch: list[tuple[int, int]], row: dict[str, float]) -> str:
    bad = ", ".join(name for name, value in row.items() if not np.isfinite(value))
    return (
        f"training stopped at step {step}: {bad} not finite for the pairs "
        f"{[i for _, i in batch]}; look at these pairs, or begin anew with --no-resume and "
        "a lower --learning-rate; the last checkpoint stays as it is"
    )
