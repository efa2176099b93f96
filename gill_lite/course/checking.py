"""The checker of an exercise: the learner's function against the library's, in one sentence."""

import copy
import textwrap

from gill_lite.course.exercises import wrong_answers
from gill_lite.errors import GillError
from gill_lite.provenance import repository_root

NOT_ATTEMPTED, PASSED = "not attempted yet", "passed"


def check(fn, reference, cases) -> str:
    """Compare a learner's function with the library's, case by case, and say how it stands.

    cases: list of argument tuples (or dicts of keyword arguments), or a dict from what a case is,
    in words, to its arguments; each call gets its own copy.
    A function that returns None or `...`, or raises NotImplementedError, is not attempted.
    Returns the sentence: not attempted yet / passed / the first case where they differ, and the
    typical mistake (notebooks/solutions) that gives the same answers in all cases.
    """
    if not cases:
        raise GillError("check() needs at least one case to compare on.")
    named = cases.items() if isinstance(cases, dict) else [("", case) for case in cases]
    said = _compare(fn, reference, named)
    if said.startswith((NOT_ATTEMPTED, PASSED)):
        return said
    mistakes = wrong_answers(_name(fn), repository_root() / "notebooks" / "solutions")
    made = [wrong for wrong in mistakes if _compare(fn, wrong, named).startswith(PASSED)]
    if not made:
        return said
    return (
        f"{said} This is what a typical mistake gives: {' '.join((made[0].__doc__ or '').split())}"
    )


def _compare(fn, reference, named) -> str:
    """`check` without mistakes; `named`: pairs of what a case is and its arguments."""
    for number, (name, case) in enumerate(named, start=1):
        where = f"case {number} ({name})" if name else f"case {number}"
        expected, got = _outcome(reference, case), _outcome(fn, case)
        if isinstance(got, NotImplementedError):
            return f"{NOT_ATTEMPTED}: fill in {_name(fn)} and run this cell again."
        if isinstance(got, Exception):
            if type(got) is type(expected):
                continue
            return f"{where}: {_name(fn)} raised {type(got).__name__}: {got}"
        if got is Ellipsis or (got is None and expected is not None):
            return f"{NOT_ATTEMPTED}: {_name(fn)} returns nothing so far."
        if difference := _difference(got, expected):
            return f"{where}: {difference}"
    return f"{PASSED}: {_name(fn)} agrees with {_name(reference)} on all {len(named)} cases."


def _call(fn, case):
    case = copy.deepcopy(case)
    if isinstance(case, dict):
        return fn(**case)
    return fn(*case) if isinstance(case, tuple) else fn(case)


def _outcome(fn, case):
    """What a call returns, or the error that it raises."""
    try:
        return _call(fn, case)
    except Exception as error:  # the learner's own mistake is what the checker reports
        return error


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
