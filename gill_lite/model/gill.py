"""Gill: the learned joints around a frozen language model and a frozen CLIP.

Axes: B batch, T text positions, K visual tokens, R [IMG] tokens, L prompt-embedding slots,
D LM width, E prompt-embedding width, P retrieval width, Dv CLIP's width, V vocabulary.
Paper: Sec. 3; the order of rows and labels: official code, reproduced to 1e-5 by the tests.

Everywhere `images` is either pixels (B, 3, H, W) as CLIP's processor gives them, or CLIP's
pooled output (B, Dv): CLIP is frozen, so its output can be computed once and kept.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gill_lite.errors import GillError
from gill_lite.model import losses, mappers, tokens
from gill_lite.model.backbones import prompt_width
from gill_lite.model.config import GillConfig
from gill_lite.model.passes import Batch, CaptioningPass, ImgPass, Losses

# The trainable set, declared: the first part of each trainable parameter's name.
JOINTS = ("img_embeddings", "logit_scale", "mapper", "ret_head", "visual_embeddings", "visual_fc")
ROWS_TOGETHER = 12  # rows of like length that training sends through the LM at once


class Gill(nn.Module):
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
        self.img_embeddings = nn.Parameter(torch.randn(config.num_img_tokens, width))  # (R, D)
        self._keep_frozen_rows()
        self.rescale_img_embeddings()
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.split(".")[0] in JOINTS)
        self.train(self.training)

    def _keep_frozen_rows(self) -> None:
        """Rows for ids between the LM's vocabulary and [IMG0], and the mean norm of all rows.

        The official code adds `<|image|>` there; like resized vocabularies it starts as the
        mean of all rows, is never trained and only counts in the softmax.
        """
        first = self.config.img_token_ids[0]
        rows = self.lm.get_input_embeddings().weight.detach()[:first]  # (V - R or fewer, D)
        filler = rows.float().mean(dim=0, keepdim=True).expand(first - len(rows), -1)
        norms = torch.cat([rows.float().norm(dim=1), filler.norm(dim=1)])
        self.register_buffer("filler_rows", filler.to(rows.dtype).clone(), persistent=False)
        self.register_buffer("row_norm", norms.mean(), persistent=False)
        self.own_rows = len(rows)

    def train(self, mode: bool = True) -> "Gill":
        """As usual, but the frozen backbones stay in evaluation mode."""
        super().train(mode)
        self.lm.eval()
        self.vision.eval()
        return self

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of everything that is trained (see JOINTS), and nothing else."""
        return {n: p for n, p in self.named_parameters() if n.split(".")[0] in JOINTS}

    @torch.no_grad()
    def rescale_img_embeddings(self) -> None:
        """Give each [IMG] row the mean norm of the other rows; called after each step."""
        norms = self.img_embeddings.norm(dim=1, keepdim=True)  # (R, 1)
        self.img_embeddings.mul_(self.row_norm.to(norms) / norms)

    # Images and text into the LM ------------------------------------------------------

    def pooled(self, images: Tensor) -> Tensor:
        """CLIP's pooled output (B, Dv), before its projection; given as such it is returned."""
        if images.dim() == 2:
            return images.to(self.visual_fc.weight)
        encoder = getattr(self.vision, "vision_model", self.vision)
        with torch.no_grad():
            weight = next(encoder.parameters())
            pooled = encoder(pixel_values=images.to(weight)).pooler_output
        return pooled.to(self.visual_fc.weight.dtype)  # (B, Dv)

    def visual_tokens(self, images: Tensor) -> Tensor:
        """Images as K input embeddings of the LM (B, K, D)."""
        flat = self.visual_embeddings(self.pooled(images))  # (B, K*D)
        return flat.reshape(len(flat), self.config.num_visual_tokens, -1)  # (B, K, D)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Input embeddings (..., T, D); ids of [IMG] tokens take the learned rows."""
        table = self.lm.get_input_embeddings()
        input_ids = input_ids.to(table.weight.device)
        own = input_ids < self.own_rows  # (..., T)
        text = table(torch.where(own, input_ids, 0))  # (..., T, D)
        extra = torch.cat([self.filler_rows, self.img_embeddings.to(text.dtype)])
        added = F.embedding((input_ids - self.own_rows).clamp(min=0), extra)
        return torch.where(own[..., None], text, added)

    # The LM ---------------------------------------------------------------------------

    def lm_states(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Last hidden states (B, T, D), after the LM's final norm."""
        return self.lm_step(inputs_embeds, attention_mask, None, use_cache=False).last_hidden_state

    def row_states(self, rows: tokens.Rows) -> Tensor:
        """Last hidden states (B, T, D) of training rows, padded on the right.

        Rows of like length are read together, which spares most of the padding; positions
        behind a row's end are zero.
        """
        groups = rows.lengths.argsort().chunk(max(1, len(rows.lengths) // ROWS_TOGETHER))
        states = []
        for group in groups:
            width = int(rows.lengths[group].max())
            states.append(self.lm_states(rows.embeds[group, :width]))
            states[-1] = F.pad(states[-1], (0, 0, 0, rows.embeds.shape[1] - width))
        return torch.cat(states)[torch.cat(groups).argsort()]

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

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (..., V) over text, filler and [IMG] rows, in this order.

        An [IMG] token has one row, for input and output, also where the LM's own are untied.
        """
        head = self.lm.get_output_embeddings()
        extra = torch.cat([self.filler_rows, self.img_embeddings.to(hidden.dtype)])
        own = hidden @ head.weight[: self.own_rows].T
        if head.bias is not None:
            own = own + head.bias[: self.own_rows]
        return torch.cat([own, hidden @ extra.T], dim=-1)

    def lm_loss(self, states: Tensor, labels: Tensor) -> Tensor:
        """Next-token loss from states (B, T, D); logits are computed at labels (B, T) only."""
        targets = labels[:, 1:]  # (B, T-1)
        labelled = targets != tokens.IGNORE
        return losses.caption_loss(self.logits(states[:, :-1][labelled]), targets[labelled])

    # Training passes ------------------------------------------------------------------

    def captioning_pass(
        self, images: Tensor, captions: tokens.Captions, join: bool = False
    ) -> CaptioningPass:
        """The LM says the caption behind the visual tokens (paper Eq. 1)."""
        config = self.config
        visual = self.visual_tokens(images)  # (B, K, D)
        text = self.embed(captions.input_ids)  # (B, T, D)
        rows = tokens.Rows(
            torch.cat([visual.to(text.dtype), text], dim=1),  # (B, K+T, D)
            tokens.caption_labels(captions, config.num_visual_tokens, config.num_img_tokens),
            captions.lengths + config.num_visual_tokens - config.num_img_tokens,
        )
        if join:
            rows = tokens.join_rows(rows, config.num_visual_tokens if config.has_bos else None)
        lm_loss = self.lm_loss(self.row_states(rows), rows.labels)
        return CaptioningPass(visual, rows.labels, lm_loss)

    def img_pass(self, captions: tokens.Captions, join: bool = False) -> ImgPass:
        """The LM reads captions and their [IMG] tokens (paper Eq. 2).

        Retrieval and generation share it; the official code runs it once for each.
        """
        config = self.config
        ids, lengths = captions
        rows = tokens.Rows(self.embed(ids), tokens.masked_labels(ids, lengths), lengths)
        if join:
            rows = tokens.join_rows(rows, 0 if config.has_bos else None)
        labels = tokens.end_after_first_img(rows.labels, config.img_token_ids)
        states = self.row_states(rows)  # (rows, T, D)
        where = tokens.img_positions(lengths, config.num_img_tokens, join, config.has_bos)
        lm_loss = self.lm_loss(states, labels)
        return ImgPass(states[where].to(self.logit_scale.dtype), labels, lm_loss)

    def forward(
        self,
        batch: Batch,
        join_captioning: bool = False,
        join_img: bool = False,
        lm_loss_weight: float = 0.5,
        contrast: Callable[[Tensor, Tensor, Tensor], Tensor] = losses.retrieval_loss,
    ) -> Losses:
        """All losses of one batch, from two passes of the LM.

        `lm_loss_weight` counts the LM loss of the second pass once for retrieval and once for
        generation, as the official three-pass form does. `contrast` is the retrieval loss; the
        training step puts one in that sees the pairs of all processes.
        """
        pooled = self.pooled(batch.images)  # (B, Dv)
        said = self.captioning_pass(pooled, batch.captions, join_captioning)
        read = self.img_pass(batch.captions, join_img)
        retrieval = contrast(
            self.retrieval_embedding(read.hidden),
            self.image_features(pooled),
            self.logit_scale,
        )
        generation = torch.zeros_like(retrieval)
        if self.config.mapper != mappers.RETRIEVAL_ONLY:
            predicted = self.prompt_embeds(read.hidden)  # (B, L, E)
            generation = losses.generation_loss(predicted, batch.prompt_targets)
        return Losses.of(said.lm_loss, read.lm_loss, retrieval, generation, lm_loss_weight)

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
    config = GillConfig(
        img_token_ids=tokens.img_token_ids(backbones.tokenizer, profile.num_img_tokens),
        prompt_width=prompt_width(backbones.pipeline, profile.prompt_slots),
        num_visual_tokens=profile.num_visual_tokens,
        num_img_tokens=profile.num_img_tokens,
        ret_dim=profile.ret_dim,
        prompt_slots=profile.prompt_slots,
        mapper=mapper,
        mapper_width=profile.mapper_width,
        mapper_layers=profile.mapper_layers,
        mapper_heads=profile.mapper_heads,
        mapper_ffn=profile.mapper_ffn,
        has_bos=backbones.tokenizer.bos_token_id is not None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gill = Gill(backbones.lm, backbones.vision, config)
    return gill.to(next(backbones.lm.parameters()).device)


def _vision_config(vision: nn.Module):
    return getattr(vision.config, "vision_config", vision.config)
