"""The official algorithm, written the plain way: what ours is measured against.

The same weights, the same outputs; nothing is kept from one step for the next, nothing is
batched that the official code does not batch. Written from its description, not from its text.
Axes: B batch, T positions, D LM width, K visual tokens, R [IMG] tokens, L prompt-embedding
slots, E prompt-embedding width, P retrieval width, N images in the index, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gill_lite.answering.decode import Sampling
from gill_lite.answering.respond import picture_seeds
from gill_lite.evaluation.drawers import Drawer, GillDrawer, GlideDrawer
from gill_lite.model import losses, tokens
from gill_lite.model.gill import Batch
from gill_lite.model.losses import Losses
from gill_lite.world.glide import GUIDANCE, PATCH, Text, noise

LENGTH = 32  # positions that every training caption is padded to


@torch.no_grad()
def decode(gill, prompt: Tensor, sampling: Sampling) -> list[int]:
    """Answer one prompt (T, D), greedily; the whole sequence is read again for each word.

    The logits of the last position alone are computed, which spares the reference work.
    """
    img, factors = gill.config.img_token_ids, (sampling.ret_scale_factor, sampling.gen_scale_factor)
    embeds, ids = prompt[None], []  # (1, T, D)
    for word in range(sampling.max_words):
        logits = gill.logits(gill.lm_states(embeds)[0, -1])  # (V,)
        for factor in (factor for factor in factors if factor > 1):
            logits[img[0]] = logits[img[0]].abs() * factor
        logits[list(img[int(word >= sampling.min_words) :])] = -torch.inf
        token = int(logits.argmax())
        new = list(img) if token == img[0] else [token]
        ids += new
        embeds = torch.cat([embeds, gill.embed(torch.tensor([new]))], dim=1)
    return ids


@torch.no_grad()
def states_of(gill, prompt: Tensor, ids: list[int]) -> Tensor:
    """States (T', D) of an answer's T' tokens behind a prompt (T, D), all read at once."""
    read = torch.cat([prompt, gill.embed(torch.tensor(ids, dtype=torch.long))])
    return gill.lm_states(read[None])[0, len(prompt) :]


@torch.no_grad()
def answer(responder, prompt: list, example_id: str, sampling: Sampling, count: int) -> list:
    """The interleaved answer to one prompt, decoded greedily to `max_words`.

    Texts, and for each run of [IMG] tokens its hidden states (R, D), the scores (count,) and rows
    (count,) of what it retrieves beside what was retrieved before, and one picture (3, H, W),
    drawn with the example's own noise.
    """
    gill, say = responder.gill, responder.backbones.tokenizer.decode
    embeds, img = responder.prompts.embed_prompt(prompt), gill.config.img_token_ids
    ids = decode(gill, embeds, sampling)
    states = states_of(gill, embeds, ids)  # (T, D)
    answer, start, candidates = [], 0, responder.gallery.index.embeddings.clone()
    for place, at in enumerate([at for at, token in enumerate(ids) if token == img[0]]):
        hidden = states[at : at + len(img)]  # (R, D)
        found = search(candidates, gill.retrieval_embedding(hidden[None])[0], count)
        candidates[found[1]] = -candidates[found[1]]  # of cosine below 0: not found again
        noise = torch.Generator().manual_seed(picture_seeds(0, example_id, place, 1)[0])
        drawn = picture(GillDrawer(responder), gill.prompt_embeds(hidden[None]), noise)[0]
        answer += [say(ids[start:at], skip_special_tokens=True), (hidden, *found, drawn)]
        start = at + len(img)
    wordless = {"", ".", "!", "?"} if start else {""}  # left out; all but "" beside pictures alone
    pieces = [*answer, say(ids[start:], skip_special_tokens=True)]
    return [x for x in pieces if not isinstance(x, str) or x not in wordless]


@torch.no_grad()
def log_likelihood(responder, prompt: list) -> float:
    """Of a prompt whose first item is a text: the mean over its texts' tokens but the first."""
    gill, tokenizer = responder.gill, responder.backbones.tokenizer
    parts, labels = [], []
    for place, item in enumerate(prompt):
        if isinstance(item, str):
            ids = tokens.encode_text(tokenizer, item, bos=place == 0)
            parts.append(gill.embed(torch.tensor(ids)))
        else:
            parts.append(gill.visual_tokens(responder.prompts.pixel_values([item]))[0])
            ids = [tokens.IGNORE] * len(parts[-1])
        labels += ids
    logits = gill.logits(gill.lm_states(torch.cat(parts)[None]))[0]  # (T, V)
    return -float(F.cross_entropy(logits[:-1], torch.tensor(labels[1:]), ignore_index=-100))


# ---- training ------------------------------------------------------------------------------


def training_step(gill, optimizer, profile, batch: Batch) -> dict[str, float]:
    """One step of AdamW over three LM passes: captioning, retrieval, generation.

    Captions are padded to LENGTH and logits computed at every position, as officially.
    """
    gill.train()
    optimizer.zero_grad()
    parts = three_passes(gill, batch, profile.lm_loss_weight)
    parts.total.backward()
    parameters = list(gill.trainable_parameters().values())
    norm = torch.nn.utils.clip_grad_norm_(parameters, profile.grad_clip)
    optimizer.step()
    gill.rescale_img_embeddings()
    return {name: value.item() for name, value in parts._asdict().items()} | {"norm": norm.item()}


def three_passes(gill, batch: Batch, lm_loss_weight: float) -> Losses:
    """The losses of a batch whose captions stand alone, none of them joined."""
    said, found, drawn = language_model_passes(gill, batch)
    where = tokens.img_positions(batch.img_rows, gill.config.img_token_ids)  # (B, T)
    length, shape = where.shape[1], (len(where), gill.config.num_img_tokens, -1)
    found_img, drawn_img = (p.states[:, :length][where].view(shape) for p in (found, drawn))
    text = gill.retrieval_embedding(found_img)  # (B, P)
    retrieval = losses.retrieval_loss(text, gill.image_features(batch.images), gill.logit_scale)
    embeds = gill.prompt_embeds(drawn_img)  # (B, L, E)
    generation = losses.generation_loss(embeds, batch.prompt_targets)
    img_lm = (found.lm_loss + drawn.lm_loss) / 2
    return Losses.of(said.lm_loss, img_lm, retrieval, generation, lm_loss_weight)


class Pass(NamedTuple):
    """What one pass of the language model gives."""

    states: Tensor  # (B, T, D)
    lm_loss: Tensor


def language_model_passes(gill, batch: Batch) -> list[Pass]:
    """Captioning, then the caption and its [IMG] tokens, for retrieval and for generation."""
    ids, num_img = batch.img_rows.input_ids, gill.config.num_img_tokens
    ids = F.pad(ids, (0, LENGTH - ids.shape[1]))  # (B, 32)
    captions = tokens.Captions(ids, batch.img_rows.lengths)
    visual, text = gill.visual_tokens(batch.images), gill.embed(ids)  # (B, K, D), (B, 32, D)
    labels = tokens.caption_labels(captions, visual.shape[1], num_img)  # (B, K+32)
    passes = [lm_pass(gill, torch.cat([visual, text], dim=1), labels)]
    for _ in ("retrieval", "generation"):
        passes.append(lm_pass(gill, gill.embed(ids), tokens.img_labels(captions, num_img)))
    return passes


def lm_pass(gill, embeds: Tensor, labels: Tensor) -> Pass:
    """States (B, T, D) of all rows, and the loss of the next token from logits everywhere."""
    states = gill.lm_states(embeds)
    logits = gill.logits(states)  # (B, T, V)
    return Pass(states, losses.caption_loss(logits[:, :-1], labels[:, 1:]))


# ---- retrieval -----------------------------------------------------------------------------


def search(embeddings: Tensor, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores (k,) and rows (k,) of the best of (N, P) in float32: one product, then the top."""
    best = (embeddings @ query).topk(k)
    return best.values, best.indices


def read_once(matrix: Tensor) -> int:
    """Add up all bytes of a matrix, eight at a time: the least that a search must read."""
    return int(matrix.view(torch.int64).sum())


# ---- drawing -------------------------------------------------------------------------------


@torch.no_grad()
def picture(drawer: Drawer, condition: Tensor, generator: torch.Generator) -> Tensor:
    """One picture (1, 3, H, W) from a condition of one; guidance as two runs of the denoiser."""
    if isinstance(drawer, GlideDrawer):
        return drawer.decode(_glide(drawer.glide, condition, generator, drawer.steps))
    responder, pipeline = drawer.responder, drawer.responder.backbones.pipeline

    def predict(noisy: Tensor, step: Tensor, embeds: Tensor) -> Tensor:
        return pipeline.unet(noisy, step, encoder_hidden_states=embeds).sample

    conditions = responder.drawing.no_prompt, condition
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(responder.profile.num_inference_steps)
    start = drawer.noise(generator) * scheduler.init_noise_sigma
    return drawer.decode(
        guided(scheduler, start, predict, conditions, responder.profile.guidance_scale)
    )


def _glide(glide, ids: Tensor, generator: torch.Generator, steps: int) -> Tensor:
    """The mini GLIDE's picture (1, 3, 64, 64) in 0..1 of token ids (1, T)."""
    empty = glide.token_ids([""], padding="max_length", max_length=ids.shape[1])  # (1, T)
    texts: tuple[Text, Text] = glide.read(empty), glide.read(ids)
    scheduler = type(glide.scheduler).from_config(glide.scheduler.config)
    scheduler.set_timesteps(steps)
    start = F.pixel_unshuffle(noise(generator), PATCH)  # (1, 48, 16, 16)
    drawn = guided(scheduler, start, glide.denoise, texts, GUIDANCE)
    return F.pixel_shuffle(drawn, PATCH).clamp(-1, 1) / 2 + 0.5


def guided(scheduler, x: Tensor, predict: Callable, conditions: tuple, guidance: float) -> Tensor:
    """The sampler's steps from noise `x`; `conditions` are the empty text and the prompt."""
    nothing, prompt = conditions
    for step in scheduler.timesteps:
        noisy = scheduler.scale_model_input(x, step)
        plain, told = predict(noisy, step, nothing), predict(noisy, step, prompt)
        x = scheduler.step(plain + guidance * (told - plain), step, x).prev_sample
    return x


@torch.no_grad()
def evaluate(scorer, items) -> list[dict]:
    """Scores of work items, one after another: no batch, and nothing known of the ones before.

    The true picture of each item is embedded again. The noise is the item's own, as in ours.
    """
    rows = []
    for item in items:
        scorer.known_features.clear()
        drawer = scorer.models[item.method, item.seed]
        example = scorer.examples[item.example_id]
        condition = drawer.conditions(scorer.task, [example], scorer.contexts[item.context])
        drawn = picture(drawer, condition, scorer.generator(drawer, item.example_id))
        rows += scorer.score([item], drawn)
    return rows
