"""`gill-lite doctor`: what is installed here, are the weights whole, and what can this run?"""

import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gill_lite.model.backbones import FETCH, check_files, load_backbones
from gill_lite.profiles import MINI, PAPER, REVISIONS, get_profile
from gill_lite.provenance import (
    git_commit,
    hardware,
    library_versions,
    peak_memory_mb,
    repository_root,
)

PICTURES = 4  # drawn together to time the mini profile
PAIRS = 25  # of a training batch, to time the paper's
UNMEASURED = "not measured here"


def doctor(profile: str) -> None:
    """Print versions, hardware, the state of the profile's weights, and what can run here.

    Raises GillError naming the first weight file that is missing or was changed.
    """
    name = get_profile(profile).name
    root = repository_root()
    facts = library_versions() | hardware() | {"git commit": git_commit(root)}
    width = max(map(len, facts))
    for what, value in facts.items():
        print(f"{what:<{width}}  {value}")
    if name == "mini":
        files = check_files(root / "data" / name)["files"]
        print(f"weights: all {len(files)} files are as the manifest says")
    else:
        for what, word in FETCH.items():
            print(f"weights: {cached(getattr(PAPER, what), word)}")
    print("\nWhat this machine can run (GiB are 2**30 bytes):\n" + table())


def cached(repo: str, word: str) -> str:
    """Where the weights of `repo` are in the Hugging Face cache, or how to fetch them."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("config.json", "model_index.json"):
        found = try_to_load_from_cache(repo, name, revision=REVISIONS.get(repo))
        if isinstance(found, str) and list(Path(found).parent.rglob("*.safetensors")):
            return f"{repo} is in {Path(found).parent}"
    return f"{repo} is not here; run `gill-lite fetch {word}`"


# ---- what can run ------------------------------------------------------------------------


class Row(NamedTuple):
    """One line of the table; `needs` in bytes."""

    what: str
    needs: int
    here: str
    fits: str
    seconds: str


def table() -> str:
    """Needs, means and times of each way to run, for a person."""
    from tabulate import tabulate

    from gill_lite.model.memory import ALLOWANCE, GIB

    rows = [mini_row(), *paper_rows(_gpu())]
    cells = [(row.what, f"{row.needs / GIB:.1f}", *row[2:]) for row in rows]
    heads = ("run", "needs GiB", "here", "fits", "time")
    return tabulate(cells, heads, tablefmt="simple") + (
        "\nmini: memory of this process, time of drawing alone. paper: memory from the models' "
        f"shapes, and\n{ALLOWANCE / GIB:.0f} GiB for CUDA itself; training counts the whole batch "
        f"of {PAPER.batch_size} pairs, and takes fewer\nat a time with "
        "--gradient-accumulation-steps."
    )


def mini_row() -> Row:
    """Table 1 of the mini world on this machine's CPU, from one batch of pictures."""
    import psutil

    from gill_lite.evaluation.evaluate import WORLD_EXAMPLES
    from gill_lite.evaluation.tables import TABLE1

    count = len(TABLE1.cells(MINI.seeds)) * WORLD_EXAMPLES
    each = picture_seconds(load_backbones(MINI).pipeline)
    needs = round((peak_memory_mb() or 0) * 2**20)
    memory = psutil.virtual_memory().total
    told = f"{count * each / 60:.0f} min for Table 1: {count:,} pictures of {each:.2f} s"
    return Row("mini", needs, f"RAM {_gib(memory)}", _yes(needs <= memory), f"{told}, measured now")


def picture_seconds(pipeline) -> float:
    """Seconds a picture of the mini world takes, drawn as the tables are."""
    embeds, nothing = pipeline.encode_prompt(["a picture"] * PICTURES, "cpu", 1, True)
    draw = {"prompt_embeds": embeds, "negative_prompt_embeds": nothing, "output_type": "pt"}
    pipeline(**draw, num_inference_steps=1)  # the first call sets things up
    started = time.perf_counter()
    pipeline(
        **draw, guidance_scale=MINI.guidance_scale, num_inference_steps=MINI.num_inference_steps
    )
    return (time.perf_counter() - started) / PICTURES


