"""Links of the notebooks and the glossary, followed as JupyterLab follows them."""

import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from gill_lite.course import hand_out
from tests.helpers.places import ROOT

LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
ANCHOR = re.compile(r"<\w+[^>]* id=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} (.+)$", re.M)


def text_of(path: Path) -> str:
    """The Markdown of a page or notebook."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def lost(path: Path) -> list[str]:
    """The links of a page that open nothing in JupyterLab, or open it without the jump.

    JupyterLab scrolls to the element whose `id` is the fragment, letter by letter; a heading's is
    its text with "-" for spaces, in the case that it is written in.
    """
    found = []
    for file, anchor in LINK.findall(text_of(path)):
        target = (path.parent / unquote(file)).resolve() if file else path
        if file.startswith("http"):
            continue
        if not target.is_file():
            found.append(f"{file} is no file")
        elif anchor:
            text = text_of(target)
            ids = {heading.replace(" ", "-") for heading in HEADING.findall(text)}
            if unquote(anchor) not in ids | set(ANCHOR.findall(text)):
                found.append(f"{file}#{anchor} does not jump")
    return found


PAGES = [*sorted((ROOT / "notebooks").glob("*.ipynb")), ROOT / "docs" / "glossary.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_of_the_course_lead_somewhere(page):
    assert lost(page) == []


def test_a_lost_link_is_found(tmp_path):
    assert sum(len(LINK.findall(text_of(page))) for page in PAGES) > 200
    page = tmp_path / "page.md"
    page.write_text('# A Word\n<a id="word"></a>\n[a](#A-Word) [b](#word) [c](#a-word) [d](no.md)')
    assert lost(page) == ["#a-word does not jump", "no.md is no file"]


@pytest.mark.parametrize("kind", hand_out.KINDS)
def test_copies_have_no_dead_link(kind, tmp_path):
    hand_out.build(kind, tmp_path)
    pages = [path for path in tmp_path.rglob("*") if path.suffix in (".md", ".ipynb")]
    assert len(pages) > len(PAGES) - 1
    assert {page.name: lost(page) for page in pages if lost(page)} == {}


def test_every_entry_of_the_glossary_has_its_anchor():
    """The anchor that GitHub and the site give a heading, so that one link works everywhere."""
    text = text_of(ROOT / "docs" / "glossary.md")
    for anchor, heading in re.findall(r"<a id=\"(.+)\"></a>\n\n### (.+)", text):
        assert anchor == re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
    assert text.count("<a id=") == len(re.findall(r"^### ", text, re.M))
