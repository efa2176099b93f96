"""Exact image index: build, save, search. One matrix product, cut into chunks (paper §3.2).

Embeddings in half precision are searched as they lie: a product in half precision names the
rows that can be among the best, and only these are computed in float32. The hits are those of
the whole product, on a CPU and on a GPU; rows that float32 cannot tell apart are ties, which may
fall out otherwise there. `faiss_index` searches more than memory holds, behind the same methods.
Axes: B queries, N images, P retrieval width, c candidates.
"""

import json
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from gill_lite.errors import GillError
from gill_lite.files import read_json, refuse_pointer, whole_folder, write_json
from gill_lite.model import official
from gill_lite.model.checkpoint import ABOUT

INDEX = "index"  # the index's folder in a folder of ours
EMBEDDINGS, IDS, LONG_IDS = "embeddings.safetensors", "ids.json", "ids.jsonl"
CHUNK = 16_384  # rows of the index that are widened at once
FEW = 16  # for so many queries half precision is read as it lies; for more it is worth widening
ROUGH = 2**19  # cosines in half precision that are held at once: few enough to stay in a cache
ROUGH_ON_GPU = 2**28  # there as many as half a GiB holds
# Half precision moves a cosine by less than 2**-10 (the query and the score are rounded; PyTorch
# adds in float32 unless it is told otherwise), and the bound it is held against by as much; four
# times that room is taken.
SLACK = 2**-7


class Hits(NamedTuple):
    """The best k images of each query, best first; equal scores keep the order of the index.

    Where `exclude` leaves fewer than k, ids has fewer and the last scores are -inf.
    """

    scores: Tensor  # (B, k), cosine
    indices: Tensor  # (B, k), rows of the index
    ids: list[list[str]]  # B lists of image ids


class Names(Sequence):
    """Millions of texts, end to end in one block of bytes: a list would take 60 bytes more each."""

    def __init__(self, texts: Iterable[str]):
        self.text, self.ends = bytearray(), array("Q", [0])
        for text in texts:
            self.text += text.encode()
            self.ends.append(len(self.text))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, place):
        place = range(len(self))[place]  # also from behind
        return self.text[self.ends[place] : self.ends[place + 1]].decode()

    def __eq__(self, other) -> bool:
        return list(self) == list(other)