def paper_rows(gpu) -> list[Row]:
    """Training and answering with the paper's models; `gpu` is a torch device or None."""
    import torch

    from gill_lite.model.memory import paper_needs

    memory = torch.cuda.get_device_properties(gpu).total_memory if gpu else 0
    rows = []
    for need in paper_needs():
        pairs = need.pairs(memory)
        fits = _yes(need.total <= memory)
        if fits == "no" and pairs:
            fits = f"{pairs} pairs at a time"
        seconds = UNMEASURED
        if gpu and fits != "no":
            seconds = training_time(gpu) if need.batch else drawing_time(gpu)
        here = f"GPU {_gib(memory)}" if gpu else "no CUDA GPU"
        rows.append(Row(f"paper, {need.what}", need.total, here, fits, seconds))
    return rows


def _gpu():
    import torch

    return torch.device("cuda") if torch.cuda.is_available() else None


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _yes(true: bool) -> str:
    return "yes" if true else "no"


# ---- times on a GPU, with random weights of the true shapes --------------------------------


def training_time(device) -> str:
    """The paper's training by its LM layers alone, from one of them."""
    from gill_lite.model.memory import OPT_6_7B

    tokens = PAIRS * 2 * PAPER.max_caption_tokens  # two passes a step
    once = layer_seconds(device, OPT_6_7B, PAIRS * 2, tokens // (PAIRS * 2))
    step = once * OPT_6_7B["num_hidden_layers"] * PAPER.batch_size / PAIRS
    hours = step * PAPER.steps / 3600
    return f"over {hours:.0f} h for {PAPER.steps:,} steps: the LM's layers alone, measured now"


@cache
def drawing_time(device) -> str:
    """A picture of Stable Diffusion 1.5 by its denoiser alone, from one step."""
    from gill_lite.model.memory import UNET_SD15

    seconds = denoiser_seconds(device, UNET_SD15) * PAPER.num_inference_steps
    return f"over {seconds:.1f} s a picture: the denoiser alone, measured now"


def layer_seconds(device, config: dict, rows: int, positions: int) -> float:
    """Seconds of one OPT layer in bf16, forward and backward, on (rows, positions) tokens."""
    import torch
    from transformers import OPTConfig, OPTModel

    small = config | {"num_hidden_layers": 1, "vocab_size": 8}
    with torch.device(device):
        lm = OPTModel(OPTConfig(**small)).to(torch.bfloat16).eval().requires_grad_(False)
        embeds = torch.zeros(rows, positions, config["hidden_size"], dtype=torch.bfloat16)
    embeds.requires_grad_()
    return _seconds(lambda: lm(inputs_embeds=embeds).last_hidden_state.sum().backward(), device)


def denoiser_seconds(device, config: dict) -> float:
    """Seconds of one denoiser step in bf16, with guidance: a batch of two."""
    import torch
    from diffusers import UNet2DConditionModel

    kinds = {"device": device, "dtype": torch.bfloat16}
    with torch.device(device):
        unet = UNet2DConditionModel(**config).to(torch.bfloat16).eval()
    size, width = config["sample_size"], config["cross_attention_dim"]
    latents = torch.zeros(2, 4, size, size, **kinds)
    prompt = torch.zeros(2, PAPER.prompt_slots, width, **kinds)
    with torch.no_grad():
        return _seconds(lambda: unet(latents, 1, prompt).sample, device)


def _seconds(run, device, repeats: int = 3) -> float:
    """Seconds of one `run()`, after two that only warm up."""
    import torch

    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    for count in (2, repeats):
        wait()
        started = time.perf_counter()
        for _ in range(count):
            run()
        wait()
    return (time.perf_counter() - started) / repeats
