"""`make site`: no warning, no link that leads nowhere, nothing fetched from elsewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.helpers.places import ROOT

pytest.importorskip("furo", reason="the site's builder is the extra `site`")
from bs4 import BeautifulSoup  # furo brings it

pytestmark = pytest.mark.slow
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "srcset"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-M", "html", ".", str(folder), "-c", "docs", "-q", "-W"]
    built = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, BeautifulSoup]:
    found = sorted(site.rglob("*.html"))
    return {path: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in found}


def lost(href: str, page: Path, pages: dict) -> str | None:
    """Why a link of a page leads nowhere; None where it does or leaves the site."""
    address = urlsplit(href)
    if address.scheme in ("http", "https", "data"):
        return None
    target = (page.parent / unquote(address.path)).resolve() if address.path else page
    if not target.is_file():
        return f"{page.name}: {href} is no file"
    anchor = unquote(address.fragment)
    if anchor and target in pages and not pages[target].find(id=anchor):
        return f"{page.name}: {href} has no such anchor"
    return None


def test_every_link_and_anchor_is_there(pages):
    problems, count = [], 0
    for page, soup in pages.items():
        for tag in soup.find_all(True):
            for href in filter(None, (tag.get("href"), tag.get("src"))):
                count += 1
                problems.append(lost(href, page, pages))
    assert not list(filter(None, problems))
    assert count > 100 * len(CHAPTERS)


def test_a_lost_link_is_found(pages):
    page = next(path for path in pages if path.stem == "glossary")
    assert lost("#mapper", page, pages) is None
    assert lost("../README.html", page, pages) is None
    assert "no such anchor" in lost("#no-such-word", page, pages)
    assert "no file" in lost("nowhere.html", page, pages)


def test_nothing_is_fetched_from_elsewhere(site, pages):
    loaded = [tag[a] for soup in pages.values() for name, a in LOADED.items()
              for tag in soup.find_all(name, {a: True})]  # fmt: skip
    styles = [style.get_text() for soup in pages.values() for style in soup.find_all("style")]
    styles += [path.read_text("utf-8") for path in site.rglob("*.css")]
    loaded += [
        url for text in styles for url in re.findall(r"(?:url\(|@import)\s*[\"']?(\S+)", text)
    ]
    assert len(loaded) > 100
    assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []


def test_the_start_page_leads_to_every_chapter_and_page(site, pages):
    leads = {
        link["href"].split("#")[0] for link in pages[site / "index.html"].find_all("a", href=True)
    }
    made = {path.relative_to(site).as_posix() for path in pages if path.parent.name != "html"}
    assert {f"notebooks/{path.stem}.html" for path in CHAPTERS} <= made <= leads
    assert "report.html" in leads


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_is_shown_as_committed(chapter, site, pages):
    cells = json.loads(chapter.read_text("utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    pictures = [o for o in outputs if {"image/png", "image/jpeg"} & set(o.get("data", {}))]
    shown = pages[site / "notebooks" / f"{chapter.stem}.html"]
    assert len(shown.select(".cell_output img")) == len(pictures)
    text = shown.get_text()
    for stream in (o["text"] for o in outputs if o["output_type"] == "stream"):
        assert "".join(stream).strip() in text


def test_formulas_need_no_script(site, pages):
    shown = pages[site / "notebooks" / "09_train_gill_end_to_end.html"]
    assert shown.find("math", display="block") and "\\frac" not in shown.get_text()


def test_search_knows_the_words(site):
    assert "gillmapp" in (site / "searchindex.js").read_text("utf-8")  # the stem of GILLMapper
