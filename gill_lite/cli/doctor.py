"""`gill-lite doctor`: what is installed here, are the weights whole, and what can this run?"""

import time
from pathlib import Path
from typing import NamedTuple

from gill_lite.cli.options import add_profile, command
from gill_lite.files import DATA, read_json
from gill_lite.profiles import MINI, PAPER, REVISIONS, get_profile
from gill_lite.provenance import (
    git_commit,
    hardware,
    library_versions,
    peak_memory_mb,
    repository_root,
)

PICTURES = 4  # drawn together to time the mini profile
UNMEASURED = "see below"


def add_doctor(subparsers) -> None:
    """The subcommand and its option."""
    text = "Check this installation. Prints versions, hardware and the state of the weights."
    add_profile(command(subparsers, "doctor", run, text))


def run(arguments) -> None:
    """Print versions, hardware, the state of the profile's weights, and what can run here.

    Raises GillError naming the first weight file that is missing or was changed.
    """
    name = get_profile(arguments.profile).name
    from gill_lite.model.backbones import FETCH, check_files

    facts = library_versions() | hardware() | {"git commit": git_commit(DATA.parent)}
    width = max(map(len, facts))
    for what, value in facts.items():
        print(f"{what:<{width}}  {value}")
    if name == "mini":
        files = check_files(DATA / name)["files"]
        print(f"weights: all {len(files)} files are as the manifest says")
    else:
        for what, word in FETCH.items():
            print(f"weights: {cached(getattr(PAPER, what), word)}")
    print("\nWhat this machine can run (GiB are 2**30 bytes):\n" + table())
    print("\nThe paper's tables, by pictures drawn:", *paper_hours(), sep="\n")


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
    time: str = UNMEASURED


def table() -> str:
    """Needs, means and times of each way to run, for a person."""
    from tabulate import tabulate

    from gill_lite.model.memory import ALLOWANCE, GIB

    rows = [mini_row(), *paper_rows(gpu_memory())]
    cells = [(row.what, f"{row.needs / GIB:.1f}", *row[2:]) for row in rows]
    heads = ("run", "needs GiB", "here", "fits", "time")
    return tabulate(cells, heads, tablefmt="simple") + (
        "\nmini: memory of this process, time of drawing alone. paper: memory from the models' "
        f"shapes, and\n{ALLOWANCE / GIB:.0f} GiB for CUDA itself; training counts the whole batch "
        f"of {PAPER.batch_size} pairs, and takes fewer\nat a time with "
        "--gradient-accumulation-steps. Its times: `python -m benchmarks.paper_scale` measures "
        "them on a GPU."
    )


def mini_row() -> Row:
    """Table 1 of the mini world on this machine's CPU, from one batch of pictures."""
    import psutil

    from gill_lite.evaluation.tables import TABLES
    from gill_lite.model.backbones import load_backbones

    table = TABLES["1"]
    count = sum(map(table.size, table.cells(table.seeds)))
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


def paper_rows(memory: int) -> list[Row]:
    """Training and answering with the paper's models; memory: bytes of the GPU, 0 without one."""
    from gill_lite.model.memory import paper_needs

    here = f"GPU {_gib(memory)}" if memory else "no CUDA GPU"
    rows = []
    for need in paper_needs():
        fits = _yes(need.total <= memory)
        if fits == "no" and (pairs := need.pairs(memory)):
            fits = f"{pairs} pairs at a time"
        rows.append(Row(f"paper, {need.what}", need.total, here, fits))
    return rows


def paper_hours(measures: Path | None = None) -> list[str]:
    """How long Tables 1 and 2 take, whole, a line a card whose drawing was measured.

    measures: what `python -m benchmarks.paper_scale` wrote. Pictures are read and scored while
    others are drawn.
    """
    from gill_lite.datasets.visdial import VAL_DIALOGUES
    from gill_lite.datasets.vist import VAL_STORIES
    from gill_lite.evaluation.tables import TABLES

    path = measures or repository_root() / "results" / "paper_scale.json"
    cards = read_json(path, "measures").get("draw", {}) if path.exists() else {}
    lines = []
    for card, entry in sorted(cards.items()):
        speed = max(row["median"] for row in entry["rows"] if row["unit"] == "images/s")
        for name, count in (("1", VAL_STORIES), ("2", VAL_DIALOGUES)):
            table = TABLES[name].elsewhere()
            each = len(table.cells([0]))
            told = f"all {count:,} {table.task.examples} in {count * each / speed / 3600:.1f} hours"
            lines.append(f"{table.typed} on {card}: {told}, {each} pictures each, {speed:.3g}/s")
    measure = "not measured; `python -m benchmarks.paper_scale --measure draw` does it on a GPU"
    return lines or [measure]


def gpu_memory() -> int:
    """Bytes of the first CUDA GPU, 0 where there is none."""
    import torch

    if not torch.cuda.is_available():
        return 0
    return torch.cuda.get_device_properties(0).total_memory


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _yes(true: bool) -> str:
    return "yes" if true else "no"