class ImageIndex:
    """Image embeddings of unit length and the ids they belong to."""

    def __init__(self, embeddings: Tensor, ids: Sequence[str], folder=None):
        self.embeddings = embeddings  # (N, P), unit length
        self.ids, self.folder = ids, folder  # in which the ids are files; None: they are not

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(cls, embeddings, ids) -> "ImageIndex":
        """Index `embeddings` (N, P), a tensor or a NumPy array, under `ids` (N strings).

        Raises GillError where the counts differ, nothing is given, or a row has no direction.
        """
        ids = [str(image_id) for image_id in ids]
        if not isinstance(embeddings, Tensor):
            embeddings = torch.tensor(np.asarray(embeddings))
        if not embeddings.is_floating_point():
            embeddings = embeddings.float()
        if embeddings.ndim != 2 or len(embeddings) != len(ids) or not ids:
            raise GillError(
                f"an index needs embeddings (N, P) and N ids, at least one; got shape "
                f"{tuple(embeddings.shape)} and {len(ids)} ids"
            )
        return cls(unit_rows(embeddings.detach(), "image embedding"), ids)

    def save(self, directory) -> Path:
        """Write `embeddings.safetensors` and `ids.json` into the folder, whole or not at all."""
        with whole_folder(directory) as folder:
            save_file({"embeddings": self.embeddings.contiguous()}, folder / EMBEDDINGS)
            where = {"folder": self.folder} if self.folder else {}
            write_json(folder / IDS, {"ids": self.ids, **where})
        return Path(directory)

    @classmethod
    def load(cls, directory) -> "ImageIndex":
        """Read what `save` or `gill-lite convert` wrote. GillError names a broken file."""
        ids, embeddings, unit, folder = read_index(directory)
        return cls(embeddings if unit else _make_unit(embeddings), ids, folder)

    def to(self, device) -> "ImageIndex":
        """The index with its embeddings on `device`, where it searches from then on."""
        return ImageIndex(self.embeddings.to(device), self.ids, self.folder)

    def search(self, queries: Tensor, k: int = 1, exclude=None, chunk: int | None = None) -> Hits:
        """The k nearest images of each query (B, P) by cosine; fewer if the index is smaller.

        exclude: for each query the image ids it must not return (those of its own context).
        chunk: rows looked at together; by default as many as take little memory.
        Raises GillError where k, the width or a query is wrong.
        """
        self._check(queries, k, exclude)
        precise = torch.promote_types(self.embeddings.dtype, torch.float32)
        queries = unit_rows(queries.to(self.embeddings.device, precise), "query")  # (B, P)
        on_gpu = _on_gpu(self.embeddings)
        few = len(queries) > 0 and (on_gpu or len(queries) <= FEW)
        rough = self.embeddings.dtype == torch.float16 and few
        held = ROUGH_ON_GPU if on_gpu else ROUGH
        chunk = chunk or (max(1, held // len(queries)) if rough else CHUNK)
        hidden = self._rows_of(exclude or [])
        scores = queries.new_empty(len(queries), 0)  # (B, up to k)
        indices = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
        for start in range(0, len(self), chunk):
            part = self.embeddings[start : start + chunk]  # (chunk, P)
            product = _half_product(queries, part) if rough else queries @ part.to(precise).T
            _mask(product, start, hidden)  # (B, chunk)
            rows = _candidates(product, scores, k, SLACK if rough else 0)  # (c,)
            found = product[:, rows]  # (B, c)
            if rough:
                found = _exact(queries, part, rows).masked_fill(found == -torch.inf, -torch.inf)
            scores = torch.cat([scores, found], dim=1)
            indices = torch.cat([indices, (rows + start).expand(len(queries), -1)], dim=1)
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

    def _rows_of(self, exclude) -> list[list[int]]:
        """For each query the rows of the image ids it must not return."""
        wanted = {str(image_id) for image_ids in exclude for image_id in image_ids}
        rows: dict[str, list[int]] = {image_id: [] for image_id in wanted}
        for row, image_id in enumerate(self.ids if wanted else ()):
            if image_id in wanted:
                rows[image_id].append(row)
        return [[row for image_id in ids for row in rows[str(image_id)]] for ids in exclude]

    def _names(self, scores: Tensor, indices: Tensor) -> list[list[str]]:
        kept = scores > -torch.inf  # (B, k)
        return [
            [self.ids[i] for i, keep in zip(row, mask, strict=True) if keep]
            for row, mask in zip(indices.tolist(), kept.tolist(), strict=True)
        ]


def _on_gpu(embeddings: Tensor) -> bool:
    return embeddings.device.type != "cpu"


def _half_product(queries: Tensor, part: Tensor) -> Tensor:
    """Cosines (B, chunk) in half precision; on a CPU each query reads the chunk as it lies."""
    if _on_gpu(part):
        return queries.to(part.dtype) @ part.T
    return torch.stack([part @ query for query in queries.to(part.dtype)])


def _exact(queries: Tensor, part: Tensor, rows: Tensor) -> Tensor:
    """Cosines (B, c) of queries in float32 with those rows of `part`, a chunk of them at a time."""
    pieces = [queries @ part[some].to(queries.dtype).T for some in rows.split(CHUNK)]
    return torch.cat(pieces, dim=1)


def _mask(product: Tensor, start: int, hidden: list[list[int]]) -> None:
    """-inf in the columns of (B, chunk) that stand for a query's hidden rows."""
    for query, rows in enumerate(hidden):
        for row in rows:
            if start <= row < start + product.shape[1]:
                product[query, row - start] = -torch.inf


def _candidates(product: Tensor, scores: Tensor, k: int, slack: float) -> Tensor:
    """Columns (c,) of (B, chunk), in order, that some query may have among its best k.

    scores: the best so far (B, up to k). slack: by how much a product may be too small.
    """
    if scores.shape[1] == k:
        least = scores[:, -1:]  # (B, 1)
    else:
        least = product.topk(min(k, product.shape[1])).values[:, -1:]
    return (product >= least - slack).any(dim=0).nonzero()[:, 0]


def load_index(directory, trust_pickle: bool = False) -> ImageIndex | None:
    """The index in a folder of ours or the official model's; None where there is none.

    The official `cc3m*.npy` and `.pkl` are pickles: they are opened only with `trust_pickle`,
    each time anew (`gill-lite convert` does it once). Their precision is kept.
    """
    from gill_lite.answering.faiss_index import FAISS, FaissIndex

    directory = Path(directory)
    if (directory / INDEX).is_dir():
        by_faiss = (directory / INDEX / FAISS).is_file()
        return (FaissIndex if by_faiss else ImageIndex).load(directory / INDEX)
    files = official.embedding_files(directory, trust_pickle)
    if not files:
        return None
    names, parts = zip(*(official.read_embeddings(path) for path in files))
    if len({(part.dtype, part.shape[1]) for part in parts}) > 1:
        raise GillError(
            f"{directory}: the files {', '.join(official.EMBEDDINGS)} differ in width or precision"
        )
    embeddings = torch.from_numpy(np.concatenate(parts))  # (N, P)
    return ImageIndex(_make_unit(embeddings), [name for part in names for name in part])


def read_index(directory) -> tuple[Sequence[str], Tensor, bool, str | None]:
    """Ids (N), embeddings (N, P) as they are stored, whether they have unit length, and the folder
    in which the ids are files.

    Converted official embeddings are stored as they came, and their ids in `ids.jsonl`. The
    tensor is the file itself, read where it is touched; changing it does not change the file.
    """
    path, folder = Path(directory) / EMBEDDINGS, None
    if (Path(directory) / LONG_IDS).is_file():
        ids = Names(official.read_names(Path(directory) / LONG_IDS))
    else:
        record = read_json(Path(directory) / IDS, "image index")
        ids, folder = record.get("ids"), record.get("folder")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
            embeddings = file.get_tensor("embeddings")
    except (OSError, SafetensorError, ValueError) as error:
        refuse_pointer(path)
        raise GillError(
            f"image index {path} is missing or broken; remove its folder, and build it again with "
            "`gill-lite index`"
        ) from error
    if not isinstance(ids, list | Names) or len(ids) != len(embeddings):
        raise GillError(
            f"image index {directory} has not one id for each embedding; build it again"
        )
    return ids, embeddings, about.get("unit_length", True), folder


def _make_unit(embeddings: Tensor) -> Tensor:
    """The rows brought to unit length where they lie, computed in chunks at least in float32."""
    precise = torch.promote_types(embeddings.dtype, torch.float32)
    for start in range(0, len(embeddings), CHUNK):
        rows = embeddings[start : start + CHUNK]
        rows.copy_(unit_rows(rows.to(precise), "image embedding", start))
    return embeddings


def unit_rows(vectors: Tensor, what: str, first: int = 0) -> Tensor:
    """Rows at unit length. Raises GillError naming the first that is zero or not finite."""
    norms = vectors.norm(dim=1)  # (N,)
    bad = ~(torch.isfinite(norms) & (norms > 0))
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise GillError(f"{what} {first + row} has length {norms[row]:.3g}; it points nowhere")
    return F.normalize(vectors, dim=1)
