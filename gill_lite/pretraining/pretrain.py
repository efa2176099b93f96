"""`gill-lite pretrain`: the mini world's backbones from scratch, and their manifest.

Each stage keeps its checkpoint in the work folder and goes on from there after a kill. A stage
stops at the end of its schedule; what it reached on held-out data is compared with TARGETS and
written into the manifest, reached or not.
"""

import json
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from gill_lite import provenance
from gill_lite.errors import GillError
from gill_lite.files import only_one, read_json, sha256, tidy, write_json, write_text
from gill_lite.model.backbones import arguments_by_their_old_names
from gill_lite.pretraining.loop import curve
from gill_lite.pretraining.stages import NEEDS, STAGES, TARGETS, side_by_side
from gill_lite.world import telling

AT_ONCE = 2  # stages on a CPU; each takes over 1 GB
JOINS = {  # what a stage brings along where it alone joins weights that are there
    "lm": ("lm",),
    "trunk": ("trunk",),
    "denoiser": ("clip", "denoiser"),  # it reads through this CLIP's text tower
    "glide": ("glide",),
}
SHIPPED = {"clip": "clip", "autoencoder": "diffusion/vae"}  # where weights hold a stage's model
MEASURES = "measures.json"  # of a stage, written when it is whole
MADE = ("steps", "course", "seed", "size", "bfloat16", "world", "device", "command", "git_commit",
        "machine", "seconds", "curve")  # fmt: skip


