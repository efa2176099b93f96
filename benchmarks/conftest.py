"""What the benchmarks share: the mini world's models, and language models of other shapes."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from gill_lite.profiles import MINI
from gill_lite.provenance import collect

# OPT by the fields of its config.json: the mini world's with more positions, and OPT-125m.
OPT_MINI = {
    "vocab_size": 102, "hidden_size": 128, "word_embed_proj_dim": 128, "ffn_dim": 512,
    "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 1024,
    "init_std": 0.088,
}  # fmt: skip
OPT_125M = {
    "vocab_size": 50272, "hidden_size": 768, "word_embed_proj_dim": 768, "ffn_dim": 3072,
    "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 2048,
}  # fmt: skip
SHAPES = {"OPT of the mini shape": OPT_MINI, "OPT-125m's shape": OPT_125M}


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="small sizes, few rounds, no table")


def pytest_configure(config):
    config.began = time.time()


def pytest_benchmark_update_json(config, benchmarks, output_json):
    """Where the numbers come from goes into the file beside them."""
    about = collect(config.began, "mini", "make bench")
    output_json["provenance"] = about | {"threads": torch.get_num_threads()}
    output_json["whole"] = not (config.getoption("quick") or config.getoption("keyword"))


@pytest.fixture(scope="session")
def quick(request) -> bool:
    """Whether only the working of the benchmarks is looked at."""
    return request.config.getoption("quick")


@pytest.fixture(scope="session")
def mini():
    """The mini world's GILL, ready to answer."""
    from gill_lite.answering.respond import load_responder

    return load_responder("mini")


@pytest.fixture(scope="session", params=SHAPES)
def shaped(request, mini):
    """Name and Responder: an OPT of random weights, fresh joints on it, the rest of the mini."""
    from benchmarks.paper_scale.random_backbones import SPARE_ROWS, random_lm, word_tokenizer
    from gill_lite.answering.respond import Responder
    from gill_lite.model.gill import build_gill

    sizes, words = SHAPES[request.param], mini.backbones.tokenizer
    torch.manual_seed(0)
    lm = random_lm({"model_type": "opt", **sizes}, torch.float32, "cpu")
    if sizes["vocab_size"] > len(words):
        words = word_tokenizer(sizes["vocab_size"] - SPARE_ROWS["opt"])
    backbones = replace(mini.backbones, lm=lm.eval().requires_grad_(False), tokenizer=words)
    return request.param, Responder(backbones, build_gill(MINI, backbones))


@pytest.fixture(scope="session")
def prompt_of():
    """A function (responder, length) -> an interleaved prompt (length, D), four pictures in it."""
    from gill_lite.world.render import render
    from gill_lite.world.scene import rng_for, sample_scene

    def make(responder, length: int) -> torch.Tensor:
        rng, pictures = np.random.default_rng(0), 4
        rngs = [rng_for("benchmark", i) for i in range(pictures)]
        images = [render(sample_scene(one), one) for one in rngs]
        known = sorted(w for w in responder.backbones.tokenizer.get_vocab() if w.isalnum())
        room = length - 1 - pictures * responder.gill.config.num_visual_tokens  # one is BOS
        texts = [" ".join(part) for part in np.array_split(rng.choice(known, room), pictures + 1)]
        pairs = zip(texts, images, strict=False)
        items = [item for pair in pairs for item in pair] + texts[-1:]
        prompt = responder.prompts.embed_prompt(items)
        assert len(prompt) == length
        return prompt

    return make
