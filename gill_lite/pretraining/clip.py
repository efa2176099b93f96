"""Pretraining stage `clip`: a tiny CLIP learns pictures and captions by contrast."""

import numpy as np
import torch
from tqdm.auto import tqdm

from gill_lite.pretraining.loop import fit, word_tokenizer
from gill_lite.pretraining.probes import classification_loss
from gill_lite.world import language
from gill_lite.world.corpus import vocabulary
from gill_lite.world.pictures import (
    GROUP,
    NUM_IMAGES,
    drawn,
    held_out,
    signed_pixels,
    training_caption,
    training_images,
    training_scene,
)
from gill_lite.world.scene import ATTRIBUTES, is_novel, rng_for, sample_scene

POSITIONS, WIDTH, PATCH = 77, 128, 16
STEPS, BATCH = 2_600, 128
LABELS_FROM, LABEL_STEPS = 1658, 200  # where the picture tower takes a course in attributes
PLACE_STD = 0.3  # start of the patches' position embeddings: as large as the patches' own
FINE_FROM = 892  # steps on near misses alone; then half of each batch comes from the grids
FINE_BATCH = 60
GRIDS, GRID = 400, 12  # grids of 4 shapes x 3 positions, all else alike
TEXT_CHUNKS = 8  # captions are encoded in chunks of like length
MEAN, STD = 0.5, 0.5  # pixels become -1..1
SPECIALS = {
    "filler": "<pad>",
    "unk_token": "<unk>",
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}


def build_tokenizer():
    """CLIP's conventions: start and end of text, the end doubles as padding; </s> is never id 2."""
    return word_tokenizer(vocabulary(), SPECIALS, POSITIONS, "<|startoftext|> $A <|endoftext|>")


def build_model(tokenizer, seed: int = 0):
    """CLIPModel, both towers width 128 and 4 layers, patch 16, 77 text positions."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    tower = dict(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        projection_dim=WIDTH,
        initializer_factor=1.0,
    )
    text = dict(
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = CLIPModel(
        CLIPConfig(
            text_config=tower | text,
            vision_config=tower | dict(image_size=64, patch_size=PATCH),
            projection_dim=WIDTH,
        )
    )
    # With transformers' own 0.02 left and right were at chance after 800 steps. This start
    # alone did not cure it (still at chance at 1,478); `learn_labels` did.
    torch.nn.init.normal_(model.vision_model.embeddings.position_embedding.weight, std=PLACE_STD)
    return model


def image_processor():
    """CLIPImageProcessor for 64x64 pictures in -1..1."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )


