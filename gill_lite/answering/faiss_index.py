"""The image index in FAISS, for more pictures than memory holds: a file, searched as it lies.

Optional (`pip install "gill-lite[faiss]"`). It stands behind the methods of `ImageIndex`. Exact by
default: it gives that index's hits, of which rows with equal scores may be others. In lists
(FAISS's IVF) it looks at a sixteenth of them alone, so that hits can be missed.
"""

from pathlib import Path

import torch
from torch import Tensor

from gill_lite.answering.index import CHUNK, Hits, ImageIndex, read_index, unit_rows
from gill_lite.errors import GillError
from gill_lite.files import whole_file

FAISS = "index.faiss"  # beside the embeddings and ids that it is made of
TRAINING = 64  # rows a list that the lists are found with; FAISS asks for 39 at least
PART = 16  # one list of so many is looked at


class FaissIndex(ImageIndex):
    """An `ImageIndex` that FAISS searches, on the CPU.

    searcher: of FAISS, filled already; without one it is made here, exact or in `lists`.
    """

    def __init__(self, embeddings: Tensor, ids, folder=None, searcher=None, lists: int = 0):
        super().__init__(embeddings, ids, folder)
        self.searcher = searcher or _searcher(embeddings, lists)

    def save(self, directory) -> Path:
        """Write embeddings and ids as `ImageIndex` does, and the file that is searched."""
        super().save(directory)
        self.write(directory)
        return Path(directory)

    def write(self, directory) -> None:
        """Write the file that is searched into the folder of an index, whole or not at all."""
        with whole_file(Path(directory) / FAISS) as temporary:
            _faiss().write_index(self.searcher, str(temporary))

    @classmethod
    def load(cls, directory) -> "FaissIndex":
        """Read what `save` wrote; the file is mapped into memory and read where it is touched."""
        ids, embeddings, _, folder = read_index(directory)
        faiss, path = _faiss(), Path(directory) / FAISS
        try:
            searcher = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise GillError(
                f"{path} is missing or broken; make it again with `gill-lite index --faiss`, or "
                "remove it"
            ) from error
        if (searcher.ntotal, searcher.d) != tuple(embeddings.shape):
            raise GillError(f"{path} is not of the embeddings beside it; make it again")
        return cls(embeddings, ids, folder, searcher)

    def to(self, device) -> "FaissIndex":
        """The same: it searches on the CPU, wherever the queries are."""
        return self

    def search(self, queries: Tensor, k: int = 1, exclude=None, chunk: int | None = None) -> Hits:
        """See `ImageIndex.search`. In lists a query may have fewer than k hits."""
        self._check(queries, k, exclude)
        hidden = self._rows_of(exclude or [[]] * len(queries))
        most = min(len(self), k + max(map(len, hidden), default=0))
        unit = unit_rows(queries.cpu().float(), "query")  # (B, P)
        scores, rows = map(torch.from_numpy, self.searcher.search(unit.numpy(), most))  # (B, most)
        for found, own, out in zip(rows, scores, hidden, strict=True):
            own[torch.isin(found, torch.tensor([-1, *out]))] = -torch.inf  # -1: nothing more
        rows, order = rows.sort(dim=1)  # among equal scores the order of the index
        scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
        scores, rows = scores[:, :k], rows.gather(1, order)[:, :k]
        return Hits(scores, rows, self._names(scores, rows))


def add_faiss(directory, lists: int = 0) -> None:
    """Make the index in a folder, our own or converted, one that FAISS searches.

    Takes twice the embeddings' memory. Raises GillError where there are too few for `lists`.
    """
    index = ImageIndex.load(directory)
    FaissIndex(index.embeddings, index.ids, index.folder, lists=lists).write(directory)


def _searcher(embeddings: Tensor, lists: int):
    """FAISS's index of unit rows (N, P) in their own precision, filled a chunk at a time."""
    faiss = _faiss()
    count, width = embeddings.shape
    if lists > count:
        raise GillError(f"{lists} lists are too many for {count} pictures; a list needs some")
    kind = "SQfp16" if embeddings.dtype == torch.float16 else "Flat"
    made = f"IVF{lists},{kind}" if lists else kind
    searcher = faiss.index_factory(width, made, faiss.METRIC_INNER_PRODUCT)
    if lists:
        searcher.by_residual = False  # numbers are kept as they are
        searcher.nprobe = max(1, lists // PART)
        some = torch.linspace(0, count - 1, min(count, TRAINING * lists)).long()
        searcher.train(embeddings[some].float().numpy())
    for rows in embeddings.split(CHUNK):
        searcher.add(rows.float().numpy())
    return searcher


def _faiss():
    try:
        import faiss
    except ImportError as error:
        raise GillError(
            f"an index with a file {FAISS} needs FAISS; install it with "
            f"`pip install 'gill-lite[faiss]'`, or remove the file"
        ) from error
    return faiss
