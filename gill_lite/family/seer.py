"""What systems around a language model share: interleaved prompts in, the next words out.

A picture becomes K embeddings among those of the words; a system says how, in `visual_tokens`.
Axes: B pictures, K visual tokens, T positions, D LM width, Dv CLIP's width, S patches.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gill_lite.answering.decode import pad_left
from gill_lite.family.system import Member
from gill_lite.model.gill import pooled_output
from gill_lite.model.tokens import IGNORE, bos_ids, decode_text, encode_text
from gill_lite.profiles import MINI

K = MINI.num_visual_tokens
JOIN = MINI.join_probability  # of a step's pairs to be read two by two, as in GILL's training
MAX_NEW_TOKENS = 24
TOGETHER = 16  # rows that the language model reads at once while it learns


NOTHING = -1  # the number of the latest picture where none was shown yet


class Said(str):
    """A text that a system is to say: the loss counts it."""


def words(prompt: Sequence) -> int:
    """How many words a prompt has."""
    return sum(len(item.split()) for item in prompt if isinstance(item, str))


class Rows(NamedTuple):
    """Prompts as the language model reads them, padded on the left."""

    inputs_embeds: Tensor  # (rows, T, D)
    attention_mask: Tensor  # (rows, T)
    labels: Tensor  # (rows, T), IGNORE where nothing is to be said


class Seer(Member):
    """Frozen language model and CLIP, and a way from the one's pictures to the other's words.

    A prompt is a list of texts and pictures; a picture is its pixel_values (3, H, W).
    """

    def __init__(self, backbones):
        super().__init__()
        self.lm, self.vision = backbones.lm, backbones.vision.vision_model
        self.tokenizer = backbones.tokenizer
        self.shown: Tensor | None = None  # (rows, T) number of the latest picture in what was read
        self.width = self.lm.get_input_embeddings().embedding_dim  # D
        self.vision_width = self.vision.config.hidden_size  # Dv

    def visual_tokens(self, pixel_values: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) as input embeddings of the language model (B, K, D)."""
        raise NotImplementedError

    def pooled(self, pixel_values: Tensor) -> Tensor:
        """CLIP's pooled output (B, Dv)."""
        return pooled_output(self.vision, pixel_values)

    @torch.no_grad()
    def patches(self, pixel_values: Tensor, layer: int = -1) -> Tensor:
        """CLIP's states (B, 1 + S, Dv) behind one of its layers; the first is the class token's."""
        out = self.vision(pixel_values=pixel_values.to(self.device), output_hidden_states=True)
        return out.hidden_states[layer]

    # Reading --------------------------------------------------------------------------

    def pieces(self, prompt: Sequence) -> Iterator[tuple[list[int], list[int]] | Tensor]:
        """A text's ids and labels, the first text behind the beginning of sequence; pictures."""
        bos = True
        for place, item in enumerate(prompt):
            if not isinstance(item, str):
                yield item
                continue
            ids = encode_text(self.tokenizer, item, bos)
            if isinstance(item, Said) and place == len(prompt) - 1:
                ids.append(self.tokenizer.eos_token_id)
            labels = ids if isinstance(item, Said) else [IGNORE] * len(ids)
            yield ids, [IGNORE] * bos + labels[bos:]
            bos = False
        if bos:
            yield bos_ids(self.tokenizer), [IGNORE]

    def read(self, prompts: Sequence) -> Rows:
        """The prompts as a batch, padded on the left."""
        pictures = [item for prompt in prompts for item in prompt if isinstance(item, Tensor)]
        visual = enumerate(self.visual_tokens(torch.stack(pictures)) if pictures else ())
        rows = [self._in_sequence(prompt, visual) for prompt in prompts]
        embeds, mask = pad_left([row[0] for row in rows])
        self.shown = torch.full_like(mask, NOTHING)
        labels = torch.full_like(mask, IGNORE)
        for i, (_, label, shown) in enumerate(rows):
            labels[i, -len(label) :] = torch.tensor(label)
            self.shown[i, -len(shown) :] = torch.tensor(shown)
        return Rows(embeds, mask, labels)

    def _in_sequence(self, prompt, visual) -> tuple[Tensor, list[int], list[int]]:
        """Embeddings (T, D), labels and the number of the latest picture at each position."""
        table = self.lm.get_input_embeddings()
        embeds, labels, shown, latest = [], [], [], NOTHING
        for piece in self.pieces(prompt):
            if isinstance(piece, Tensor):
                latest, tokens = next(visual)  # (K, D)
                embeds.append(tokens)
                labels += [IGNORE] * len(tokens)
            else:
                embeds.append(table(torch.tensor(piece[0], device=self.device)))
                labels += piece[1]
            shown += [latest] * (len(labels) - len(shown))
        return torch.cat(embeds), labels, shown

    # Learning -------------------------------------------------------------------------

    def said_loss(self, rows: Sequence) -> Tensor:
        """Cross-entropy of the next word over all that is `Said` in the rows.

        Rows of like length are read together, which spares most of the padding.
        """
        ordered, losses, count = sorted(rows, key=words), [], 0
        for start in range(0, len(rows), TOGETHER):
            embeds, mask, labels = self.read(ordered[start : start + TOGETHER])
            logits = self.lm(inputs_embeds=embeds, attention_mask=mask).logits[:, :-1].float()
            aims = labels[:, 1:].to(logits.device)
            losses.append(cross_entropy(
                logits.transpose(1, 2), aims, ignore_index=IGNORE, reduction="sum"
            ))  # fmt: skip
            count += int((aims != IGNORE).sum())
        return torch.stack(losses).sum() / count

    def captioned(self, step: int, generator: torch.Generator) -> list[list]:
        """Training rows: a picture and its caption, or two of them one behind the other."""
        index = self.pairs.draw(generator)
        pictures, texts = self.pairs.pixel_values(index), self.pairs.captions(index, step)
        rows = [[picture, Said(text)] for picture, text in zip(pictures, texts, strict=True)]
        if torch.rand((), generator=generator) < JOIN:
            rows = [first + second for first, second in zip(rows[::2], rows[1::2], strict=True)]
        return rows

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """The caption's next word, behind the picture."""
        return self.said_loss(self.captioned(step, generator))

    # Answering ------------------------------------------------------------------------

    @torch.no_grad()
    def respond(self, prompts: Sequence) -> list[str]:
        """What is said behind each prompt, up to the end of the sentence."""
        embeds, mask, _ = self.read(prompts)
        ends = [self.tokenizer.convert_tokens_to_ids(word) for word in MINI.answer_ends]
        ids = self.lm.generate(
            inputs_embeds=embeds, attention_mask=mask, max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False, eos_token_id=[self.tokenizer.eos_token_id, *ends],
            pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        return [decode_text(self.tokenizer, row.tolist(), ()) for row in ids]

    def caption(self, pixel_values: Tensor, prompt: str = "") -> list[str]:
        """What is said of each of the pictures (B, 3, H, W), behind a text if one is given."""
        return self.respond(
            [[picture, prompt] if prompt else [picture] for picture in pixel_values]
        )
