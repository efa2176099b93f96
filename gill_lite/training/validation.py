"""Held-out pairs, looked at every so many steps: losses, retrieval, captions; the best are kept.

Beside the last joints the folder `best` holds those with the lowest loss on the held-out pairs.
Axes: B pairs of a batch, N held-out pairs, P retrieval width, K visual tokens, D LM width.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from gill_lite.answering import decode
from gill_lite.answering.answers import Sampling
from gill_lite.errors import GillError
from gill_lite.files import append_text, cut_log, read_rows
from gill_lite.model import losses, tokens
from gill_lite.model.checkpoint import save_joints
from gill_lite.training.data import Loading, image_features
from gill_lite.training.step import label_counts
from gill_lite.training.train import make_batch
from gill_lite.world.language import caption
from gill_lite.world.pictures import held_out
from gill_lite.world.scene import rng_for

LOG, BEST = "validation.jsonl", "best"
PAIRS = 200  # held-out pairs at most, the paper's batch
SHOWN = 4  # pictures whose captions are written down
LEAD = "A picture of"  # what is behind a picture whose caption is wanted; nothing in the mini world
RANKS = (1, 5)


class Validation:
    """Looks at held-out pairs every `every` steps.

    dataset: as for training, `dataset[i]` is (image, caption); the first 200 pairs are taken.
    image_features: (N, Dv), where an image is a row number of it. Raises GillError where there
    are fewer than two pairs: nothing could be retrieved.
    """

    def __init__(
        self, profile, backbones, dataset, every: int, image_features: Tensor | None = None
    ):
        if len(dataset) < 2:
            raise GillError(f"validation needs two held-out pairs or more, not {len(dataset)}")
        self.profile, self.backbones, self.every = profile, backbones, every
        self.loading = Loading(dataset, backbones.image_processor, image_features)
        size, count = self.profile.batch_size, min(len(dataset), PAIRS)
        self.parts = [range(i, min(i + size, count)) for i in range(0, count, size)]

    def begin(self, gill, folder: Path, start: int) -> None:
        """Go on at step `start`: rows of steps that come again go, one a kill cost is made."""
        cut_log(folder / LOG, start + 1)
        if start and start not in {row["step"] for row in self.rows(folder)}:
            self(gill, folder, start)

    def __call__(self, gill, folder: Path, step: int) -> None:
        """Behind one of those steps: write a row, and the joints if they are the best so far."""
        if step % self.every:
            return
        row = self.measure(gill)
        if all(row["loss"] < other["loss"] for other in self.rows(folder)):
            save_joints(gill, folder / BEST, {"step": step, "validation": row})
        append_text(folder / LOG, json.dumps({"step": step, **row}) + "\n")

    def rows(self, folder: Path) -> list[dict]:
        """What was measured so far."""
        return read_rows(folder / LOG, "validation log", "step")

    @torch.no_grad()
    def measure(self, gill) -> dict:
        """Losses by name, recall_at_1 and recall_at_5 of pictures by captions, and captions said.

        Captions are not joined. A pair is compared with those of its batch in the InfoNCE, with
        all held-out pairs in the recalls.
        """
        training, _ = gill.training, gill.eval()
        totals, counts, texts, images, said = torch.zeros(4), torch.zeros(3), [], [], []
        for part in self.parts:
            examples = self.loading.collate([self.loading[0, i] for i in part])
            batch = make_batch(gill, self.backbones, examples, self.profile.max_caption_tokens)
            passes, count = gill(batch), label_counts(batch).cpu().float()  # (3,)
            own = losses.objective(passes, batch.prompt_targets, self.profile.lm_loss_weight)
            weights = torch.stack([count[0], count[1], count[2], count[2]])
            totals += weights * torch.stack(own[1:]).cpu().float()
            counts += count
            texts.append(passes.text.float())
            images.append(passes.image.float())
            if not said:
                said = self.captions(gill, batch.images[:SHOWN])
        captioning, img_lm, retrieval, generation = totals / counts[[0, 1, 2, 2]]
        parts = losses.Losses.of(
            captioning, img_lm, retrieval, generation, self.profile.lm_loss_weight
        )
        gill.train(training)
        numbers = {name: float(value) for name, value in parts._asdict().items()}
        recalls = recall(torch.cat(texts), torch.cat(images))
        return {"loss": numbers.pop("total"), **numbers, **recalls, "captions": said}

    def captions(self, gill, images: Tensor) -> list[str]:
        """What the LM says behind each image."""
        tokenizer = self.backbones.tokenizer
        embeds = gill.visual_tokens(images)  # (B, K, D)
        if self.profile.name != "mini":
            ids = torch.tensor(tokens.encode_text(tokenizer, LEAD), device=embeds.device)
            lead = gill.embed(ids).expand(len(images), -1, -1)  # (B, T, D)
            embeds = torch.cat([embeds, lead.to(embeds.dtype)], dim=1)  # (B, K+T, D)
        how = Sampling(max_words=16, max_images=0, stop_ids=(tokenizer.eos_token_id,))
        img_ids = gill.config.img_token_ids
        said = decode.generate(gill, embeds, sampling=how).ids
        return [tokens.decode_text(tokenizer, ids, img_ids) for ids in said]


def recall(texts: Tensor, images: Tensor) -> dict[str, float]:
    """Share of texts (N, P) whose own image (N, P) is among the nearest 1 and 5, unit vectors."""
    scores = texts @ images.T  # (N, N)
    rank = (scores > scores.diagonal()[:, None]).sum(1)  # (N,) images nearer than the own
    return {f"recall_at_{k}": float((rank < k).float().mean()) for k in RANKS}


def held_out_pairs(backbones, count: int = PAIRS) -> tuple[list[tuple[int, str]], Tensor]:
    """Pairs of the mini world that no training sees, and CLIP's output for them (N, Dv)."""
    scenes, pictures = held_out(count, key="validation")
    pairs = [(i, caption(s, rng_for("validation caption", i))) for i, s in enumerate(scenes)]
    arrays = ((picture * 255).byte().numpy() for picture in pictures)
    return pairs, image_features(backbones, arrays)
