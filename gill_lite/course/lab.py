"""What the notebooks use and nothing else imports: setup, parameters, exercises, pictures."""

import ast
import copy
import os
import textwrap
import time
import warnings
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from gill_lite.course import figures
from gill_lite.course.figures import COLORS, heat, show, strips
from gill_lite.datasets.images import open_image
from gill_lite.errors import GillError
from gill_lite.files import refuse_address
from gill_lite.profiles import Profile, get_profile
from gill_lite.provenance import repository_root

__all__ = ["COLORS", "Lab", "check", "heat", "open_image", "setup", "show", "strips", "under_test",
           "validate_parameters"]  # fmt: skip
NOT_ATTEMPTED = "not attempted yet"
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
    """Start a notebook: find the repository, quieten the libraries, set up figures.

    Raises GillError for an unknown profile, or outside a clone of the repository.
    """
    lab = Lab(get_profile(profile), repository_root())
    _quieten(offline=profile == "mini", progress=not under_test())
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


def check(fn, reference, cases) -> str:
    """Compare a learner's function with the library's, case by case, and say how it stands.

    cases: list of argument tuples (or dicts of keyword arguments), or a dict from what a case is,
    in words, to its arguments; each call gets its own copy.
    A function that returns None or `...`, or raises NotImplementedError, is not attempted.
    Returns the sentence: not attempted yet / passed / the first case where they differ.
    """
    if not cases:
        raise GillError("check() needs at least one case to compare on.")
    named = cases.items() if isinstance(cases, dict) else [("", case) for case in cases]
    for number, (name, case) in enumerate(named, start=1):
        where = f"case {number} ({name})" if name else f"case {number}"
        expected = _call(reference, case)
        try:
            got = _call(fn, case)
        except NotImplementedError:
            return f"{NOT_ATTEMPTED}: fill in {_name(fn)} and run this cell again."
        except Exception as error:  # the learner's own mistake is what we report
            return f"{where}: {_name(fn)} raised {type(error).__name__}: {error}"
        if got is Ellipsis or (got is None and expected is not None):
            return f"{NOT_ATTEMPTED}: {_name(fn)} returns nothing so far."
        if difference := _difference(got, expected):
            return f"{where}: {difference}"
    return f"passed: {_name(fn)} agrees with {_name(reference)} on all {len(cases)} cases."


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


# ---- exercises ----


def _call(fn, case):
    case = copy.deepcopy(case)
    if isinstance(case, dict):
        return fn(**case)
    return fn(*case) if isinstance(case, tuple) else fn(case)


def _name(function) -> str:
    return getattr(function, "__name__", repr(function))  # a partial has none


def _difference(got, expected, where: str = "the result") -> str | None:
    """One sentence on the first difference, None where they agree to 1e-4 (relative, absolute)."""
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) != set(expected):
            return f"{where} should be a dict with the keys {', '.join(map(str, expected))}."
        return _first(_difference(got[k], expected[k], f"{where}[{k!r}]") for k in expected)
    if isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple):
            kind = type(expected).__name__
            return f"{where} should be a {kind}, yours is a {type(got).__name__}: {_short(got)}."
        if len(got) != len(expected):
            return f"{where} should hold {len(expected)} items, yours is {_short(got)}."
        pairs = enumerate(zip(got, expected, strict=True))
        return _first(_difference(g, e, f"{where}[{i}]") for i, (g, e) in pairs)
    if _is_number(expected):
        return _number_difference(got, expected, where)
    if type(got) is not type(expected) or got != expected:
        return f"{where} should be {_short(expected)}, yours is {_short(got)}."
    return None


def _number_difference(got, expected, where: str) -> str | None:
    import numpy as np

    if not _is_number(got):
        return f"{where} should be {_short(expected)}, yours is {_short(got)}."
    try:
        mine, theirs = (_as_array(x) for x in (got, expected))
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"{where} holds what are no numbers to compare ({reason})."
    if mine.shape != theirs.shape:
        return f"{where} should have the shape {theirs.shape}, yours has {mine.shape}."
    close = np.isclose(mine, theirs, rtol=1e-4, atol=1e-4, equal_nan=True)
    if close.all():
        return None
    index = tuple(int(i) for i in np.argwhere(~close)[0])
    at = f" at {list(index)}" if index else ""
    return f"{where}{at} should be {_figure(theirs[index])}, yours is {_figure(mine[index])}."


def _is_number(value) -> bool:
    has_numbers = hasattr(value, "shape") and hasattr(value, "dtype")
    return isinstance(value, int | float | complex) or has_numbers


def _as_array(value):
    """Complex numbers hold every kind: half precision and sparse ones, too, and 2x+1j is not 2x."""
    import numpy as np

    if hasattr(value, "detach"):
        import torch

        if value.is_meta:
            raise ValueError("a tensor on the device 'meta' has a shape and no numbers")
        value = value.detach().cpu()
        value = value if value.layout == torch.strided else value.to_dense()
        value = value.to(torch.complex128).resolve_conj().numpy()
    return np.asarray(value, dtype=np.complex128)


def _figure(number: complex) -> str:
    return f"{number:.4g}" if number.imag else f"{number.real:.4g}"


def _short(value) -> str:
    return textwrap.shorten(repr(value), 80)


def _first(sentences):
    return next((s for s in sentences if s), None)


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
