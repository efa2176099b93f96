"""Gill: the learned joints around a frozen language model and a frozen CLIP.

Axes: B batch, T text positions, K visual tokens, R [IMG] tokens, L prompt-embedding slots,
D LM width, E prompt-embedding width, P retrieval width, Dv CLIP's width, V vocabulary.
Paper: Sec. 3; the order of rows and labels: official code, reproduced to 1e-5 by the tests.

Everywhere `images` is either pixels (B, 3, H, W) as CLIP's processor gives them, or CLIP's
pooled output (B, Dv): CLIP is frozen, so its output can be computed once and kept.

Training rows lie on the host. What stands where is told there, and a GPU is handed indices of
known number: it is never waited for within a step.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gill_lite.errors import GillError
from gill_lite.model import losses, mappers, tokens
from gill_lite.model.config import GillConfig
from gill_lite.model.vocabulary import Vocabulary

# The trainable set, declared: the first part of each trainable parameter's name.
JOINTS = ("img_embeddings", "logit_scale", "mapper", "ret_head", "visual_embeddings", "visual_fc")
# How much training sends through the LM at once, rows of like length. A CPU is fastest with little
# padding. A GPU wants positions enough to be busy; more of them add padding, and spare nothing:
# what the backward pass reads of all groups is kept anyway.
ROWS_TOGETHER = 12  # on a CPU
TOKENS_TOGETHER = 2048  # on a GPU, at least


class Batch(NamedTuple):
    """One training batch: pair i is one image and its caption."""

    images: Tensor  # (B, 3, H, W) or (B, Dv)
    captioning_rows: tokens.Rows  # what the LM reads behind images, B or B/2 rows
    img_rows: tokens.Rows  # what it reads for retrieval and generation, B or B/2 rows
    prompt_targets: Tensor  # (B, L, E): the generator's own embedding of the captions

    @classmethod
    def of(
        cls,
        config: GillConfig,
        images: Tensor,
        captions: tokens.Captions,
        prompt_targets: Tensor,
        join_captioning: bool = False,
        join_img: bool = False,
    ) -> "Batch":
        """The batch of these captions; a pass joins rows 2i and 2i+1 if it is told to."""
        said = tokens.captioning_rows(captions, config, join_captioning)
        return cls(images, said, tokens.img_rows(captions, config, join_img), prompt_targets)


class ImgPass(NamedTuple):
    """What the LM makes of captions and their [IMG] tokens; retrieval and generation read it."""

    hidden: Tensor  # (B, R, D) of the [IMG] tokens
    lm_loss: Tensor


class Passes(NamedTuple):
    """What `Gill.forward` makes of a batch; `losses.objective` makes the objective of it."""

    captioning: Tensor  # LM loss of the captioning pass (paper Eq. 1)
    img_lm: Tensor  # LM loss of the [IMG] pass (paper Eq. 2)
    text: Tensor  # (B, P) unit vectors of the captions
    image: Tensor  # (B, P) unit vectors of the images
    logit_scale: Tensor  # log of the inverse temperature that compares them
    prompt_embeds: Tensor | None  # (B, L, E); None where joints only retrieve


class Gill(Vocabulary):
    """Frozen `lm` (a causal LM) and `vision` (CLIP or its vision half), and the joints."""

    def __init__(self, lm: nn.Module, vision: nn.Module, config: GillConfig):
        super().__init__()
        self.lm, self.vision, self.config = lm, vision, config
        width = lm.get_input_embeddings().embedding_dim  # D
        vision_width = _vision_config(vision).hidden_size  # Dv
        self.visual_embeddings = nn.Linear(vision_width, config.num_visual_tokens * width)
        self.visual_fc = nn.Linear(vision_width, config.ret_dim)
        self.ret_head = nn.Linear(width, config.ret_dim)
        self.mapper = mappers.build_mapper(config, width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # as CLIP starts
        self.add_img_rows(config.img_token_ids[0], config.num_img_tokens)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.split(".")[0] in JOINTS)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Gill":
        """As usual, but the frozen backbones stay in evaluation mode."""
        super().train(mode)
        self.lm.eval()
        self.vision.eval()
        return self

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of everything that is trained (see JOINTS), and nothing else."""
        return {n: p for n, p in self.named_parameters() if n.split(".")[0] in JOINTS}

    # Images and text into the LM ------------------------------------------------------

    def pooled(self, images: Tensor) -> Tensor:
        """CLIP's pooled output (B, Dv), before its projection; given as such it is returned."""
        if images.dim() == 2:
            return images.to(self.visual_fc.weight)
        return pooled_output(self.vision, images).to(self.visual_fc.weight.dtype)  # (B, Dv)

    def visual_tokens(self, images: Tensor) -> Tensor:
        """Images as K input embeddings of the LM (B, K, D)."""
        flat = self.visual_embeddings(self.pooled(images))  # (B, K*D)
        return flat.reshape(len(flat), self.config.num_visual_tokens, -1)  # (B, K, D)

    # The LM ---------------------------------------------------------------------------

    def lm_states(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Last hidden states (B, T, D), after the LM's final norm."""
        return self.lm_step(inputs_embeds, attention_mask, None, use_cache=False).last_hidden_state

    def row_states(self, embeds: Tensor, lengths: Tensor) -> Tensor:
        """Last hidden states (B, T, D) of training rows (B, T, D), padded on the right.

        Rows of like length are read together, which spares most of the padding; positions
        behind a row's end are zero.
        """
        groups = lengths.argsort().chunk(count_groups(lengths, embeds.device))
        states = []
        for group in groups:
            width = int(lengths[group].max())
            states.append(self.lm_states(embeds[self.here(group), :width]))
            states[-1] = F.pad(states[-1], (0, 0, 0, embeds.shape[1] - width))
        return torch.cat(states)[self.here(torch.cat(groups).argsort())]

    def here(self, values: Tensor) -> Tensor:
        """Values of the host on the joints' device, which is not waited for."""
        return values.to(self.logit_scale.device, non_blocking=True)

    def states_at(self, states: Tensor, where: Tensor) -> Tensor:
        """The states (n, D) of those positions (B, T, D) where the mask (B, T) is true."""
        row, position = where.nonzero(as_tuple=True)  # (n,), known on the host
        return states[self.here(row), self.here(position)]

    def lm_step(self, inputs_embeds: Tensor, attention_mask, cache, use_cache: bool = True):
        """The LM's base model on (B, T, D); the mask covers cached positions, too (B, T')."""
        positions = None
        if attention_mask is not None:
            positions = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
            positions = positions[:, -inputs_embeds.shape[1] :]  # (B, T)
        return self.lm.base_model(
            inputs_embeds=inputs_embeds.to(self.lm.get_input_embeddings().weight),
            attention_mask=attention_mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=use_cache,
        )

    def lm_loss(self, states: Tensor, labels: Tensor) -> Tensor:
        """Next-token loss from states (B, T, D); logits are computed at labels (B, T) only."""
        targets = labels[:, 1:]  # (B, T-1)
        labelled = targets != tokens.IGNORE
        logits = self.logits(self.states_at(states[:, :-1], labelled))
        return losses.caption_loss(logits, self.here(targets[labelled]))

    # Training passes ------------------------------------------------------------------

    def captioning_pass(self, images: Tensor, rows: tokens.Rows) -> Tensor:
        """LM loss of saying the captions behind the visual tokens (paper Eq. 1)."""
        visual = self.visual_tokens(images)  # (B, K, D)
        seen = rows.input_ids == tokens.VISUAL  # (B, K+T), or fewer and longer rows
        text = self.embed(rows.input_ids.masked_fill(seen, 0))
        embeds = text.masked_scatter(self.here(seen)[..., None], visual.to(text.dtype))
        return self.lm_loss(self.row_states(embeds, rows.lengths), rows.labels)

    def img_pass(self, rows: tokens.Rows) -> ImgPass:
        """The LM reads captions and their [IMG] tokens (paper Eq. 2).

        Retrieval and generation share it; the official code runs it once for each.
        """
        states = self.row_states(self.embed(rows.input_ids), rows.lengths)
        where = tokens.img_positions(rows, self.config.img_token_ids)  # (B, T)
        img = self.states_at(states, where)  # (B * R, D)
        hidden = img.unflatten(0, (-1, self.config.num_img_tokens))  # (B, R, D)
        return ImgPass(hidden.to(self.logit_scale.dtype), self.lm_loss(states, rows.labels))

    def forward(self, batch: Batch) -> Passes:
        """What the objective compares, from two passes of the LM."""
        pooled = self.pooled(batch.images)  # (B, Dv)
        captioning = self.captioning_pass(pooled, batch.captioning_rows)
        hidden, img_lm = self.img_pass(batch.img_rows)
        text, image = self.retrieval_embedding(hidden), self.image_features(pooled)  # (B, P)
        generates = self.config.mapper != mappers.RETRIEVAL_ONLY
        prompt_embeds = self.prompt_embeds(hidden) if generates else None  # (B, L, E)
        return Passes(captioning, img_lm, text, image, self.logit_scale, prompt_embeds)

    # Heads ----------------------------------------------------------------------------

    def img_states(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Hidden states (B, R, D) of the [IMG] tokens, forced right behind the prompts.

        `inputs_embeds` (B, T, D); with prompts of several lengths `attention_mask` (B, T) is 0
        where there is padding, left or right.
        """
        img = self.img_embeddings.to(inputs_embeds.dtype)
        img = img.expand(len(inputs_embeds), -1, -1)  # (B, R, D)
        embeds = torch.cat([inputs_embeds, img], dim=1)  # (B, T+R, D)
        if attention_mask is not None:
            ones = attention_mask.new_ones(img.shape[:2])  # (B, R)
            attention_mask = torch.cat([attention_mask, ones], dim=1)  # (B, T+R)
        self.check_room(embeds, attention_mask)
        states = self.lm_states(embeds, attention_mask)
        return states[:, -img.shape[1] :].to(self.logit_scale.dtype)  # (B, R, D)

    def check_room(self, embeds: Tensor, attention_mask: Tensor | None, more: int = 0) -> None:
        """GillError if the longest row and `more` positions exceed what the LM can read."""
        room = getattr(self.lm.config, "max_position_embeddings", None)
        count = embeds.shape[1] if attention_mask is None else int(attention_mask.sum(1).max())
        if room is not None and count + more > room:
            raise GillError(
                f"the prompt needs {count + more} positions, answer included, but the language "
                f"model has {room}; shorten the prompt"
            )

    def prompt_embeds(self, hidden: Tensor) -> Tensor:
        """[IMG] states (B, R, D) -> the generator's prompt embeddings (B, L, E)."""
        return self.mapper(hidden, self.img_embeddings.expand_as(hidden))

    def retrieval_embedding(self, hidden: Tensor) -> Tensor:
        """[IMG] states (B, R, D) -> unit vectors (B, P); only [IMG0] is read."""
        return F.normalize(self.ret_head(hidden[:, 0]), dim=-1)  # (B, P)

    def image_features(self, images: Tensor) -> Tensor:
        """Images -> unit vectors (B, P), comparable with `retrieval_embedding`."""
        return F.normalize(self.visual_fc(self.pooled(images)), dim=-1)  # (B, P)


def build_gill(profile, backbones, mapper: str = "gill", seed: int = 0) -> Gill:
    """A fresh, untrained Gill of `profile`'s sizes; `seed` alone sets its start values."""
    config = GillConfig.of(profile, backbones, mapper)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gill = Gill(backbones.lm, backbones.vision, config)
    return gill.to(next(backbones.lm.parameters()).device)


def count_groups(lengths: Tensor, device: torch.device) -> int:
    """In how many groups the LM reads training rows of these lengths (B,)."""
    if device.type == "cpu":
        return max(1, len(lengths) // ROWS_TOGETHER)
    return max(1, int(lengths.sum()) // TOKENS_TOGETHER)


@torch.no_grad()
def pooled_output(vision: nn.Module, pixel_values: Tensor) -> Tensor:
    """The pooled output (B, Dv) of CLIP or its vision half for pixels (B, 3, H, W)."""
    encoder = getattr(vision, "vision_model", vision)
    return encoder(pixel_values=pixel_values.to(next(encoder.parameters()))).pooler_output


def _vision_config(vision: nn.Module):
    return getattr(vision.config, "vision_config", vision.config)
