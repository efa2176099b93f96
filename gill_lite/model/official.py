"""The files of an official GILL model folder, read without running what is in them.

`model_args.json`; `pretrained_ckpt.pth.tar` and `decision_model.pth.tar`, files of torch.save
that hold tensors alone; `cc3m*.npy` or `.pkl`, image embeddings as a Python pickle.
Axes: R [IMG] tokens, D LM width, N images, P retrieval width.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gill_lite.errors import GillError
from gill_lite.files import read_json, refuse_pointer
from gill_lite.model.config import GillConfig

ARGS, WEIGHTS, DECISION = "model_args.json", "pretrained_ckpt.pth.tar", "decision_model.pth.tar"
EMBEDDINGS = ("cc3m*.npy", "cc3m*.pkl")  # as released; as scripts/extract_img_embs.py writes
CHUNK = 65_536  # embeddings looked at together

# Official name, or its beginning -> ours. Order matters: the first that fits is taken.
NAMES = (
    ("model.input_embeddings.weight", "img_embeddings"),
    ("model.logit_scale", "logit_scale"),
    ("model.ret_text_hidden_fcs.0.model.", "ret_head."),
    ("model.visual_embeddings.", "visual_embeddings."),
    ("model.visual_fc.", "visual_fc."),
    ("model.gen_text_hidden_fcs.0.query_embs", "mapper.queries"),
    ("model.gen_text_hidden_fcs.0.fc.", "mapper.project_in."),
    ("model.gen_text_hidden_fcs.0.tfm.", "mapper.transformer."),
    ("model.gen_text_hidden_fcs.0.model.", "mapper.project_out."),
)
LINEAR_NAMES = (("model.gen_text_hidden_fcs.0.model.", "mapper.project."),)
FROZEN = ("model.lm.", "model.visual_model.")

KINDS = {"gill_mapper": "gill", "linear": "linear"}  # text_fc_mode -> our mapper
# What the official code holds fixed, and what it writes down but knows one value of.
FIXED = {"prompt_width": 768, "has_bos": True}
FIXED_MAPPER = {"mapper_width": 512, "mapper_layers": 4, "mapper_heads": 4, "mapper_ffn": 2048}
ALWAYS = {"text_emb_layers": [-1], "ret_text_fc_mode": "linear", "share_ret_gen": True}
SIZES = ("num_tokens", "num_clip_tokens", "gen_emb_dim", "ret_emb_dim", "n_visual_tokens")


class OfficialModel(NamedTuple):
    """What an official folder says of its model, not checked against any sizes yet."""

    config: GillConfig
    args: dict  # model_args.json as it stands
    state: dict[str, Tensor]  # names begin with `model.`; the embedding has R rows
    source: Path  # the weight file


def read_model(directory: Path) -> OfficialModel:
    """The official model in `directory`; GillError names a file that is missing or not one."""
    args = read_json(directory / ARGS, "the official model's arguments")
    config, path = official_config(args, directory / ARGS), directory / WEIGHTS
    return OfficialModel(config, args, plain_state(read_state(path), config, path), path)


# Arguments ----------------------------------------------------------------------------


def official_config(args: dict, source: Path) -> GillConfig:
    """Our configuration for an official `model_args.json`."""
    if "num_gen_tokens" in args and args.get("num_ret_tokens") == args["num_gen_tokens"]:
        args = {"num_tokens": args["num_gen_tokens"], **args}  # as the first release says it
    needed = {*SIZES, "retrieval_token_idx", "gen_token_idx", "text_fc_mode"}
    if missing := sorted(needed - args.keys()):
        raise GillError(f"{source} lacks {', '.join(missing)}; it must be the official file")
    known: dict[str, list] = {
        "text_fc_mode": list(KINDS),
        **{name: [value] for name, value in ALWAYS.items()},
    }
    for name, values in known.items():
        if name in args and args[name] not in values:
            raise GillError(f"{source}: {name}={args[name]!r} is not supported, only {values}")
    if wrong := [name for name in SIZES if type(args[name]) is not int or args[name] < 1]:
        raise GillError(f"{source}: {', '.join(wrong)} must be whole numbers above 0")
    ids = args["retrieval_token_idx"]
    if ids != args["gen_token_idx"]:
        raise GillError(f"{source}: retrieval and generation must share their [IMG] tokens")
    if not isinstance(ids, list) or not ids or any(type(i) is not int for i in ids):
        raise GillError(f"{source}: retrieval_token_idx must be a list of token ids, not {ids!r}")
    width = args["gen_emb_dim"]
    if args["text_fc_mode"] == "linear":  # there it counts the numbers each [IMG] token gives
        width = width * args["num_tokens"] // args["num_clip_tokens"]
    return GillConfig(
        img_token_ids=tuple(ids),
        prompt_width=width,
        num_visual_tokens=args["n_visual_tokens"],
        num_img_tokens=args["num_tokens"],
        ret_dim=args["ret_emb_dim"],
        prompt_slots=args["num_clip_tokens"],
        mapper=KINDS[args["text_fc_mode"]],
    )


def official_args(config: GillConfig, known: dict) -> dict:
    """`model_args.json` for `config`; `known` brings what it says beside the sizes.

    Raises GillError where the official code cannot build such a model.
    """
    modes = {ours: theirs for theirs, ours in KINDS.items()}
    if config.mapper not in modes:
        raise GillError(f"the official model has no mapper '{config.mapper}'")
    fixed = FIXED | (FIXED_MAPPER if config.mapper == "gill" else {})
    wrong = {name: value for name, value in fixed.items() if getattr(config, name) != value}
    if wrong:
        listed = ", ".join(f"{n}={getattr(config, n)} (must be {v})" for n, v in wrong.items())
        raise GillError(f"the official code cannot build this model: {listed}")
    width, ids = config.prompt_width, list(config.img_token_ids)
    if config.mapper == "linear":
        width = width * config.prompt_slots // config.num_img_tokens
    sizes = (config.num_img_tokens, config.prompt_slots, width, config.ret_dim)
    return {
        **{"freeze_lm": True, "freeze_vm": True, **known, **ALWAYS},
        **dict(zip(SIZES, (*sizes, config.num_visual_tokens))),
        **{"text_fc_mode": modes[config.mapper], "retrieval_token_idx": ids, "gen_token_idx": ids},
    }


# Weights ------------------------------------------------------------------------------


def read_state(path: Path, what: str = "official checkpoint") -> dict[str, Tensor]:
    """The tensors under `state_dict` of a file of torch.save; code in it is never run."""
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise GillError(f"{what} {path} is missing; `gill-lite fetch gill` brings it") from error
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        refuse_pointer(path)
        raise GillError(
            f"{what} {path} is no weight file: it is damaged, or holds Python objects beside "
            "tensors, which are refused and were not run; restore the pruned official file"
        ) from error
    state = record.get("state_dict") if isinstance(record, dict) else None
    if not isinstance(state, Mapping):
        raise GillError(f"{what} {path} holds no 'state_dict'; it must be the official file")
    good = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if odd := sorted(str(name) for name in state.keys() - good.keys()):
        raise GillError(f"{what} {path} must hold named tensors alone, but has {', '.join(odd)}")
    return good


def plain_state(state: dict[str, Tensor], config: GillConfig, source: Path) -> dict[str, Tensor]:
    """Names without `module.` (a `model.x` beside it wins), and the [IMG] rows alone.

    An embedding that ends with the [IMG] rows, as before pruning, is cut to them; a file with
    the frozen models in it is refused.
    """
    frozen = [name for name in state if name.removeprefix("module.").startswith(FROZEN)]
    if frozen:
        raise GillError(
            f"{source} holds {len(frozen)} tensors of the frozen models, {frozen[0]} for one; "
            "prune it to the learned ones with the official scripts/prune_model_ckpt.py"
        )
    by_length = sorted(state, key=len, reverse=True)
    plain = {name.removeprefix("module."): state[name] for name in by_length}
    name, ids = NAMES[0][0], config.img_token_ids
    if name in plain and plain[name].dim() == 2 and len(plain[name]) == ids[-1] + 1:
        plain[name] = plain[name][ids[0] :].clone()
    return plain


def pairs(mapper: str) -> tuple[tuple[str, str], ...]:
    """Pairs (official beginning, our beginning) of the names for a mapper kind."""
    return (LINEAR_NAMES if mapper == "linear" else ()) + NAMES


def under_official_names(joints: dict, mapper: str) -> dict:
    """Our names -> the official ones, whatever stands under them."""
    return {official_name(name, mapper): value for name, value in joints.items()}


def official_name(name: str, mapper: str) -> str:
    """The official name of one of our joints; GillError for a mapper of our own."""
    for theirs, ours in pairs(mapper):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise GillError(f"the official model has no mapper '{mapper}' (no name for {name})")


def take_joints(model: OfficialModel, shapes: Mapping) -> dict[str, Tensor]:
    """The official tensors under our names; `shapes` says what must be there (ours -> shape).

    One GillError lists unknown, missing and wrongly shaped names, as the file has them.
    """
    theirs = under_official_names({name: name for name in shapes}, model.config.mapper)
    expected = {name: shapes[ours] for name, ours in theirs.items()}
    if faults := misfits(model.state, expected):
        raise GillError(f"{model.source} does not fit this model: {'; '.join(faults)}")
    return {ours: model.state[name] for name, ours in theirs.items()}


def widths(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """D and CLIP's width as the tensors have them; 1 where no tensor tells."""
    tell = (
        ("model.ret_text_hidden_fcs.0.model.weight", "model.input_embeddings.weight"),
        ("model.visual_fc.weight", "model.visual_embeddings.weight"),
    )
    found = [[state[name] for name in names if name in state] for names in tell]
    first, second = (next((t.shape[1] for t in ts if t.dim() == 2), 1) for ts in found)
    return first, second


