"""What every pretraining stage shares: word tokenizers, one resumable loop."""

import io
import json
import math
import time
from pathlib import Path

import torch
from tqdm.auto import tqdm

from gill_lite.errors import GillError
from gill_lite.files import (
    append_text,
    cut_log,
    read_rows,
    refuse_other_settings,
    tidy,
    write_bytes,
)
from gill_lite.world import telling
from gill_lite.world.pictures import hash_seed

SAVE_EVERY = 90.0  # seconds between checkpoints


def word_tokenizer(words, specials: dict[str, str], max_length: int, template: str):
    """A lower-casing tokenizer, one word one token, in Hugging Face's fast format.

    `specials` maps roles (pad_token, …) to tokens; ids follow their order. `template` is the
    TemplateProcessing form of a single text, such as "</s> $A".
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = list(dict.fromkeys(specials.values()))
    vocabulary = {word: i for i, word in enumerate([*tokens, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=specials["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    used = [(token, vocabulary[token]) for token in tokens if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        **{role: token for role, token in specials.items() if role.endswith("_token")},
    )


def one_cycle(step: int, steps: int, warmup: int, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, cosine to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


class Averaged:
    """Exponential moving average of a module's parameters, by diffusers' own helper."""

    def __init__(self, module, decay: float):
        from diffusers.training_utils import EMAModel

        self.module = module
        self.ema = EMAModel(module.parameters(), decay=decay, use_ema_warmup=True, power=0.8)

    def step(self):
        self.ema.step(self.module.parameters())


def fit(
    name, module, loss_fn, work_dir, *, steps, lr, warmup=100, weight_decay=0.01, seed=0,
    average=None, floor=0.02, device="cpu", bfloat16=False, measure=None, measure_every=0,
) -> int:  # fmt: skip
    """Train `module` on `device` for `steps`; a run that was killed goes on where it last saved.

    `loss_fn(step, generator)` returns a scalar; its randomness comes from `generator`, on the
    CPU and seeded by (seed, name, step), so that a resumed run sees what an uninterrupted one
    would. bfloat16: matrix products are computed in it, by autocast; weights stay float32.
    `measure()` gives held-out numbers for the log, of the module on the CPU. Returns `steps`;
    `module` is left there in evaluation mode. Raises GillError when a loss or its gradient is not
    finite, and when the checkpoint there is of other settings.
    """
    log = Path(work_dir) / f"{name}.jsonl"
    parameters = [p for p in module.to(device).parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    averaged = Averaged(module, average) if average else None
    settings = {"seed": seed, "steps": steps, "lr": lr, "warmup": warmup, "average": average,
                "weight_decay": weight_decay, "floor": floor, "bfloat16": bfloat16,
                "world": telling.WORLD}  # fmt: skip
    kept = Checkpoint(Path(work_dir) / f"{name}.pt", settings, module, optimizer, averaged)
    start, seconds = kept.restore()
    cut_log(log, start)
    began = saved = time.monotonic()
    precision = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16)
    bar = tqdm(range(start, steps), initial=start, total=steps, desc=name)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = lr * one_cycle(step, steps, warmup, floor)
        with precision:
            loss = loss_fn(step, torch.Generator().manual_seed(hash_seed(seed, name, step)))
        _descend(loss, step, parameters, optimizer, kept.path)
        if averaged:
            averaged.step()
        now, made = seconds + time.monotonic() - began, step + 1
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}")
            _append(log, {"step": step, "loss": loss.item(), "seconds": round(now, 1)})
        if measure and made % measure_every == 0:
            row = {"step": step, "seconds": round(now, 1)}
            _append(log, row | measure_on_cpu(module, measure, device))
        if made == steps or time.monotonic() - saved > SAVE_EVERY:
            kept.save(made, now)
            saved = time.monotonic()
    if averaged:
        averaged.ema.copy_to(module.parameters())
    module.to("cpu").eval()
    return steps


def measure_on_cpu(module, measure, device) -> dict:
    """`measure()` with the module on the CPU for as long as it takes."""
    module.to("cpu")
    numbers = measure()
    module.to(device)
    return numbers


def _descend(loss, step: int, parameters, optimizer, path: Path) -> None:
    """One step of `optimizer`. Raises GillError, the weights as they were."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise GillError(
            f"stage {path.stem}: the loss is {loss.item()} at step {step}, its gradient "
            f"{norm.item()} long; {path} stays as it was last saved, and the same command goes on "
            "from there; if it comes here again, begin anew with another --seed and --work-dir"
        )
    optimizer.step()


def curve(work_dir, stage: str, points: int = 25) -> tuple[list, float]:
    """(fit, step, loss) from the logs of the stage's fits, thinned, and their seconds together."""
    rows, seconds = [], 0.0
    for log in sorted(Path(work_dir).glob(f"{stage}*.jsonl")):
        told = [row for row in read_rows(log, "training log", "step") if "loss" in row]
        seconds += told[-1]["seconds"]
        thinned = told[:: max(1, len(told) // points)] + told[-1:]
        rows += [(log.stem, row["step"], round(row["loss"], 4)) for row in thinned]
    return rows, seconds


class Checkpoint:
    """What a stage keeps on disk to go on exactly where it was, one file, written whole."""

    def __init__(self, path: Path, settings: dict, module, optimizer, averaged):
        self.path, self.settings = path, settings
        self.parts = {"module": module, "optimizer": optimizer}
        if averaged:
            self.parts["ema"] = averaged.ema

    def save(self, step: int, seconds: float) -> None:
        """Write the state after `step` steps, which took `seconds`."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        about = {"step": step, "seconds": seconds, "settings": self.settings}
        write_tensors(self.path, state | about)

    def restore(self) -> tuple[int, float]:
        """Put the state back; the steps behind it, and the seconds they took.

        Raises GillError where it is damaged or was made by other settings.
        """
        tidy(self.path.parent, self.path.name)
        if not self.path.exists():
            return 0, 0.0
        state = read_tensors(self.path)
        if "settings" in state:
            mend = "choose another --work-dir, or remove it to begin anew"
            refuse_other_settings(self.path, state["settings"], self.settings, mend)
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            if "ema" in self.parts:
                self.parts["ema"].to(next(self.parts["module"].parameters()).device)
            return state["step"], state["seconds"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(":")
            raise GillError(
                f"{self.path} is no checkpoint of this stage ({reason}); remove it to begin anew"
            ) from error


def write_tensors(path, value) -> None:
    """torch.save, atomically."""
    content = io.BytesIO()
    torch.save(value, content)
    write_bytes(path, content.getvalue())


def read_tensors(path):
    """What `write_tensors` wrote; code in it is never run. Raises GillError if damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        raise GillError(
            f"{path} cannot be read: it is damaged, or holds Python objects beside tensors, which "
            "are refused and were not run; remove it, and it is made anew"
        ) from error


def _append(path, row):
    append_text(path, json.dumps(row) + "\n")
