"""A content-addressed cache of what a sampler made, so that a picture is drawn once.

What is kept is the sampler's own output, a latent in float32 or the run's dtype (4 KB in the
mini world), not the picture: decoding takes a twentieth of the time, and a score from the cache
equals a fresh one to the last digit, which 8-bit pixels would not give (CLIP similarity and
LPIPS then move by 0.001). The key is made of all the sampler reads, so changed code or weights
before it change the key, and nothing wrong is ever found; see `drawers.Drawer.keys`.
"""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from gill_lite.files import write_bytes
from gill_lite.provenance import own_folder

DIGEST = "sha256"


def default_cache() -> Path:
    """Where pictures are that all tables and runs share."""
    return own_folder("cache")


def key_of(**parts) -> str:
    """The hex key of named parts: tensors by dtype, shape and bytes, the rest as JSON."""
    digest = hashlib.sha256()
    for name, part in sorted(parts.items()):
        digest.update(f"{name}:".encode())
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(tensor_bytes(part))
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def tensor_bytes(value: Tensor) -> bytes:
    """The numbers of a tensor as they lie in memory, whatever its dtype and device."""
    value = value.detach().cpu().contiguous()
    return value.flatten().view(torch.uint8).numpy().tobytes()


class SampleCache:
    """Tensors by key in a folder. Many processes may share it: each file is written whole."""

    def __init__(self, directory):
        self.directory = Path(directory)

    def path(self, key: str) -> Path:
        """Where the tensor of `key` lies."""
        return self.directory / key[:2] / f"{key[2:]}.safetensors"

    def get(self, key: str) -> Tensor | None:
        """The tensor kept under `key`; None where there is none, or the file is damaged."""
        from safetensors import SafetensorError, safe_open

        path = self.path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                value, about = file.get_tensor("sample"), file.metadata() or {}
        except (SafetensorError, OSError):
            return None  # torn: it will be drawn and written again
        return value if about.get(DIGEST) == _digest(key, value) else None

    def put(self, key: str, value: Tensor) -> None:
        """Keep `value` under `key`, atomically."""
        from safetensors.torch import save

        value = value.detach().cpu().contiguous()
        write_bytes(self.path(key), save({"sample": value}, {DIGEST: _digest(key, value)}))


def _digest(key: str, value: Tensor) -> str:
    """Of the key and the numbers: a file moved to another name is as good as damaged."""
    return hashlib.sha256(key.encode() + tensor_bytes(value)).hexdigest()