def misfits(tensors: Mapping[str, Tensor], shapes: Mapping) -> list[str]:
    """What of `tensors` is missing, unknown or not of its shape, sorted."""
    faults = [f"missing {name}" for name in shapes if name not in tensors]
    faults += [f"unknown {name}" for name in tensors if name not in shapes]
    faults += [
        f"{name} is {tuple(tensors[name].shape)} but must be {tuple(shape)}"
        for name, shape in shapes.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    return sorted(faults)


# Image embeddings ---------------------------------------------------------------------


def embedding_files(directory: Path, trust_pickle: bool) -> list[Path]:
    """The EMBEDDINGS of a folder, by name. GillError if there are any and none is trusted."""
    files = sorted(path for pattern in EMBEDDINGS for path in directory.glob(pattern))
    if files and not trust_pickle:
        raise GillError(
            f"{files[0]} holds the embeddings of the images to retrieve as a Python pickle, which "
            "can run any code when it is opened; if you trust where it comes from, say "
            "trust_pickle=True (--trust-pickle), else move it out of the folder"
        )
    return files


def read_embeddings(path: Path) -> tuple[list[str], np.ndarray]:
    """Image names (N) and embeddings (N, P) of ONE TRUSTED pickle, in their own precision.

    bfloat16, which numpy lacks, becomes float32. Raises GillError for anything else than a dict
    of `paths` and as many `embeddings`, each with a direction.
    """
    try:
        record = np.load(path, allow_pickle=True)  # a plain pickle, too
        record = record.item() if isinstance(record, np.ndarray) else record
        names, rows = list(record["paths"]), _array(record["embeddings"])
    except Exception as error:  # a pickle can raise whatever it likes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise GillError(
            f"{path} is no pickled dict of 'paths' and 'embeddings' ({reason}); restore it"
        ) from error
    if not all(isinstance(name, str) for name in names):
        raise GillError(f"{path}: 'paths' must be texts; the file is not the official one")
    if rows.ndim != 2 or len(rows) != len(names) or not np.issubdtype(rows.dtype, np.floating):
        raise GillError(
            f"{path} must hold one embedding (N, P) for each of its {len(names)} paths, not "
            f"{rows.dtype} of shape {rows.shape}"
        )
    for start in range(0, len(rows), CHUNK):
        norms = np.linalg.norm(rows[start : start + CHUNK].astype(np.float32), axis=1)
        if (bad := np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))).size:
            raise GillError(f"{path}: embedding {start + bad[0]} is zero or not finite")
    return names, rows


def _array(rows) -> np.ndarray:
    if isinstance(rows, Tensor):
        return (rows.float() if rows.dtype == torch.bfloat16 else rows).detach().cpu().numpy()
    if isinstance(rows, np.ndarray) and rows.dtype != object:
        return rows
    return np.stack([_array(row) for row in rows])


def read_names(path: Path) -> Iterator[str]:
    """The image names of an `ids.jsonl`, a JSON text a line, one after another."""
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["id"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GillError(
            f"image index {path} is missing or broken; convert the official model again"
        ) from error
