"""BLIP: three losses over one text transformer, and a web that it captions and filters itself.

    contrast:  cos(text, picture)             the transformer reads the text alone
    matching:  p(match | text, picture)       it reads both ways and looks at the patches
    next word: p(word | words before, picture)  it reads forward and looks at the patches

Li et al., 2022. The web is noisy: a third of its captions are of other pictures. CapFilt: after
half of the budget the captioner writes a caption of its own for every picture, the matcher drops
what does not fit, and the other half learns from what is left.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from tqdm.auto import tqdm
from transformers import BlipTextConfig, BlipTextLMHeadModel

from gill_lite.errors import GillError
from gill_lite.family.matching import contrast_loss, hard_pairs, match_loss
from gill_lite.family.system import Member, Stage
from gill_lite.files import read_json, write_json
from gill_lite.model.gill import pooled_output
from gill_lite.model.tokens import IGNORE
from gill_lite.world.pictures import training_caption
from gill_lite.world.scene import rng_for

WRONG = 1 / 3  # of the web's captions
LAYERS, P, MAX_NEW_TOKENS = 4, 64, 24
CHUNK = 100  # pictures captioned and filtered together
LEARNS = ("text", "matches", "to_", "logit_scale")


def web_caption(index: int, count: int) -> str:
    """The web's one caption of training picture `index` of `count`: of another one, in a third."""
    rng = rng_for("web", index)
    other = int(rng.integers(count)) if rng.random() < WRONG else index
    return training_caption(other, 0)


