"""What every pretraining stage shares: word tokenizers, one resumable loop."""

import io
import json
import math
import time
from pathlib import Path

import torch
from tqdm.auto import tqdm

from gill_lite.errors import GillError
from gill_lite.files import append_text, cut_log, refuse_other_settings, tidy, write_bytes
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
    average=None, floor=0.02, measure=None, measure_every=0, enough=None, first=0, until=None,
) -> int:  # fmt: skip
    """Train `module` for `steps`, or the part `first` to `until` of their schedule.

    A run that was killed goes on where it last saved.

    `loss_fn(step, generator)` returns a scalar; its randomness comes from `generator`, seeded
    by (seed, name, step), so that a resumed run sees what an uninterrupted one would.
    `measure()` gives held-out numbers for the log; training stops at its schedule's end, or
    at the first of them that `enough(numbers)` accepts. Returns the steps made; `module` is
    left in evaluation mode. Raises GillError when a loss or its gradient is not finite, and when
    the checkpoint there is of other settings.
    """
    log = Path(work_dir) / f"{name}.jsonl"
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    averaged = Averaged(module, average) if average else None
    last = steps if until is None else until
    settings = {"seed": seed, "steps": steps, "lr": lr, "warmup": warmup, "average": average,
                "weight_decay": weight_decay, "floor": floor}  # fmt: skip
    kept = Checkpoint(Path(work_dir) / f"{name}.pt", settings, module, optimizer, averaged)
    made, done = kept.restore()
    start = last if done else max(first, made)
    cut_log(log, start)
    saved, bar = time.monotonic(), tqdm(range(start, last), initial=start, total=last, desc=name)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = lr * one_cycle(step, steps, warmup, floor)
        loss = _step(loss_fn, step, (seed, name, step), parameters, optimizer, kept.path)
        if averaged:
            averaged.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss:.4f}")
            _append(log, {"step": step, "loss": loss, "time": time.time()})
        made, done = step + 1, step == last - 1
        if measure and made % measure_every == 0:
            numbers = measure()
            _append(log, {"step": step, **numbers})
            done = done or bool(enough and enough(numbers))
        if done or time.monotonic() - saved > SAVE_EVERY:
            kept.save(made, done)
            saved = time.monotonic()
        if done:
            break
    if averaged:
        averaged.ema.copy_to(module.parameters())
    module.eval()
    return made


def _step(loss_fn, step: int, key: tuple, parameters, optimizer, path: Path) -> float:
    """One step of `optimizer`; returns the loss. Raises GillError, the weights as they were."""
    loss = loss_fn(step, torch.Generator().manual_seed(hash_seed(*key)))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise GillError(
            f"stage {path.stem}: the loss is {loss.item()} at step {step}, its gradient "
            f"{norm.item()} long; lower the rate; {path} stays as it was last saved"
        )
    optimizer.step()
    return loss.item()


class Checkpoint:
    """What a stage keeps on disk to go on exactly where it was, one file, written whole."""

    def __init__(self, path: Path, settings: dict, module, optimizer, averaged):
        self.path, self.settings = path, settings
        self.parts = {"module": module, "optimizer": optimizer}
        if averaged:
            self.parts["ema"] = averaged.ema

    def save(self, step: int, done: bool) -> None:
        """Write the state after `step` steps; `done`: there will be no more."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        write_tensors(self.path, {**state, "step": step, "done": done, "settings": self.settings})

    def restore(self) -> tuple[int, bool]:
        """Put the state back; the steps behind it, and whether training is done.

        Raises GillError where it is damaged or was made by other settings.
        """
        tidy(self.path.parent, self.path.name)
        if not self.path.exists():
            return 0, False
        state = read_tensors(self.path)
        if isinstance(state, dict) and "settings" in state:  # older ones do not tell
            mend = "choose another --work-dir, or remove it to begin anew"
            refuse_other_settings(self.path, state["settings"], self.settings, mend)
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            return state["step"], state["done"]
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