def text_embeds(model, tokenizer, texts: list[str]) -> torch.Tensor:
    """Normalised caption embeddings (B, 128), encoded in chunks of like length."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = []
    for chunk in np.array_split(order, TEXT_CHUNKS):
        batch = tokenizer(
            [texts[i] for i in chunk],
            return_tensors="pt",
            padding=True,
            truncation=True,
            return_token_type_ids=False,
        )
        out.append(model.text_projection(model.text_model(**batch).pooler_output))
    back = torch.argsort(torch.tensor(order))
    return torch.nn.functional.normalize(torch.cat(out), dim=-1)[back]


def image_embeds(model, pixel_values: torch.Tensor) -> torch.Tensor:
    """Normalised picture embeddings (B, 128)."""
    pooled = model.vision_model(pixel_values=pixel_values).pooler_output
    return torch.nn.functional.normalize(model.visual_projection(pooled), dim=-1)


def grid_scene(index: int, seed: int = 0):
    """Scene of grid picture `index`: twelve in a row differ in shape and position only.

    Shape and position are the hard ones: among random pictures neither tower gains by telling
    them before the other does: after 800 steps a probe of the text tower read shape at 0.59
    and position at 0.35, which is chance.
    """
    shapes, positions = ATTRIBUTES["shape"], ATTRIBUTES["position"]
    attempt = 0
    while True:
        base = sample_scene(rng_for("grid", seed, index // GRID, attempt))
        cells = [base.change(shape=s, position=p) for s in shapes for p in positions]
        if not any(map(is_novel, cells)):
            return cells[index % GRID]
        attempt += 1


def grid_images(work_dir, seed: int = 0) -> tuple[np.ndarray, list]:
    """Pictures (GRIDS * GRID, 3, 64, 64) and scenes of all grids, drawn in a quarter minute."""
    scenes = [grid_scene(i, seed) for i in range(GRIDS * GRID)]
    bar = tqdm(scenes, desc="drawing grids")
    return np.stack([drawn(s, "grid", seed, i) for i, s in enumerate(bar)]), scenes


def grid_caption(scene, rng) -> str:
    """A caption that mentions shape and position, and a random subset of the rest."""
    told = {*language.mentioned(scene, rng), "shape", "position"}
    return language.caption(scene, rng, [name for name in ATTRIBUTES if name in told])


def train(work_dir, out_dir, seed: int = 0, steps: int = STEPS):
    """Train, measure and save the CLIP, its tokenizer and image processor. Returns the measures."""
    pictures = training_images(work_dir)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed)
    grids, grid_scenes = grid_images(work_dir)
    labels = torch.arange(BATCH)

    def loss_fn(step, generator):
        fine = FINE_BATCH if step >= FINE_FROM else 0
        index = _groups(NUM_IMAGES, GROUP, BATCH - fine, generator)
        captions = [training_caption(i, step) for i in index]
        batch = pictures[index]
        if fine:
            index = _groups(GRIDS * GRID, GRID, fine, generator)
            rng = rng_for("grid caption", seed, step)
            captions += [grid_caption(grid_scenes[i], rng) for i in index]
            batch = np.concatenate([batch, grids[index]])
        images = image_embeds(model, signed_pixels(batch))
        texts = text_embeds(model, tokenizer, captions)
        logits = model.logit_scale.exp().clamp(max=100) * texts @ images.T  # (B, B)
        cross_entropy = torch.nn.functional.cross_entropy
        return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2

    options = dict(
        steps=steps,
        lr=1.5e-3,
        warmup=150,
        weight_decay=0.05,
        seed=seed,
        measure=lambda: measure(model, tokenizer),
        measure_every=200,
    )
    fit("clip", model, loss_fn, work_dir, until=LABELS_FROM, **options)
    learn_labels(model, pictures, work_dir, seed)
    steps = fit("clip-fine", model, loss_fn, work_dir, first=LABELS_FROM, **options)
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    image_processor().save_pretrained(out_dir)
    return {"steps": steps, **measure(model, tokenizer)}


def learn_labels(model, pictures, work_dir, seed: int = 0):
    """A short course for the picture tower: name the six attributes from its pooled vector.

    By contrast alone neither tower picked up left and right in 1,500 steps, because neither
    gains before the other does; with labels the picture tower has them in 130.
    """
    heads = torch.nn.ModuleDict(
        {name: torch.nn.Linear(WIDTH, len(values)) for name, values in ATTRIBUTES.items()}
    )
    both = torch.nn.ModuleList([model.vision_model, heads])
    labels = torch.tensor([training_scene(i).labels() for i in range(NUM_IMAGES)])

    def loss_fn(step, generator):
        index = torch.randint(NUM_IMAGES, (BATCH,), generator=generator)
        pixel_values = signed_pixels(pictures[index.numpy()])
        pooled = model.vision_model(pixel_values=pixel_values).pooler_output  # (B, 128)
        return classification_loss({n: h(pooled) for n, h in heads.items()}, labels[index])

    fit("clip-labels", both, loss_fn, work_dir, steps=LABEL_STEPS, lr=1e-3, warmup=20, seed=seed)


def _groups(total: int, size: int, count: int, generator) -> list[int]:
    """Picture numbers of `count // size` random whole groups."""
    groups = torch.randint(total // size, (count // size,), generator=generator)
    return (groups[:, None] * size + torch.arange(size)).flatten().tolist()


def oracle_recall(captions_of: list[dict], scenes) -> float:
    """R@1 of one who knows the mentioned attributes and guesses among the pictures that fit."""
    shares = []
    for stated in captions_of:
        fit_all = [all(getattr(s, n) == v for n, v in stated.items()) for s in scenes]
        shares.append(1 / sum(fit_all))
    return float(np.mean(shares))


def measure(model, tokenizer, count: int = 300) -> dict:
    """Held-out text-to-image R@1 and R@5 in `count`, the oracle's R@1, and linear probes."""
    model.eval()
    scenes, pictures = held_out(count, key="clip held out")
    rngs = [rng_for("clip held out caption", i) for i in range(count)]
    stated = [language.mentioned(s, r) for s, r in zip(scenes, rngs)]
    texts = [language.caption(s, r, tuple(k)) for s, r, k in zip(scenes, rngs, stated)]
    with torch.no_grad():
        images = image_embeds(model, pictures * 2 - 1)
        scores = text_embeds(model, tokenizer, texts) @ images.T
    top = scores.argsort(1, descending=True)
    own = torch.arange(count)[:, None]
    model.train()
    oracle = oracle_recall(stated, scenes)
    r1 = float((top[:, :1] == own).float().mean())
    return {
        "recall_at_1": round(r1, 4),
        "recall_at_5": round(float((top[:, :5] == own).any(1).float().mean()), 4),
        "oracle_recall_at_1": round(oracle, 4),
        "share_of_oracle": round(r1 / oracle, 4),
    }
