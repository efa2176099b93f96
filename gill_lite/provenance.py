"""Where a number comes from: code, lock, weights, libraries, machine, time and memory."""

import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from gill_lite.errors import GillError
from gill_lite.files import sha256

LIBRARIES = ("torch", "torchvision", "transformers", "diffusers", "lpips", "numpy", "pillow")


def repository_root() -> Path:
    """The folder that holds `data/`, `results/` and `notebooks/`, wherever Python runs.

    Raises GillError when the package was installed without its repository.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "notebooks").is_dir() or not (root / "data").is_dir():
        raise GillError(
            f"gill-lite finds no data and notebooks folders beside its package in {root}: "
            "clone the repository and install it from there with `pip install -e .`."
        )
    return root


def own_folder(name: str) -> Path:
    """runs/<name> in the repository; where that cannot be written, a folder of the user's."""
    homes = (repository_root() / "runs", Path.home() / ".cache" / "gill-lite")
    for folder in homes:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if os.access(there, os.W_OK):
            return folder / name
    return Path(tempfile.gettempdir()) / "gill-lite" / name


def sha256_of(path: Path) -> str | None:
    """Hex digest of a file, None where there is no such file."""
    return sha256(path) if path.is_file() else None


def git_commit(root: Path) -> str:
    """The commit, with "+changes" behind it if tracked files differ; "unknown" outside git."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def library_versions() -> dict[str, str]:
    """Name to installed version of the libraries that numbers depend on."""
    from importlib.metadata import version

    versions = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **versions}


def hardware() -> dict:
    """Processor, cores this process may use, memory in GB (2**30 bytes), GPU (None without)."""
    import psutil

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor_name(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": _gpu_name(),
    }


def peak_memory_mb(children: bool = False) -> float | None:
    """Largest resident memory so far in MB (2**20 bytes); None on Windows.

    children: the largest single finished child process, instead of this process.
    """
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(who).ru_maxrss * unit / 2**20, 1)


def collect(
    started: float, profile: str = "mini", command: str = "", earlier_seconds: float = 0.0
) -> dict:
    """Everything a reader needs to trace a number; JSON-ready.

    started: `time.time()` when the computation began. command: what was typed, if known.
    earlier_seconds: of the same computation before it was cut off, or in other processes.
    """
    root = repository_root()
    return {
        "command": command,
        "profile": profile,
        "finished_utc": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "git_commit": git_commit(root),
        "lock_sha256": sha256_of(root / "requirements.lock"),
        "weights_manifest_sha256": sha256_of(root / "data" / profile / "manifest.json"),
        "libraries": library_versions(),
        "hardware": hardware(),
        "wall_seconds": round(earlier_seconds + time.time() - started, 1),
        "peak_memory_mb": peak_memory_mb(),
    }


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _gpu_name() -> str | None:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "Apple GPU" if torch.backends.mps.is_available() else None
