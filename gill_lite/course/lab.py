"""What the notebooks use and nothing else imports: setup and parameters; the rest by its name."""

import ast
import os
import time
import warnings
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from gill_lite.course import figures
from gill_lite.course.checking import check
from gill_lite.course.figures import COLORS, heat, show, strips
from gill_lite.datasets.images import open_image
from gill_lite.errors import GillError
from gill_lite.files import refuse_address
from gill_lite.profiles import Profile, get_profile
from gill_lite.provenance import own_folder, repository_root

__all__ = ["COLORS", "Lab", "check", "heat", "open_image", "read", "setup", "show", "strips",
           "under_test", "validate_parameters"]  # fmt: skip
PAPERMILLS = "PAPERMILL_"  # begins the names that `papermill --inject-paths` adds
# tqdm says so at its import, which may come before setup(), where there are no widgets.
warnings.filterwarnings("ignore", message="IProgress not found")


@dataclass
class Lab:
    """What a notebook starts from. Paths are absolute, whatever the working directory."""

    profile: Profile
    root: Path
    started: float = field(default_factory=time.time)

    @property
    def data(self) -> Path:
        """Folder of this profile's weights and fixtures."""
        return self.root / "data" / self.profile.name

    @property
    def results(self) -> Path:
        """Folder of the committed reference runs."""
        return self.root / "results"

    def folder(self, output_dir: str, name: str) -> Path:
        """Where a notebook writes: `output_dir`, or runs/<name> in the clone.

        Where that is read-only, a folder of the user's, which is told.
        """
        folder = Path(output_dir) if output_dir else own_folder(name)
        if not output_dir and not folder.is_relative_to(self.root) and not under_test():
            print(f"this clone is read-only: what is made goes to {folder}")
        return folder

    @cached_property
    def backbones(self):
        """The frozen models, loaded at first use."""
        from gill_lite.model.backbones import load_backbones

        return load_backbones(self.profile)

    def responder(self, seed: int = 0):
        """GILL with the joints of `seed`, ready to `.respond([...])`."""
        from gill_lite.answering.respond import load_responder

        return load_responder(self.profile.name, seed=seed)

    def seconds_since_kernel_start(self) -> float:
        """Wall seconds since this Python process began."""
        import psutil

        return time.time() - psutil.Process().create_time()


def setup(profile: str = "mini") -> Lab:
    """Start a notebook: find the repository, quieten the libraries, set up figures, and take one
    thread: beside another busy process two take several times as long, and alone little is won.

    Raises GillError for an unknown profile, or outside a clone of the repository.
    """
    lab = Lab(get_profile(profile), repository_root())
    _quieten(offline=profile == "mini", progress=not under_test())
    import torch  # only now: it brings tqdm, which is quietened before it is imported

    torch.set_num_threads(1)
    _show_figures_here()
    figures.style()
    return lab


def under_test() -> bool:
    """Whether pytest (nbval) runs this kernel: its children inherit this variable."""
    return "PYTEST_VERSION" in os.environ


def validate_parameters(expected_defaults: dict, actual: dict) -> None:
    """Refuse a notebook parameter with an unknown name or a wrong type.

    expected_defaults: name to default value. actual: name to value; a notebook passes
    `globals()`, and then only names that papermill injected count as given.
    Raises GillError saying which parameter, what it holds and what it must be.
    """
    for name in _given_names(actual):
        if name not in expected_defaults:
            close = get_close_matches(name, expected_defaults, n=1, cutoff=0.4)
            known = ", ".join(expected_defaults)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {known}"
            raise GillError(f"this notebook has no parameter '{name}'; {hint}")
    for name, default in expected_defaults.items():
        if name not in actual:
            raise GillError(f"parameter '{name}' is missing; its default is {default!r}.")
        if wanted := _wrong_type(default, actual[name]):
            raise GillError(f"parameter '{name}' must be {wanted}, not {actual[name]!r}.")
        if name.endswith("_dir"):
            refuse_address(actual[name], f"parameter '{name}'")


def read(images, scenes) -> list[str]:
    """What the probes see in PIL images that should show `scenes`: a note for `show` each.

    "✓ 6 of 6", or "✓ 4 of 6" and what is wrong on lines of their own: "✗ blue, not red"; where
    more than three are wrong only which: "✗ shape, color, size, time".
    """
    import torch

    from gill_lite.answering.drawing import from_pil
    from gill_lite.world.probes import load_probes
    from gill_lite.world.scene import ATTRIBUTES

    with torch.no_grad():
        logits = load_probes()(torch.stack([from_pil(image) for image in images]))
    found, best = [], {name: scores.argmax(dim=1).tolist() for name, scores in logits.items()}
    for i, wanted in enumerate(scene.as_dict() for scene in scenes):
        seen = {name: ATTRIBUTES[name][best[name][i]] for name in wanted}
        wrong = [name for name in wanted if seen[name] != wanted[name]]
        told = [f"✗ {seen[name]}, not {wanted[name]}" for name in wrong]
        told = told if len(told) < 4 else [f"✗ {', '.join(wrong)}"]
        found.append("\n".join([f"✓ {6 - len(wrong)} of 6", *told]))
    return found


# ---- parameters ----


def _given_names(actual: dict) -> list[str]:
    if "In" not in actual:  # a plain dictionary: every key is a parameter
        return list(actual)
    injected = [source for source in actual["In"] if source.startswith("# Parameters\n")]
    nodes = ast.parse(injected[-1]).body if injected else []
    targets = [t for n in nodes if isinstance(n, ast.Assign) for t in n.targets]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith(PAPERMILLS)]


def _wrong_type(default, value) -> str | None:
    """What `value` should have been, in words; None when it fits."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "True or False (written so, without quotes)"
    if isinstance(value, bool):
        return f"like {default!r}"
    if isinstance(default, float):
        return None if isinstance(value, int | float) else "a number"
    if isinstance(default, int):
        return None if isinstance(value, int) else "a whole number"
    if isinstance(default, str):
        return None if isinstance(value, str) else "a text"
    if isinstance(default, list | tuple):
        fits = isinstance(value, list | tuple) and len(value) > 0
        fits = fits and not any(_wrong_type(default[0], item) for item in value)
        return None if fits else f"a list like {list(default)!r}"
    raise GillError(f"a parameter's default must be a plain literal, not {default!r}.")


# ---- figures and quiet ----


def _show_figures_here() -> None:
    """Figures appear below their cells, whatever MPLBACKEND says outside."""
    from IPython import get_ipython

    shell = get_ipython()
    if hasattr(shell, "kernel"):  # a notebook; a terminal keeps its windows
        shell.run_line_magic("matplotlib", "inline")


def _quieten(offline: bool, progress: bool) -> None:
    """One plain progress line at most, none under test; no library chatter; mini is offline."""
    if offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not progress:
        os.environ["TQDM_DISABLE"] = "1"  # tqdm reads this when it is first imported
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.simplefilter("ignore", category)
