"""The frozen models, by profile. The only file that loads through transformers and diffusers.

Weights come from safetensors files alone, and no code of a model's repository is ever run.
"""

import hashlib
import inspect
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gill_lite.errors import GillError
from gill_lite.files import DATA, read_json, refuse_pointer, restoring, sha256, shipped
from gill_lite.profiles import DOWNLOADS, PAPER, REVISIONS, Profile

FETCH = {"lm": "opt", "vision": "clip", "diffusion": "sd"}  # what `gill-lite fetch` calls them
QUANTIZE = ("none", "8bit", "4bit")
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # short names
LM_TAKES = ("inputs_embeds", "attention_mask", "position_ids", "past_key_values", "use_cache")


@dataclass
class Backbones:
    """What GILL stands on; every weight is frozen and in evaluation mode."""

    profile: Profile
    tokenizer: Any  # of the language model
    lm: Any  # a causal LM: OPT, or another that `check_lm` lets pass
    vision: Any  # CLIPModel
    image_processor: Any  # CLIPImageProcessor
    pipeline: Any  # StableDiffusionPipeline; brings its own tokenizer and text encoder


def load_backbones(
    profile: Profile, device="cpu", dtype=None, *, quantize: str = "none",
    lm=None, vision=None, diffusion=None, fast_drawing: bool = False,
) -> Backbones:  # fmt: skip
    """Load the frozen models of `profile` onto `device`.

    profile: MINI reads data/mini and checks every file's sha256; PAPER reads the Hugging Face
    cache or hub at pinned revisions.
    dtype: torch dtype or its name; float32 by default, bfloat16 where the LM is quantised.
    quantize: "8bit" or "4bit" (NF4) loads the LM's linear layers so, through bitsandbytes.
    lm, vision, diffusion: hub ids or local folders to take instead of the profile's.
    fast_drawing: see `fast_drawing.speed_up`.
    Raises GillError for a missing or tampered file, naming it and the mend, and for a model
    that the joints cannot stand on.
    """
    chosen = {"lm": lm, "vision": vision, "diffusion": diffusion}
    chosen = {what: str(name) for what, name in chosen.items() if name is not None}
    where = {what: getattr(profile, what) for what in FETCH}
    if profile.name == "mini":
        directory = shipped("mini")
        check_files(directory)
        where = {what: str(directory / name) for what, name in where.items()}
    options = _lm_options(quantize, dtype)
    backbones = Backbones(profile.replace(**chosen), *_load_models(where | chosen, options, device))
    if fast_drawing:
        from gill_lite.model.fast_drawing import speed_up

        speed_up(backbones.pipeline)
    return backbones


def with_lm(backbones: Backbones, folder: Path) -> Backbones:
    """The same backbones around another language model of the mini world, from data/lms.

    Its files are checked against the manifest beside its folder; errors as in `load_backbones`.
    """
    check_files(folder.parent)
    options = {"dtype": backbones.lm.dtype}
    tokenizer, lm = _load_lm({"lm": str(folder)}, options, backbones.lm.device)
    name = folder.relative_to(DATA) if folder.is_relative_to(DATA) else folder
    profile = backbones.profile.replace(lm=name.as_posix())  # no folder of one machine
    return replace(backbones, profile=profile, lm=lm, tokenizer=tokenizer)


def fingerprint(backbones: Backbones) -> str:
    """A hash that changes with the backbones' weights (the first numbers of each tensor)."""
    digest = hashlib.sha256()
    for module in (backbones.lm, backbones.vision, backbones.pipeline.text_encoder):
        for name, value in module.state_dict().items():
            head = value.detach().flatten()[:1024].double().cpu()
            digest.update(name.encode() + head.numpy().tobytes())
    return digest.hexdigest()[:16]


