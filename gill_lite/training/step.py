"""One training step, the same for any number of processes and micro-batches.

Every loss is a mean over the whole batch. A process computes a share of it: the mean over its
own rows, times the part of the whole that these are. Shares add up to the loss of one process
that holds the whole batch, and their gradients to its gradient. InfoNCE compares all pairs:
embeddings are gathered from all processes with their gradient, and from all micro-batches by
computing them twice (Gao et al. 2021, https://arxiv.org/abs/2101.06983).

Axes: B rows of a micro-batch, P retrieval width.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from gill_lite.errors import GillError
from gill_lite.model import losses
from gill_lite.model.gill import Batch
from gill_lite.model.losses import Losses
from gill_lite.model.tokens import IGNORE
from gill_lite.training import processes

PRECISIONS = ("no", "bf16")


def learning_rate(profile, step: int) -> float:
    """Linear warm-up from zero, then a step decay counted from the end of the warm-up."""
    if step < profile.warmup_steps:
        return profile.learning_rate * step / profile.warmup_steps
    decays = (step - profile.warmup_steps) // profile.lr_decay_every
    return profile.learning_rate * profile.lr_decay**decays


def joins(seed: int, step: int, probability: float) -> tuple[bool, bool]:
    """Whether this step joins captions in pairs: in the captioning pass, in the [IMG] pass."""
    draws = np.random.default_rng([seed, 1, step]).random(2)
    return bool(draws[0] < probability), bool(draws[1] < probability)


class Stepper:
    """Makes steps of AdamW on the joints of `gill`; `part` is what this process has to do."""

    def __init__(self, profile, gill, part: processes.Part, mixed_precision: str = "no"):
        if mixed_precision not in PRECISIONS:
            raise GillError(f"mixed_precision must be no or bf16, not {mixed_precision}")
        self.profile, self.gill, self.part = profile, gill, part
        self.mixed_precision = mixed_precision
        self.under_way: tuple[Losses, Tensor, float]  # what `start` computes
        self.parameters = list(gill.trainable_parameters().values())
        self.check_precision()
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            profile.learning_rate,
            profile.betas,
            weight_decay=profile.weight_decay,
        )

    def __call__(self, step: int, batches: list[Batch]) -> dict[str, float]:
        """One step on this process's micro-batches; returns the whole batch's numbers.

        Where the loss or its gradient is not finite the weights stay as they are.
        """
        self.start(step, batches)
        return self.finish()

    def start(self, step: int, batches: list[Batch]) -> None:
        """The step up to its gradient. A GPU is still at it when this returns."""
        rate = learning_rate(self.profile, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.gill.train()
        self.optimizer.zero_grad()
        whole = self.backward(batches)
        processes.sum_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.profile.grad_clip)
        self.under_way = whole, norm, rate

    def finish(self) -> dict[str, float]:
        """Wait for what `start` began and move the joints; returns the step's numbers."""
        whole, norm, rate = self.under_way
        *parts, norm = torch.stack([*whole, norm]).tolist()  # the one wait of a step
        row = dict(zip(whole._fields, parts))
        row = {"loss": row.pop("total"), **row, "gradient_norm": norm}
        if np.isfinite(row["gradient_norm"]) and np.isfinite(row["loss"]):
            self.optimizer.step()
            self.gill.rescale_img_embeddings()
        temperature = np.exp(-self.gill.logit_scale.item())
        return {**row, "learning_rate": rate, "temperature": temperature}

    def backward(self, batches: list[Batch]) -> Losses:
        """Add the gradient of this process's share; returns the losses of the whole batch."""
        weight, counts = self.profile.lm_loss_weight, [label_counts(batch) for batch in batches]
        everywhere = processes.add_up_counts(sum(counts), self.gill.logit_scale.device)
        in_advance, contrasts = None, [self.contrast]
        if len(batches) > 1:
            batches = [self.seen(batch) for batch in batches]
            in_advance, contrasts = self.contrast_in_advance(batches)
        sums = torch.zeros(4, device=self.gill.logit_scale.device)
        for batch, count, contrast in zip(batches, counts, contrasts, strict=True):
            with self.autocast():
                passes = self.gill(batch)
                retrieval = contrast(passes.text, passes.image, passes.logit_scale)
                own = losses.objective(passes, batch.prompt_targets, weight, retrieval)
            said, read, rows = (n / all_n for n, all_n in zip(count.tolist(), everywhere))
            parts = (own.captioning * said, own.img_lm * read, own.retrieval, own.generation * rows)
            Losses.of(*parts, weight).total.backward()
            sums = sums + torch.stack(parts).detach()
        if in_advance is not None:
            sums[2] = in_advance
        captioning, img_lm, retrieval, generation = processes.add_up(sums)
        return Losses.of(captioning, img_lm, retrieval, generation, weight)

    def seen(self, batch: Batch) -> Batch:
        """The batch with CLIP's output in place of its pictures: it sees each of them once."""
        with self.autocast():
            return batch._replace(images=self.gill.pooled(batch.images))

    def contrast(self, text: Tensor, image: Tensor, logit_scale: Tensor) -> Tensor:
        """This process's share of the InfoNCE of all pairs; `text`, `image` are its rows."""
        rows = (self.part.first, self.part.batch_size)
        text, image = (processes.gather_rows(own, *rows) for own in (text, image))  # (all, P)
        with torch.autocast(text.device.type, enabled=False):
            return losses.retrieval_loss(text, image, logit_scale) / self.part.processes

    def contrast_in_advance(self, batches: list[Batch]) -> tuple[Tensor, list]:
        """The InfoNCE share, and for each micro-batch a loss with the gradient it has there.

        Embeddings are computed without gradient first. The loss over all of them gives each
        embedding's slope; later every micro-batch computes its embeddings again, with gradient.
        """
        with torch.no_grad(), self.autocast():
            kept = [self.embeddings(batch) for batch in batches]
        text, image = (torch.cat(rows).requires_grad_() for rows in zip(*kept))
        retrieval = self.contrast(text, image, self.gill.logit_scale)
        retrieval.backward()
        sizes = [len(batch.images) for batch in batches]
        slopes = zip(text.grad.split(sizes), image.grad.split(sizes))
        return retrieval.detach(), [partial(_along, *slope) for slope in slopes]

    def embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What InfoNCE compares: unit vectors of captions and of images, (B, P) each."""
        hidden = self.gill.img_pass(batch.img_rows).hidden
        return self.gill.retrieval_embedding(hidden), self.gill.image_features(batch.images)

    def autocast(self):
        """bfloat16 for matrix products where asked for; the joints themselves stay as they are."""
        on = self.mixed_precision == "bf16"
        return torch.autocast(self.gill.logit_scale.device.type, torch.bfloat16, enabled=on)

    def check_precision(self) -> None:
        """GillError if a joint has fewer than 32 bits: small updates would be lost."""
        for name, parameter in self.gill.trainable_parameters().items():
            if parameter.dtype.itemsize < 4:
                raise GillError(
                    f"the joints must be trained in float32, but {name} is {parameter.dtype}"
                )


def label_counts(batch: Batch) -> Tensor:
    """How much a micro-batch counts in each mean: a tensor of three numbers, on the host.

    Labelled positions of the captioning pass, those of the [IMG] pass, and pairs.
    """
    labels = batch.captioning_rows.labels, batch.img_rows.labels
    counts = [(each[:, 1:] != IGNORE).sum() for each in labels]
    return torch.stack([*counts, counts[0].new_tensor(len(batch.images))])  # (3,)


def _along(text_slope: Tensor, image_slope: Tensor, text: Tensor, image: Tensor, _) -> Tensor:
    return (text * text_slope).sum() + (image * image_slope).sum()
