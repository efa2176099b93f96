"""Exact image index: build, save, search. One matrix product, cut into chunks (paper §3.2).

An approximate index (FAISS, say) would stand behind the same three methods.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from gill_lite import official
from gill_lite.checkpoint import ABOUT
from gill_lite.errors import GillError
from gill_lite.files import read_json, write_json

INDEX = "index"  # the index's folder in a folder of ours
EMBEDDINGS, IDS, LONG_IDS = "embeddings.safetensors", "ids.json", "ids.jsonl"
CHUNK = 65_536  # rows of the index a product touches at once


class Hits(NamedTuple):
    """The best k images of each query, best first; equal scores keep the order of the index.

    Where `exclude` leaves fewer than k, ids has fewer and the last scores are -inf.
    """

    scores: Tensor  # (B, k), cosine
    indices: Tensor  # (B, k), rows of the index
    ids: list[list[str]]  # B lists of image ids


class ImageIndex:
    """Image embeddings of unit length and the ids they belong to."""

    def __init__(self, embeddings: Tensor, ids: list[str]):
        self.embeddings = embeddings  # (N, P), unit length
        self.ids = ids
        self.rows: dict[str, list[int]] = {}
        for row, image_id in enumerate(ids):
            self.rows.setdefault(image_id, []).append(row)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(cls, embeddings: Tensor, ids) -> "ImageIndex":
        """Index `embeddings` (N, P) under `ids` (N strings).

        Raises GillError where the counts differ, nothing is given, or a row has no direction.
        """
        ids = [str(image_id) for image_id in ids]
        if embeddings.ndim != 2 or len(embeddings) != len(ids) or not ids:
            raise GillError(
                f"an index needs embeddings (N, P) and N ids, at least one; got shape "
                f"{tuple(embeddings.shape)} and {len(ids)} ids"
            )
        return cls(_unit(embeddings.detach(), "image embedding"), ids)

    def save(self, directory) -> Path:
        """Write `embeddings.safetensors` and `ids.json` into the folder, whole or not at all."""
        target = Path(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise GillError(f"{target} is there already and not empty; name a new folder")
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            save_file({"embeddings": self.embeddings.contiguous()}, temporary / EMBEDDINGS)
            write_json(temporary / IDS, {"ids": self.ids})
            temporary.chmod(0o755)
            if target.exists():
                target.rmdir()
            temporary.replace(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return target

    @classmethod
    def load(cls, directory) -> "ImageIndex":
        """Read what `save` or `gill-lite convert` wrote. GillError names a broken file."""
        ids, embeddings, unit = read_index(directory)
        return cls(embeddings if unit else _unit_rows(embeddings), ids)

    def search(self, queries: Tensor, k: int = 1, exclude=None, chunk: int = CHUNK) -> Hits:
        """The k nearest images of each query (B, P) by cosine; fewer if the index is smaller.

        exclude: for each query the image ids it must not return (those of its own context).
        Raises GillError where k, the width or a query is wrong.
        """
        self._check(queries, k, exclude)
        precise = torch.promote_types(self.embeddings.dtype, torch.float32)
        queries = _unit(queries.to(self.embeddings.device, precise), "query")  # (B, P)
        scores = queries.new_empty(len(queries), 0)  # (B, up to k)
        indices = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
        for start in range(0, len(self), chunk):
            part = self.embeddings[start : start + chunk].to(precise)  # (chunk, P)
            product = queries @ part.T  # (B, chunk)
            self._mask(product, start, exclude)
            rows = torch.arange(start, start + product.shape[1], device=queries.device)
            scores = torch.cat([scores, product], dim=1)
            indices = torch.cat([indices, rows.expand(len(queries), -1)], dim=1)
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            scores, indices = scores[:, :k], indices.gather(1, order)[:, :k]
        return Hits(scores, indices, self._names(scores, indices))

    def _check(self, queries: Tensor, k: int, exclude) -> None:
        if k < 1:
            raise GillError(f"k must be at least 1, not {k}")
        if queries.ndim != 2 or queries.shape[1] != self.embeddings.shape[1]:
            raise GillError(
                f"queries must have shape (B, {self.embeddings.shape[1]}) like the index, "
                f"not {tuple(queries.shape)}"
            )
        if exclude is not None and len(exclude) != len(queries):
            raise GillError(f"exclude names {len(exclude)} lists for {len(queries)} queries")

    def _mask(self, product: Tensor, start: int, exclude) -> None:
        for query, image_ids in enumerate(exclude or ()):
            for image_id in image_ids:
                for row in self.rows.get(str(image_id), ()):
                    if start <= row < start + product.shape[1]:
                        product[query, row - start] = -torch.inf

    def _names(self, scores: Tensor, indices: Tensor) -> list[list[str]]:
        kept = scores > -torch.inf  # (B, k)
        return [
            [self.ids[i] for i, keep in zip(row, mask, strict=True) if keep]
            for row, mask in zip(indices.tolist(), kept.tolist(), strict=True)
        ]


def load_index(directory, trust_pickle: bool = False) -> ImageIndex | None:
    """The index in a folder of ours or the official model's; None where there is none.

    The official `cc3m*.npy` are pickles: they are opened only with `trust_pickle`, each time
    anew (`gill-lite convert` does it once). Their precision is kept.
    """
    directory = Path(directory)
    if (directory / INDEX).is_dir():
        return ImageIndex.load(directory / INDEX)
    files = official.embedding_files(directory, trust_pickle)
    if not files:
        return None
    names, parts = zip(*(official.read_embeddings(path) for path in files))
    if len({(part.dtype, part.shape[1]) for part in parts}) > 1:
        raise GillError(f"{directory}: the {official.EMBEDDINGS} differ in width or precision")
    embeddings = torch.from_numpy(np.concatenate(parts))  # (N, P)
    return ImageIndex(_unit_rows(embeddings), [name for part in names for name in part])


def read_index(directory) -> tuple[list[str], Tensor, bool]:
    """Ids (N), embeddings (N, P) as they are stored, and whether they have unit length.

    Converted official embeddings are stored as they came, and their ids in `ids.jsonl`.
    """
    path = Path(directory) / EMBEDDINGS
    if (Path(directory) / LONG_IDS).is_file():
        ids = official.read_names(Path(directory) / LONG_IDS)
    else:
        ids = read_json(Path(directory) / IDS, "image index").get("ids")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
            embeddings = file.get_tensor("embeddings")
    except (OSError, SafetensorError, ValueError) as error:
        raise GillError(f"image index {path} is missing or broken; build it again") from error
    if not isinstance(ids, list) or len(ids) != len(embeddings):
        raise GillError(f"image index {directory} has not one id for each embedding")
    return ids, embeddings, about.get("unit_length", True)


def _unit_rows(embeddings: Tensor) -> Tensor:
    """The rows at unit length in their own precision, computed in chunks at least in float32."""
    precise = torch.promote_types(embeddings.dtype, torch.float32)
    out = torch.empty_like(embeddings)
    for start in range(0, len(embeddings), CHUNK):
        rows = embeddings[start : start + CHUNK].to(precise)
        out[start : start + CHUNK] = _unit(rows, "image embedding", start)
    return out


def _unit(vectors: Tensor, what: str, first: int = 0) -> Tensor:
    """Rows at unit length. Raises GillError naming the first that is zero or not finite."""
    norms = vectors.norm(dim=1)  # (N,)
    bad = ~(torch.isfinite(norms) & (norms > 0))
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise GillError(f"{what} {first + row} has length {norms[row]:.3g}; it points nowhere")
    return F.normalize(vectors, dim=1)
