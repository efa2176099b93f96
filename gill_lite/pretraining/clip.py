"""Pretraining stage `clip`: a tiny CLIP learns pictures and captions by contrast.

Its batches are groups of near misses: four pictures that share all attributes but one. During
the first steps the picture tower also takes a course: it names the six attributes from its pooled
vector. Real CLIPs have no such labels. Here, without them, neither tower found left and right in
1,500 steps, since neither gains by telling them before the other does.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cross_entropy, normalize

from gill_lite.pretraining.loop import fit, word_tokenizer
from gill_lite.pretraining.probes import classification_loss
from gill_lite.world import language
from gill_lite.world.corpus import vocabulary
from gill_lite.world.pictures import (
    GROUP,
    NUM_IMAGES,
    held_out,
    signed_pixels,
    training_caption,
    training_images,
    training_scene,
)
from gill_lite.world.scene import ATTRIBUTES, rng_for

POSITIONS, WIDTH, PATCH = 77, 128, 16
STEPS, BATCH = 3_500, 256
COURSE = 600  # steps in which the picture tower names attributes beside its other task
PLACE_STD = 0.3  # start of the patches' position embeddings: as large as the patches' own
TEXT_CHUNKS = 4  # captions are encoded in chunks of like length
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
    for chunk in np.array_split(order, min(TEXT_CHUNKS, len(order))):
        batch = tokenizer(
            [texts[i] for i in chunk],
            return_tensors="pt",
            padding=True,
            truncation=True,
            return_token_type_ids=False,
        ).to(model.device)
        out.append(model.text_projection(model.text_model(**batch).pooler_output))
    back = torch.argsort(torch.tensor(order))
    return normalize(torch.cat(out), dim=-1)[back]


def pooled_pictures(model, pixel_values: torch.Tensor) -> torch.Tensor:
    """The picture tower's pooled vectors (B, 128)."""
    return model.vision_model(pixel_values=pixel_values.to(model.device)).pooler_output


def projected(model, pooled: torch.Tensor) -> torch.Tensor:
    """Normalised picture embeddings (B, 128) of pooled vectors."""
    return normalize(model.visual_projection(pooled), dim=-1)


def image_embeds(model, pixel_values: torch.Tensor) -> torch.Tensor:
    """Normalised picture embeddings (B, 128)."""
    return projected(model, pooled_pictures(model, pixel_values))


def train(work_dir, out_dir, seed: int = 0, device: str = "cpu"):
    """Train, measure and save the CLIP, its tokenizer and image processor. Returns the measures."""
    pictures, tokenizer = training_images(work_dir), build_tokenizer()
    model = build_model(tokenizer, seed)
    heads = torch.nn.ModuleDict({n: torch.nn.Linear(WIDTH, len(v)) for n, v in ATTRIBUTES.items()})
    both = torch.nn.ModuleList([model, heads])  # the heads are for the course alone
    attributes = torch.tensor([training_scene(i).labels() for i in range(NUM_IMAGES)])

    def loss_fn(step, generator):
        index = _groups(NUM_IMAGES, GROUP, BATCH, generator)
        captions = [training_caption(i, step) for i in index]
        pooled = pooled_pictures(model, signed_pixels(pictures[index]))
        loss = contrast(
            projected(model, pooled), text_embeds(model, tokenizer, captions), model.logit_scale
        )
        if step < COURSE:
            named = {name: head(pooled) for name, head in heads.items()}
            loss = loss + classification_loss(named, attributes[index].to(model.device))
        return loss

    steps = fit(
        "clip", both, loss_fn, work_dir, steps=STEPS, lr=1.5e-3, warmup=150, weight_decay=0.05,
        seed=seed, device=device,
        measure=lambda: measure(model, tokenizer), measure_every=500,
    )  # fmt: skip
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    image_processor().save_pretrained(out_dir)
    course = f"{COURSE} steps of the picture tower on attribute labels"
    return {"steps": steps, "course": course, **measure(model, tokenizer)}


def contrast(images, texts, logit_scale) -> torch.Tensor:
    """InfoNCE in both directions between normalised embeddings, both (B, 128)."""
    logits = logit_scale.exp().clamp(max=100) * texts.float() @ images.float().T  # (B, B)
    labels = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


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
    oracle = oracle_recall(stated, scenes)
    r1 = float((top[:, :1] == own).float().mean())
    probes = pooled_probes(model)
    model.train()
    return {
        "recall_at_1": round(r1, 4),
        "recall_at_5": round(float((top[:, :5] == own).any(1).float().mean()), 4),
        "oracle_recall_at_1": round(oracle, 4),
        "share_of_oracle": round(r1 / oracle, 4),
        **probes,
    }


def pooled_probes(model, train: int = 1000, test: int = 500) -> dict[str, float]:
    """Held-out accuracy of a linear probe for each attribute on the pooled picture vectors."""
    scenes, pictures = held_out(train + test, key="clip probe")
    with torch.no_grad():
        parts = [pooled_pictures(model, part * 2 - 1) for part in pictures.split(250)]
    x, accuracy = torch.cat(parts).numpy(), {}
    for name in ATTRIBUTES:
        values = [getattr(scene, name) for scene in scenes]
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=400))
        probe.fit(x[:train], values[:train])
        accuracy[f"pooled_{name}"] = round(float(probe.score(x[train:], values[train:])), 4)
    return accuracy
