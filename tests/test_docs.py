"""The pages people read: links lead somewhere, and what they name and tell to type exists."""

import argparse
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from gill_lite.cli.main import build_parser
from tests.helpers.places import ROOT

PAGES = [ROOT / "README.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MADE = ("data/paper", "results/paper_scale.json", "runs/")  # by commands; not in a clone


def links(text: str) -> list[str]:
    """Where the page's links lead; what stands in code is no link."""
    plain = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", plain)]


def anchors(text: str) -> set[str]:
    """A page's headings as its links name them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def dead(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for target in links(text):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if target.startswith(("https:", "http:")):
            continue
        if not path.exists() or anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
            found.append(target)
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    assert dead(ROOT / name, TEXTS[name]) == []


def test_a_dead_link_is_seen():
    text = "# A b, c!\n[a](#a-b-c) [b](#gone) [c](docs/gone.md) `[d](e)` [f](docs/data.md#gone)"
    assert dead(ROOT / "README.md", text)[1:] == ["#gone", "docs/gone.md", "docs/data.md#gone"]
    assert anchors(text) == {"a-b-c"}


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_named_exist(name):
    places = r"(?<![\w/.-])((?:gill_lite|tests|benchmarks|notebooks|docs|data|results)/[\w./-]*\w)"
    named = {path for path in re.findall(places, TEXTS[name]) if not path.startswith(MADE)}
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not [path for path in missing if not list(ROOT.glob(f"{path}*"))]  # `data/lms/<seed>`


@pytest.mark.parametrize("name", TEXTS)
def test_python_names_that_are_named_exist(name):
    for dotted in set(re.findall(r"\bgill_lite(?:\.\w+)+", TEXTS[name])):
        parts, value = dotted.split("."), None
        for i in range(1, len(parts) + 1):
            if value is not None and hasattr(value, parts[i - 1]):
                value = getattr(value, parts[i - 1])
            else:
                value = importlib.import_module(".".join(parts[:i]))


def options() -> dict[str, set[str]]:
    """The options of each subcommand."""
    [sub] = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return {name: set(parser._option_string_actions) for name, parser in sub.choices.items()}


def typed(text: str) -> list[str]:
    """The commands in a page's blocks, one a line, without their comments."""
    blocks = [block for kind, block in FENCE.findall(text) if kind == "sh"]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s#.*", "", line) for line in lines]


@pytest.mark.parametrize("name", TEXTS)
def test_commands_can_be_typed(name):
    known, targets = options(), (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in typed(TEXTS[name]):
        for command, rest in re.findall(r"(?:\bgill-lite|-m gill_lite) (\w+)([^|;]*)", line):
            unknown = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest)) - known[command]
            assert not unknown, f"{line}: {unknown}"
        for module in re.findall(r"-m ((?:gill_lite|benchmarks)\.[\w.]+)", line):
            assert importlib.util.find_spec(module), line
        for target in re.findall(r"^make (\w+)", line):
            assert f"\n{target}: " in targets, line
