"""Speed and memory at the paper's size, with random weights: `python -m benchmarks.paper_scale`.

Needs a CUDA GPU and downloads nothing. Writes results/paper_scale.json, and from it the table
of docs/paper_scale.md, which says what is measured.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.paper_scale import scale_table
from benchmarks.paper_scale.scale_table import COMMAND, GIB, KINDS, Settings
from gill_lite.cli.options import Help, positive
from gill_lite.errors import GillError
from gill_lite.files import read_json, read_text
from gill_lite.profiles import PAPER

OPTIONS = {
    "batch_size": "pairs of a training step",
    "gradient_accumulation_steps": "micro-batches of a training step",
    "prompt_tokens": "length of the prompts",
    "new_tokens": "length of the answers",
    "repeats": "runs that are timed",
}


def measure(kinds, settings: Settings, profile, backbones) -> Iterator[tuple[str, list[dict]]]:
    """Each kind with its rows, from these backbones on their device.

    Raises GillError where the GPU's memory does not suffice.
    """
    import torch

    from gill_lite.model.gill import build_gill

    gill = build_gill(profile, backbones)
    measures = {"train": measure_training, "decode": measure_decoding, "draw": measure_drawing,
                "search": measure_search}  # fmt: skip
    for kind in (kind for kind in KINDS if kind in kinds):
        try:
            yield kind, measures[kind](settings, profile, gill, backbones)
        except torch.OutOfMemoryError as error:
            raise GillError(
                f"the GPU's memory does not suffice to measure '{kind}'; take a smaller LM "
                "(--lm-config) or, in training, more --gradient-accumulation-steps"
            ) from error


def measure_training(settings: Settings, profile, gill, backbones) -> list[dict]:
    """Rows of training; of the generator the text encoder alone stays on the device."""
    from benchmarks.paper_scale.speed import train_timing

    profile = profile.replace(batch_size=settings.batch_size)
    parts, micro_batches = backbones.pipeline, settings.gradient_accumulation_steps
    for part in (parts.unet, parts.vae):
        part.to("cpu")
    timing = train_timing(profile, gill, backbones, settings.repeats, micro_batches)
    for part in (parts.unet, parts.vae):
        part.to(gill.logit_scale.device)
    return scale_table.train_rows(settings, timing)


def measure_decoding(settings: Settings, profile, gill, backbones) -> list[dict]:
    """Rows of decoding, all models on the device."""
    from benchmarks.paper_scale.speed import decode_timing
    from gill_lite.answering.fixed_steps import fixed_steps

    rows, sizes = [], (settings.prompt_tokens, settings.new_tokens, settings.repeats)
    fixed = None if settings.plain else fixed_steps(gill)
    for batch in settings.batches:
        timings = decode_timing(gill, batch, *sizes, fixed)
        rows += scale_table.decode_rows(settings, batch, *timings)
    return rows


def measure_drawing(settings: Settings, profile, gill, backbones) -> list[dict]:
    """Rows of drawing, all models on the device."""
    from benchmarks.paper_scale.speed import draw_timing
    from gill_lite.answering.respond import Responder
    from gill_lite.model.fast_drawing import speed_up

    rows, responder = [], Responder(backbones, gill)
    one = partial(draw_timing, responder, 1, 1, warmup=0)
    plain = one().last
    if not settings.plain:
        speed_up(backbones.pipeline)
    for batch in settings.batches:
        timing = draw_timing(responder, batch, settings.repeats)
        rows += scale_table.draw_rows(settings, batch, timing, profile.num_inference_steps)
    return rows + scale_table.rounding_rows(settings, one().last, plain)


def measure_search(settings: Settings, profile, gill, backbones) -> list[dict]:
    """Rows of searching random embeddings in half precision, on the device."""
    from benchmarks.paper_scale.speed import search_timing

    device, sizes = gill.logit_scale.device, (settings.pictures, profile.ret_dim)
    timings = search_timing(*sizes, settings.queries, settings.repeats, device)
    return [
        row
        for count, timing in zip(settings.queries, timings, strict=True)
        for row in scale_table.search_rows(settings, count, timing)
    ]


def paper_backbones(device, lm_config: Path | None = None):
    """The paper's models with random weights in bfloat16; `lm_config` is another LM's file."""
    from benchmarks.paper_scale.random_backbones import PAPER_SHAPES, random_backbones

    shapes = PAPER_SHAPES
    if lm_config is not None:
        shapes = shapes._replace(lm=read_json(lm_config, "LM configuration"))
    return random_backbones(PAPER, device, shapes=shapes)


def about(started: float, command: str, device, lm) -> dict:
    """Where the numbers come from, JSON-ready."""
    import torch

    from gill_lite.model.memory import parameters
    from gill_lite.provenance import collect

    facts = collect(started, "paper", command) | {"cuda": torch.version.cuda, "machine": "CPU"}
    facts["lm"] = f"random {type(lm).__name__} of {parameters(lm) / 1e9:.2f} B parameters"
    if torch.device(device).type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        facts |= {"machine": gpu.name, "gpu_memory_gib": round(gpu.total_memory / GIB, 1)}
    return facts


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    from gill_lite.provenance import repository_root

    root = repository_root()
    text = __doc__.split("\n\n")[1]
    parser = argparse.ArgumentParser(prog=COMMAND, formatter_class=Help, description=text)
    parser.add_argument("--measure", choices=KINDS, nargs="+", default=None, help="default: all")
    for name, text in OPTIONS.items():
        option, default = "--" + name.replace("_", "-"), getattr(Settings, name)
        parser.add_argument(option, type=positive, metavar="N", default=default, help=text)
    text = "measure the plain decoding and drawing, which the fast ones are held against"
    parser.add_argument("--plain", action="store_true", help=text)
    parser.add_argument(
        "--lm-config",
        type=Path,
        metavar="FILE",
        default=None,
        help="config.json of an LM to take instead of OPT-6.7B",
    )
    output, doc = root / "results" / "paper_scale.json", root / "docs" / "paper_scale.md"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", default=output, help="JSON")
    parser.add_argument("--doc", type=Path, metavar="FILE", default=doc, help="page with the table")
    return parser


def gpu():
    """The torch device to measure on. GillError without a GPU."""
    import torch

    if not torch.cuda.is_available():
        raise GillError(
            "there is no CUDA GPU here, so nothing was measured and nothing written; run the same "
            "command on a machine that has one"
        )
    return torch.device("cuda")


def run(arguments: argparse.Namespace, command: str) -> None:
    """Measure on the GPU, write after each measure, print the table."""
    settings = Settings(
        **{name: getattr(arguments, name) for name in OPTIONS},
        papers=arguments.lm_config is None,
        plain=arguments.plain,
    )
    started, device = time.time(), gpu()
    output, doc = arguments.output, arguments.doc
    known = scale_table.known_measures(output)
    scale_table.with_table(read_text(doc, "page"), known, doc)  # fails before the measures
    backbones = paper_backbones(device, arguments.lm_config)
    for kind, rows in measure(arguments.measure or KINDS, settings, PAPER, backbones):
        facts = about(started, command, device, backbones.lm) | {"plain": settings.plain}
        scale_table.write(kind, rows, facts, output, doc)
    print(f"{scale_table.table(scale_table.known_measures(output))}\n\nwritten: {output}, {doc}")


def main(argv: list[str] | None = None) -> int:
    """Run it. Returns the exit status: 0, or 2 for bad input and where there is no GPU."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        run(build_parser().parse_args(argv), shlex.join([*COMMAND.split(), *argv]))
    except GillError as error:
        print(f"paper_scale: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
