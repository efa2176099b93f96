"""BLIP-2: a Q-Former asks CLIP's patches what the language model should know (Li et al., 2023).

QUERIES learned vectors go through a small transformer; every second layer lets them look at the
patches, and a text may go through beside them. What sees what is a matter of masks:

    stage 1   contrast   queries and text apart     max over queries of cos(query, text)
              matching   all sees all               p(match), mean over queries
              next word  text sees queries and the words before
    stage 2   next word  of the frozen language model, behind the queries' states

Axes: B batch, Q queries, T text positions, H the Q-Former's width, D LM width.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from transformers.models.blip_2.modeling_blip_2 import Blip2TextEmbeddings

from gill_lite.family.matching import contrast_loss, hard_pairs, match_loss
from gill_lite.family.seer import Seer
from gill_lite.family.system import Stage
from gill_lite.model.tokens import IGNORE

QUERIES, WIDTH, LAYERS, P = 8, 128, 4, 64
FORMER = ("queries", "qformer", "words")


def who_sees(num_queries: int, num_words: int) -> Tensor:
    """Row i sees column j (Q + T, Q + T), where words are told one by one.

    Queries see each other and no word; a word sees the queries, the words before it and itself.
    """
    sees = torch.ones(num_queries + num_words, num_queries + num_words, dtype=torch.bool).tril()
    sees[:num_queries, :num_queries] = True
    return sees


class Blip2(Seer):
    """A Q-Former between CLIP and the language model."""

    stages = (
        Stage("represent", (*FORMER, "to_", "matches", "logit_scale"), share=0.5),
        Stage("speak", (*FORMER, "project"), share=0.5),
    )

    def __init__(self, backbones):
        super().__init__(backbones)
        config = Blip2QFormerConfig(
            vocab_size=len(self.tokenizer), hidden_size=WIDTH, num_hidden_layers=LAYERS,
            num_attention_heads=4, intermediate_size=4 * WIDTH, cross_attention_frequency=2,
            encoder_hidden_size=self.vision_width, use_qformer_text_input=True,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        self.queries = nn.Parameter(0.3 * torch.randn(1, QUERIES, WIDTH))
        self.qformer, self.words = Blip2QFormerModel(config), Blip2TextEmbeddings(config)
        self.to_text, self.to_picture = nn.Linear(WIDTH, P), nn.Linear(WIDTH, P)
        self.to_word, self.matches = nn.Linear(WIDTH, config.vocab_size), nn.Linear(WIDTH, 2)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))  # log of 1 / 0.07
        self.project = nn.Linear(WIDTH, self.width)

    def ask(self, patches: Tensor) -> Tensor:
        """The queries' states (B, Q, H), each other and the patches seen."""
        queries = self.queries.expand(len(patches), -1, -1)
        return self.qformer(queries, encoder_hidden_states=patches).last_hidden_state

    def visual_tokens(self, pixel_values: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) as Q words (B, Q, D)."""
        return self.project(self.ask(self.patches(pixel_values)))

    # Stage 1 ----------------------------------------------------------------------------

    def text(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, T): the beginning of sequence, words, the end."""
        ends = [text + self.tokenizer.eos_token for text in texts]
        batch = self.tokenizer(ends, return_tensors="pt", padding=True).to(self.device)
        return batch["input_ids"], batch["attention_mask"].bool()

    def beside(self, ids: Tensor, mask: Tensor, patches: Tensor, causal: bool) -> Tensor:
        """States (B, Q + T, H) of queries and text read together.

        causal: the queries do not see the text, and a word only those before it.
        """
        query = self.queries.expand(len(ids), -1, -1)
        sees = torch.cat([mask.new_ones(len(ids), QUERIES), mask], dim=1)  # (B, Q + T)
        sees = sees[:, None, None].expand(-1, 1, sees.shape[1], -1)  # (B, 1, Q + T, Q + T)
        if causal:
            sees = sees & who_sees(QUERIES, ids.shape[1]).to(self.device)
        return self.qformer(
            self.words(input_ids=ids, query_embeds=query), query_length=QUERIES,
            attention_mask=sees, encoder_hidden_states=patches,
        ).last_hidden_state  # fmt: skip

    def cosines(self, ids: Tensor, mask: Tensor, patches: Tensor) -> Tensor:
        """Cosines (texts, pictures): a picture's is that of its best query."""
        alone = self.qformer(self.words(input_ids=ids), query_length=0, attention_mask=mask)
        text = normalize(self.to_text(alone.last_hidden_state[:, 0]), dim=-1)  # (texts, P)
        queries = normalize(self.to_picture(self.ask(patches)), dim=-1)  # (pictures, Q, P)
        return torch.einsum("tp,iqp->tiq", text, queries).amax(dim=-1)

    def represent(self, step: int, generator: torch.Generator) -> Tensor:
        """Contrast, matching and next word of one batch."""
        index = self.pairs.draw(generator)
        patches = self.patches(self.pairs.pixel_values(index))
        ids, mask = self.text(self.pairs.captions(index, step))
        cosines = self.cosines(ids, mask, patches)
        text, picture, match = hard_pairs(cosines, self.logit_scale, generator)
        together = self.beside(ids[text], mask[text], patches[picture], causal=False)
        matched = match_loss(self.matches(together[:, :QUERIES]).mean(1), match)
        said = self.to_word(self.beside(ids, mask, patches, causal=True)[:, QUERIES:-1])
        labels = ids.masked_fill(~mask, IGNORE)[:, 1:]
        spoken = cross_entropy(said.transpose(1, 2), labels, ignore_index=IGNORE)
        return contrast_loss(cosines, self.logit_scale) + matched + spoken

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """Stage 1: the three losses of the Q-Former; stage 2: the language model's next word."""
        if self.stage.name == "represent":
            return self.represent(step, generator)
        return super().loss(step, generator)


def build(backbones, seed, root) -> Blip2:
    """An untrained one."""
    return Blip2(backbones)
