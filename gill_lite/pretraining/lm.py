"""Pretraining stage `lm`: a tiny OPT reads the world's corpus.

Three sizes make a ladder: does a larger language model help GILL?
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gill_lite.pretraining.loop import fit, word_tokenizer
from gill_lite.world import corpus, language
from gill_lite.world.scene import ATTRIBUTES, rng_for, sample_scene

POSITIONS = 256
SIZES = {"64x2": (64, 2), "128x4": (128, 4), "256x6": (256, 6)}  # the ladder: width, layers
SIZE = "256x6"
STEPS = 2_500
BATCH, POOL = 64, 8  # POOL batches are sorted by length together
RATE = 2e-3  # of learning, at width 128; inversely to the width
BFLOAT16 = True  # of matrix products: 1.8 times the steps a second on a CPU that has them
CAPTIONS_FIRST = 400  # steps on captions and paraphrases alone
SPECIALS = {"bos": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def build_tokenizer():
    """OPT's conventions: <s>, <pad>, </s>, <unk> are 0 to 3, and </s> opens every text."""
    tokenizer = word_tokenizer(corpus.vocabulary(), SPECIALS, POSITIONS, "</s> $A")
    tokenizer.bos_token = "</s>"
    return tokenizer


def build_model(tokenizer, seed: int = 0, size: str = SIZE):
    """OPTForCausalLM of one of SIZES, 256 positions."""
    torch.manual_seed(seed)
    return tiny_opt(len(tokenizer), *SIZES[size])


def tiny_opt(vocab_size: int, width: int, layers: int):
    """OPTForCausalLM from a random start: four heads, POSITIONS positions."""
    from transformers import OPTConfig, OPTForCausalLM

    return OPTForCausalLM(
        OPTConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            word_embed_proj_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            ffn_dim=4 * width,
            dropout=0.0,
            max_position_embeddings=POSITIONS,
            init_std=width**-0.5,
            bos_token_id=2,
            pad_token_id=1,
            eos_token_id=2,
        )
    )


def token_pool(tokenizer, first: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """POOL batches of documents of like length, each closed by </s>: ids and mask (B, T)."""
    alone = first < CAPTIONS_FIRST
    texts = [corpus.document(first * BATCH + i, alone, seed) for i in range(POOL * BATCH)]
    ids = tokenizer(texts)["input_ids"]
    ids = sorted((row[: POSITIONS - 1] + [tokenizer.eos_token_id] for row in ids), key=len)
    order = rng_for("batch order", seed, first).permutation(POOL)
    batches = [_padded(ids[i * BATCH : (i + 1) * BATCH], tokenizer.pad_token_id) for i in order]
    return [(batch, batch != tokenizer.pad_token_id) for batch in batches]


def _padded(rows: list[list[int]], pad: int) -> torch.Tensor:
    rows = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)


def train(work_dir, out_dir, seed: int = 0, device: str = "cpu", size: str = SIZE):
    """Train, measure and save the language model and its tokenizer. Returns the measures."""
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed, size)
    pools = {}

    def loss_fn(step, generator):
        first = step - step % POOL
        if first not in pools:
            pools.clear()
            pools[first] = token_pool(tokenizer, first, seed)
        ids, mask = (tensor.to(model.device) for tensor in pools[first][step % POOL])
        return model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(~mask, -100)).loss

    steps = fit(
        "lm", model, loss_fn, work_dir, steps=STEPS, lr=RATE * 128 / SIZES[size][0], seed=seed,
        floor=0.05, device=device, bfloat16=BFLOAT16,
        measure=lambda: measure(model, tokenizer, 200), measure_every=500,
    )  # fmt: skip
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    return {"steps": steps, "bfloat16": BFLOAT16, **measure(model, tokenizer)}


def completions(model, tokenizer, prompts: list[str], max_new_tokens: int = 24) -> list[list[str]]:
    """The words with which the model goes on after each prompt, up to the first full stop."""
    tokenizer.padding_side = "left"
    batch = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        ids = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
    tokenizer.padding_side = "right"
    texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :])
    return [text.split(".")[0].split() for text in texts]


def stated_right(words: list[str], stated: dict) -> dict[str, bool]:
    """For each stated attribute, whether the words name its value and no other value of it."""
    return {
        name: [w for w in words if w in ATTRIBUTES[name]][:1] == [value]
        for name, value in stated.items()
    }


def _held_out_texts(count: int):
    stories = [language.story(rng_for("lm held out", i)) for i in range(count)]
    dialogues = []
    for i in range(count):
        rng = rng_for("lm held out dialogue", i)
        scene = sample_scene(rng)
        rounds, topics = language.dialogue_with_topics(scene, rng)
        stated = corpus.dialogue_states(scene, topics)[-1]
        dialogues.append((language.dialogue_text(rounds), stated))
    return [(" ".join(s.captions), s.stated[-1]) for s in stories], dialogues


def measure(model, tokenizer, count: int = 400) -> dict:
    """Held-out: share of stated attributes completed right, and read by a probe at every stop."""
    model.eval()
    result = {}
    for kind, pairs in zip(("story", "dialogue"), _held_out_texts(count)):
        words = completions(model, tokenizer, [f"{t} {corpus.PROBE_LEAD}" for t, _ in pairs])
        marks = [stated_right(w, stated) for w, (_, stated) in zip(words, pairs)]
        for name in ATTRIBUTES:
            right = [m[name] for m in marks if name in m]
            result[f"{kind}_{name}"] = round(float(np.mean(right)), 4)
    if count >= 200:
        result |= {f"state_probe_{n}": v for n, v in state_probe(model, tokenizer).items()}
    model.train()
    return result


def sentence_states(model, tokenizer, keys) -> tuple[np.ndarray, list[dict]]:
    """Last hidden state at the end of every story sentence (S, D), and what is stated there."""
    states, known = [], []
    for key in keys:
        told = language.story(rng_for("lm probe", key))
        ends, ids = [], [tokenizer.bos_token_id]
        for text in told.captions:
            ids += tokenizer(text, add_special_tokens=False)["input_ids"]
            ends.append(len(ids) - 1)
        with torch.no_grad():
            hidden = model.model(torch.tensor([ids])).last_hidden_state[0, ends]
        states.append(hidden.numpy())
        known += told.stated
    return np.concatenate(states), known


def state_probe(model, tokenizer, train: int = 4000, test: int = 500) -> dict[str, float]:
    """Accuracy of a linear probe for each attribute, after any sentence that has it stated."""
    x, known = sentence_states(model, tokenizer, range(train))
    x_test, known_test = sentence_states(model, tokenizer, range(train, train + test))
    accuracy = {}
    for name in ATTRIBUTES:
        has = [i for i, k in enumerate(known) if name in k]
        has_test = [i for i, k in enumerate(known_test) if name in k]
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=400))
        probe.fit(x[has], [known[i][name] for i in has])
        right = probe.score(x_test[has_test], [known_test[i][name] for i in has_test])
        accuracy[name] = round(float(right), 4)
    return accuracy