def _lm_options(quantize: str, dtype) -> dict:
    """What from_pretrained takes for the LM; its dtype is that of all models."""
    import torch

    if quantize not in QUANTIZE:
        raise GillError(f"quantize must be one of {', '.join(QUANTIZE)}, not {quantize!r}")
    dtype = dtype or ("float32" if quantize == "none" else "bfloat16")
    if isinstance(dtype, str):
        dtype = getattr(torch, DTYPES.get(dtype, dtype), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise GillError(f"dtype must be {', '.join(DTYPES)}, a torch dtype or its name")
    if quantize == "none":
        return {"dtype": dtype}
    if find_spec("bitsandbytes") is None:
        raise GillError(
            f"quantize='{quantize}' needs the package bitsandbytes; `pip install bitsandbytes`, "
            "or load the LM with dtype='bf16'"
        )
    from transformers import BitsAndBytesConfig

    kind = {"load_in_8bit": True} if quantize == "8bit" else {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype,
    }  # fmt: skip
    return {"dtype": dtype, "quantization_config": BitsAndBytesConfig(**kind)}


def _load_models(where: dict, lm_options: dict, device) -> tuple:
    from diffusers.utils import logging as diffusers_logging
    from transformers import CLIPImageProcessor, CLIPModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # a bar for each shard of a tiny model is noise
    diffusers_logging.disable_progress_bar()
    dtype = lm_options["dtype"]
    tokenizer, lm = _load_lm(where, lm_options, device)
    vision = _whole(CLIPModel, "vision", where, dtype=dtype).to(device)
    processor = _named(CLIPImageProcessor.from_pretrained, "vision", where)
    pipeline = _load_pipeline(where, dtype).to(device)
    for module in (vision, pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.eval().requires_grad_(False)
    return tokenizer, lm, vision, processor, pipeline


def _load_lm(where: dict, options: dict, device) -> tuple:
    """Tokenizer and language model; GillError where the joints cannot stand on them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantised = "quantization_config" in options
    placed = {"device_map": {"": device}} if quantised else {}
    tokenizer = _named(AutoTokenizer.from_pretrained, "lm", where, trust_remote_code=False)
    lm = _whole(AutoModelForCausalLM, "lm", where, trust_remote_code=False, **options, **placed)
    lm.eval().requires_grad_(False)
    if not quantised:
        lm.to(device)
    check_lm(lm, tokenizer, where["lm"])
    return tokenizer, lm


@contextmanager
def arguments_by_their_old_names():
    """Diffusers is given, or gives the hub's library, arguments that newer ones warn of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument", UserWarning)
        yield


def _load_pipeline(where: dict, dtype):
    from diffusers import StableDiffusionPipeline

    with arguments_by_their_old_names():
        index = _named(StableDiffusionPipeline.load_config, "diffusion", where)
    kind = index.get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise GillError(
            f"the generator '{where['diffusion']}' is a {kind}; GILL's mapper gives one sequence "
            "of prompt embeddings, so take a Stable Diffusion 1.x or 2.x (StableDiffusionPipeline)"
        )
    with arguments_by_their_old_names():
        pipeline = _named(
            StableDiffusionPipeline.from_pretrained, "diffusion", where, torch_dtype=dtype,
            use_safetensors=True, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _whole(kind, what: str, where: dict, **options):
    """A model none of whose weights is missing: from_pretrained would draw them at random."""
    model, found = _named(
        kind.from_pretrained, what, where, use_safetensors=True, output_loading_info=True, **options
    )
    if missing := sorted(found["missing_keys"]):
        raise GillError(
            f"the {what} weights '{where[what]}' lack {len(missing)} of the tensors that a "
            f"{type(model).__name__} needs, the first is {missing[0]}; take a whole checkpoint"
        )
    return model


def _named(load, what: str, where: dict, **options):
    """Call a from_pretrained; what goes wrong with files becomes one sentence."""
    from safetensors import SafetensorError

    name = where[what]
    try:
        if name in REVISIONS:
            options["revision"] = REVISIONS[name]
            with suppress(OSError, ValueError):  # a whole cache is read without asking the hub
                return load(name, local_files_only=True, **options)
        return load(name, **options)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        refuse_pointer(name)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise GillError(
            f"the {what} weights '{name}' cannot be loaded ({reason}); {_mend(what, name)}"
        ) from error


def _mend(what: str, name: str) -> str:
    if name == getattr(PAPER, what):
        brings = f"`gill-lite fetch {FETCH[what]}` brings them ({DOWNLOADS[name] / 1000:.1f} GB)"
        return f"{brings} or tells what is in the way; --profile mini needs no download"
    if Path(name).exists():
        return "check that the folder holds the configuration and safetensors files"
    return "give a hub id that this machine can reach, or a local folder"


def check_lm(lm, tokenizer, name: str) -> None:
    """GillError, in one sentence, where the joints cannot stand on this causal LM.

    They feed it embeddings and positions, compute logits from its last hidden states and its
    output rows, and pad with its tokenizer's pad or end-of-sequence id.
    """
    takes = inspect.signature(lm.base_model.forward).parameters
    if lacks := [argument for argument in LM_TAKES if argument not in takes]:
        fault = f"does not take {', '.join(lacks)}"
    elif tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        fault = "has a tokenizer with neither a pad nor an end-of-sequence token"
    else:
        fault = _computes_otherwise(lm)
    if fault:
        raise GillError(
            f"the language model '{name}' ({type(lm).__name__}) {fault}, which GILL's joints "
            "need; take an OPT, Llama, Qwen or a model built alike"
        )


def _computes_otherwise(lm) -> str:
    """What of the LM's way from ids to logits is not ours; empty if it is the same."""
    import torch
    from torch.nn.functional import linear

    table, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    if head is None:
        return "has no output rows"
    ids = torch.arange(min(8, table.num_embeddings), device=table.weight.device)[None]  # (1, 8)
    slack = 1e-4 if table.weight.dtype == torch.float32 else 1e-2
    with torch.no_grad():
        rows, logits = table(ids), lm(input_ids=ids).logits
        states = lm.base_model(inputs_embeds=rows, use_cache=False).last_hidden_state
        if states.shape[-1] != rows.shape[-1]:
            return "has hidden states of another width than its embeddings"
        ours = linear(states, head.weight, head.bias)
    if not torch.equal(rows, table.weight[ids]):
        return "scales its embeddings, and does not read them as they are stored"
    if (ours - logits).abs().max() > slack * logits.abs().max():
        return "scales or caps its logits, and does not compute them from states and rows alone"
    return ""


def prompt_width(pipeline, slots: int) -> int:
    """E of a Stable Diffusion 1.x (768) or 2.x (1024) pipeline.

    Raises GillError for a generator that one sequence (B, `slots`, E) does not condition.
    """
    kind = type(pipeline).__name__
    if getattr(pipeline, "text_encoder_2", None) is not None:
        raise GillError(
            f"a {kind} reads two text encoders and a pooled embedding, and GILL's mapper gives one "
            "sequence; take a Stable Diffusion 1.x or 2.x"
        )
    width = pipeline.text_encoder.config.hidden_size
    read, length = pipeline.unet.config.cross_attention_dim, pipeline.tokenizer.model_max_length
    if (read, length) != (width, slots):
        raise GillError(
            f"the {kind}'s text encoder gives {length} slots of width {width}, but its denoiser "
            f"reads width {read} and the profile has {slots} slots; they must be the same"
        )
    return width


def check_files(directory: Path) -> dict:
    """Compare every file of the manifest with its sha256; returns the manifest.

    Raises GillError naming the first file that is missing or differs.
    """
    manifest = read_json(directory / "manifest.json", "weights manifest")
    for name, about in manifest["files"].items():
        path, mend = directory / name, f"restore it with {restoring(directory, name)}"
        if not path.is_file():
            raise GillError(f"weight file {path} is missing; {mend}")
        refuse_pointer(path)
        if path.stat().st_size != about["bytes"] or sha256(path) != about["sha256"]:
            raise GillError(
                f"weight file {path} is not the one the manifest describes (sha256 differs); {mend}"
            )
    return manifest