class Blip(Member):
    """One text transformer around CLIP's frozen picture tower."""

    reads = ("caption",)  # of the task's prompts

    def __init__(self, backbones, bootstrap: bool):
        super().__init__()
        self.vision, self.tokenizer = backbones.vision.vision_model, backbones.tokenizer
        width, words = self.vision.config.hidden_size, self.tokenizer
        self.text = BlipTextLMHeadModel(BlipTextConfig(
            vocab_size=len(words), hidden_size=width, encoder_hidden_size=width,
            intermediate_size=4 * width, num_hidden_layers=LAYERS, num_attention_heads=4,
            max_position_embeddings=words.model_max_length, bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id, sep_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        ))  # fmt: skip
        self.to_text, self.to_picture = nn.Linear(width, P), nn.Linear(width, P)
        self.matches = nn.Linear(width, 2)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))  # log of 1 / 0.07
        share = 0.5 if bootstrap else 1.0
        noisy, clean = Stage("noisy", LEARNS, share), Stage("clean", LEARNS, share)
        self.stages = (noisy, clean) if bootstrap else (noisy,)
        self.texts: list[list[str]] = []  # of each training picture
        self.usable: list[int] = []  # pictures that have a text

    # Three ways to read -----------------------------------------------------------------

    def words(self, texts: list[str]) -> dict[str, Tensor]:
        """Ids and mask (B, T): the beginning of sequence, words, the end."""
        ends = [text + self.tokenizer.eos_token for text in texts]
        batch = self.tokenizer(ends, return_tensors="pt", padding=True)
        return {name: batch[name].to(self.device) for name in ("input_ids", "attention_mask")}

    @torch.no_grad()
    def patches(self, pixel_values: Tensor) -> Tensor:
        """CLIP's states (B, S, Dv) of the pictures."""
        return self.vision(pixel_values=pixel_values.to(self.device)).last_hidden_state

    def similarity(self, texts: list[str], pixel_values: Tensor) -> Tensor:
        """Cosines (texts, pictures): each read alone."""
        read = self.text.bert(**self.words(texts)).last_hidden_state[:, 0]
        seen = pooled_output(self.vision, pixel_values)
        return normalize(self.to_text(read), dim=-1) @ normalize(self.to_picture(seen), dim=-1).T

    def matching(self, words: dict[str, Tensor], patches: Tensor) -> Tensor:
        """Logits (B, 2) of whether text and picture match: read together."""
        both = self.text.bert(**words, encoder_hidden_states=patches).last_hidden_state
        return self.matches(both[:, 0])

    def next_word(self, words: dict[str, Tensor], patches: Tensor) -> Tensor:
        """The loss of saying the texts, word by word."""
        labels = words["input_ids"].masked_fill(words["attention_mask"] == 0, IGNORE)
        return self.text(**words, encoder_hidden_states=patches, labels=labels).loss

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """Contrast, matching and next word of one batch of the web, or of what is left of it."""
        index = [self.usable[i % len(self.usable)] for i in self.pairs.draw(generator)]
        texts = [self.texts[i][step % len(self.texts[i])] for i in index]
        pixel_values = self.pairs.pixel_values(index)
        words, patches = self.words(texts), self.patches(pixel_values)
        cosines = self.similarity(texts, pixel_values)
        text, picture, match = hard_pairs(cosines, self.logit_scale, generator)
        pairs = {name: value[text.to(self.device)] for name, value in words.items()}
        matched = match_loss(self.matching(pairs, patches[picture.to(self.device)]), match)
        return contrast_loss(cosines, self.logit_scale) + matched + self.next_word(words, patches)

    # Captioning and filtering -----------------------------------------------------------

    def begin(self, stage: Stage, work_dir: Path) -> None:
        """The web for the first stage, what is left of it and what was written for the second."""
        super().begin(stage, work_dir)
        count = len(self.pairs.pictures)
        self.texts = [[web_caption(i, count)] for i in range(count)]
        if stage.name == "clean":
            self.texts = self.bootstrapped(Path(work_dir))
        self.usable = [i for i, texts in enumerate(self.texts) if texts]
        if not self.usable:
            raise GillError("the matcher let no caption pass; its first stage was too short")

    def bootstrapped(self, work_dir: Path) -> list[list[str]]:
        """Texts of every training picture that the matcher lets pass; kept in the work folder."""
        path = work_dir / f"blip-{self.fingerprint()}.json"
        if not path.exists():
            kept: list[list[str]] = []
            for start in tqdm(range(0, len(self.texts), CHUNK), desc="captions and filters"):
                index = list(range(start, min(start + CHUNK, len(self.texts))))
                pixel_values = self.pairs.pixel_values(index)
                written = self.caption(pixel_values)
                pairs = [[*self.texts[i], text] for i, text in zip(index, written, strict=True)]
                kept += self.filtered(pairs, pixel_values)
            write_json(path, {"texts": kept})
        return read_json(path, "filtered captions")["texts"]

    def fingerprint(self) -> str:
        """Changes with what the captioner has learned."""
        total = sum(float(value.double().abs().sum()) for value in self.own_state().values())
        return f"{total:.6f}"

    @torch.no_grad()
    def filtered(self, pairs: list[list[str]], pixel_values: Tensor) -> list[list[str]]:
        """Of each picture's texts (two), those that match it."""
        patches = self.patches(pixel_values)
        fits = [self.matching(self.words(list(texts)), patches).argmax(1) for texts in zip(*pairs)]
        return [
            [text for text, fit in zip(texts, marks, strict=True) if fit]
            for texts, marks in zip(pairs, zip(*(row.tolist() for row in fits)), strict=True)
        ]

    # Answering --------------------------------------------------------------------------

    @torch.no_grad()
    def caption(self, pixel_values: Tensor) -> list[str]:
        """A caption of each of the pictures (B, 3, H, W)."""
        start = torch.full((len(pixel_values), 1), self.tokenizer.bos_token_id, device=self.device)
        ids = self.text.generate(
            start, encoder_hidden_states=self.patches(pixel_values), do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS, eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)

    def respond(self, prompts: list) -> list[str]:
        """A caption of the picture of each prompt `[picture]`."""
        return self.caption(torch.stack([picture for (picture,) in prompts]))


def build(backbones, seed, root, bootstrap=True) -> Blip:
    """An untrained one."""
    return Blip(backbones, bootstrap)