def run(
    stage=None, output_dir="data/mini", work_dir="runs/pretrain/work", seed: int = 0,
    device: str = "auto", size: str | None = None, command: str = "gill-lite pretrain",
) -> None:  # fmt: skip
    """Train one stage, or all and assemble `output_dir`. Prints each stage's measures.

    One of JOINS joins the weights and the manifest that `output_dir` has already. A language
    model alone makes a folder of its own, where none is there yet. device: "auto" is a GPU where
    there is one. size: of the language model. command: what was typed, for the manifest.
    All stages together train AT_ONCE side by side where a CPU has the cores. Raises GillError for
    an unknown stage, one whose own inputs are not trained yet, and one that another run trains
    in `work_dir`.
    """
    if stage is not None and stage not in STAGES:
        raise GillError(f"unknown stage '{stage}'; the stages are {', '.join(STAGES)}")
    if size and stage not in (None, "lm"):
        raise GillError(f"only the language model comes in sizes, not {stage}; leave --size out")
    work_dir, output_dir = Path(work_dir), Path(output_dir)
    options = {"seed": seed, "device": chosen_device(device)}
    train = partial(_train_and_measure, work_dir, output_dir, options, size, command)
    cores = provenance.usable_cores()
    if stage or cores < AT_ONCE or options["device"] == "cuda":
        made_ones = ((name, train(name)) for name in ([stage] if stage else STAGES))
    else:
        made_ones = side_by_side(STAGES, train, AT_ONCE, threads=cores // AT_ONCE)
    for name, measures in made_ones:
        print(f"{name}: {measures}", flush=True)
    names: tuple[str, ...] = ()
    if all((work_dir / "out" / name / MEASURES).exists() for name in STAGES):
        names = STAGES
    elif stage in JOINS and (output_dir / "manifest.json").exists():
        names = JOINS[stage]
    elif stage == "lm":
        names = (stage,)  # for `train --lm DIR/lm`
    if names:
        with only_one(output_dir, beside=True), _saving(output_dir):
            assemble(work_dir / "out", output_dir, names)


def _train_and_measure(work_dir, output_dir, options: dict, size, command: str, name: str) -> dict:
    """Train a stage, and keep in its folder what it reached and how it was made."""
    out = work_dir / "out" / name
    with only_one(out, beside=True), _saving(out):
        tidy(out, MEASURES)
        options = options | ({"size": size} if name == "lm" and size else {})
        measures = train_stage(name, work_dir, output_dir, options)
        write_json(out / MEASURES, options | made(command, work_dir, name) | measures)
    return measures


def chosen_device(device: str) -> str:
    """The device that "auto" means here, or the one asked for. Raises GillError without a GPU."""
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise GillError("there is no GPU that torch can use; train with --device cpu")
    return ("cuda" if there else "cpu") if device == "auto" else device


def made(command: str, work_dir: Path, stage: str) -> dict:
    """How a stage was made: command, commit, machine, seconds and the curve of its loss."""
    rows, seconds = curve(work_dir, stage)
    return {
        "world": telling.WORLD,
        "command": command,
        "git_commit": provenance.git_commit(provenance.repository_root()),
        "machine": provenance.hardware(),
        "seconds": round(seconds),
        "curve": rows,
    }


@contextmanager
def _saving(folder: Path):
    """What goes wrong with weight files becomes one sentence; OSErrors tell themselves."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        why = f"weights cannot be written to {folder}, or read for it ({error}); free some space"
        raise GillError(f"{why} or restore what is damaged, then run this again") from error


def train_stage(name: str, work_dir: Path, shipped: Path, options: dict) -> dict:
    """Train one stage into work_dir/out/<name>; returns steps and held-out measures.

    shipped: whose CLIP or autoencoder a stage takes where work_dir has none. options: seed, device.
    """
    from gill_lite.pretraining import autoencoder as stage_autoencoder
    from gill_lite.pretraining import clip as stage_clip
    from gill_lite.pretraining import denoiser as stage_denoiser
    from gill_lite.pretraining import glide as stage_glide
    from gill_lite.pretraining import lm as stage_lm
    from gill_lite.pretraining import probes as stage_probes

    stages: dict[str, Callable[..., dict]] = {
        "clip": stage_clip.train,
        "lm": stage_lm.train,
        "autoencoder": stage_autoencoder.train,
        "denoiser": stage_denoiser.train,
        "trunk": stage_probes.train_trunk,
        "probes": stage_probes.train_probes,
        "glide": stage_glide.train,
    }
    folders = [_trained(need, work_dir, shipped, name) for need in NEEDS.get(name, ())]
    out = work_dir / "out" / name
    out.mkdir(parents=True, exist_ok=True)
    return stages[name](work_dir, *folders, out, **options)


def _trained(need: str, work_dir: Path, shipped: Path, stage: str) -> Path:
    """The folder of the model a stage needs. Raises GillError where this world has none."""
    own, there = work_dir / "out" / need, shipped / SHIPPED[need]
    if (own / MEASURES).exists():  # written last
        if read_json(own / MEASURES, "stage measures").get("world") != telling.WORLD:
            mend = f"take another --work-dir and begin there with `gill-lite pretrain {need}`"
            raise GillError(f"{own} is of an older world; {mend}")
        return own
    if (there / "config.json").exists():
        return there
    raise GillError(f"stage {stage} needs `gill-lite pretrain {need}` first")


def assemble(trained: Path, output_dir: Path, names=STAGES) -> dict:
    """Half-precision copies of stages in `output_dir`, measured anew, with their manifest.

    names: the stages to copy; files and entries of others stay as they are there.
    """
    copy_halved(trained, output_dir, names)
    measures = remeasure(output_dir, names=names)
    known = output_dir / "manifest.json"
    new = set(names) == set(STAGES) or not known.exists()
    stages = {} if new else read_json(known, "weights manifest")["stages"]
    for name in names:
        about = read_json(trained / name / MEASURES, "stage measures")
        held_out = measures[name]
        stages[name] = {
            **{key: about[key] for key in MADE if key in about},
            "held_out": held_out,
            "targets": TARGETS[name],
            "missed": {k: held_out[k] for k, goal in TARGETS[name].items() if held_out[k] < goal},
        }
    files = [p for p in output_dir.rglob("*") if p.is_file() and is_weight_file(p, output_dir)]
    manifest = {
        "made_by": "gill-lite pretrain",
        "precision": "float16",
        "stages": stages,
        "files": {
            str(p.relative_to(output_dir)): {"sha256": sha256(p), "bytes": p.stat().st_size}
            for p in sorted(files)
        },
        "libraries": provenance.library_versions(),
    }
    write_json(output_dir / "manifest.json", manifest)
    return manifest


def is_weight_file(path: Path, directory: Path) -> bool:
    """Whether the manifest lists the file: all but itself, pages to read and the joints."""
    first = path.relative_to(directory).parts[0]
    return first not in ("manifest.json", "joints") and path.suffix != ".md"


def copy_halved(trained: Path, output_dir: Path, names=STAGES) -> None:
    """Copy stages as float16, the autoencoder with the denoiser; no file names its old folder."""
    import torch
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, OPTForCausalLM

    from gill_lite.world.glide import Glide

    models = {"lm": OPTForCausalLM, "clip": CLIPModel}
    pipelines = {"denoiser": StableDiffusionPipeline, "glide": Glide}
    for name in names:
        source, target = trained / name, output_dir / {"denoiser": "diffusion"}.get(name, name)
        if name in models:
            models[name].from_pretrained(source, dtype=torch.float16).save_pretrained(target)
            AutoTokenizer.from_pretrained(source).save_pretrained(target)
        if name == "clip":
            CLIPImageProcessor.from_pretrained(source).save_pretrained(target)
        if name in pipelines:
            options: dict = {"safety_checker": None} if name == "denoiser" else {}
            options["torch_dtype"] = torch.float16
            with arguments_by_their_old_names():
                pipeline = pipelines[name].from_pretrained(source, **options)
            pipeline.save_pretrained(target)
            for path in target.rglob("*.json"):
                told = read_json(path, "configuration")
                if told.pop("_name_or_path", None):
                    write_text(path, json.dumps(told, indent=2) + "\n")
        if name in ("probes", "trunk"):
            weights = load_file(source / "model.safetensors")
            target.mkdir(parents=True, exist_ok=True)
            halved = {key: value.half() for key, value in weights.items()}
            save_file(halved, target / "model.safetensors")


def remeasure(directory: Path, count: int = 1000, names=STAGES) -> dict[str, dict]:
    """Held-out measures of the stages `names` on the weights in `directory`, as they ship.

    count: pictures for the probes; the denoiser and GLIDE draw a fifth as many of each split.
    """
    return {name: _remeasure(name, directory, count) for name in names}


def _remeasure(name: str, directory: Path, count: int) -> dict:
    from transformers import AutoTokenizer, CLIPModel, OPTForCausalLM

    from gill_lite.pretraining import autoencoder as stage_autoencoder
    from gill_lite.pretraining import clip as stage_clip
    from gill_lite.pretraining import denoiser as stage_denoiser
    from gill_lite.pretraining import glide as stage_glide
    from gill_lite.pretraining import lm as stage_lm
    from gill_lite.pretraining import probes as stage_probes
    from gill_lite.profiles import MINI
    from gill_lite.world.glide import load_glide
    from gill_lite.world.probes import load_probes

    if name == "clip":
        clip = CLIPModel.from_pretrained(directory / "clip").float().eval()
        return stage_clip.measure(clip, AutoTokenizer.from_pretrained(directory / "clip"))
    if name == "lm":
        lm = OPTForCausalLM.from_pretrained(directory / "lm").float().eval()
        return stage_lm.measure(lm, AutoTokenizer.from_pretrained(directory / "lm"))
    if name == "trunk":
        return {}
    probes = load_probes(directory / "probes")
    if name == "glide":
        return _both_splits(stage_glide.measure, load_glide(directory / "glide"), probes, count)
    pipeline = _pipeline(directory)
    if name == "autoencoder":
        return stage_autoencoder.measure(pipeline.vae)
    if name == "denoiser":
        scale = MINI.guidance_scale  # steps: as many as the recorded measures were taken with
        return _both_splits(stage_denoiser.measure, pipeline, probes, count, guidance_scale=scale)
    again = stage_probes.accuracy(
        probes, count // 2, lambda x: stage_autoencoder.reconstruct(pipeline.vae, x)
    )
    drawn = stage_probes.accuracy(probes, count)
    return {f"drawn_{n}": v for n, v in drawn.items()} | {
        f"autoencoded_{n}": v for n, v in again.items()
    }


def _both_splits(measure, model, probes, count: int, **sampling) -> dict:
    seen, novel = (
        measure(model, probes, split, count // 5, **sampling) for split in ("seen", "novel")
    )
    return seen | novel


def _pipeline(directory: Path):
    import torch
    from diffusers import StableDiffusionPipeline

    with arguments_by_their_old_names():
        pipeline = StableDiffusionPipeline.from_pretrained(
            directory / "diffusion", torch_dtype=torch.float32, safety_checker=None
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
