"""The site of `make site`: README, docs and notebooks as they are committed, nothing executed.

Whatever a page shows or runs lies beside it: no font, script or style comes from elsewhere.
"""

import base64
import os
import re
import shutil
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from ipython_pygments_lexers import IPython3Lexer
from sphinx.addnodes import pending_xref
from sphinx.util.logging import getLogger

from gill_lite import __version__
from gill_lite.files import write_text
from gill_lite.report import page
from gill_lite.report.summary import read_results

logger = getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PARTS = {"0": "Course", "1": "Tables", "2": "GILL's family"}  # by a chapter's first digit
PICTURES = ("image/png", "image/jpeg")

project = "gill-lite"
version = release = __version__
html_title = project
extensions = ["myst_nb", "sphinx_design", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = ["README.md", "docs/*.md", "notebooks/[0-9]*.ipynb"]
exclude_patterns = [".*", "build", "data", "dist", "runs", "tests"]
suppress_warnings = ["myst.header"]  # the glossary's words are small headings
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_render_image_options = {"alt": "figure made by the code above"}
html_theme = "furo"
pygments_dark_style = "github-dark"
html_math_renderer = "mathml"
html_static_path = ["static", "model_map.svg"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "code"

CARDS = """
::::{grid} 1 2 2 4
:gutter: 3
:::{grid-item-card} Course
:link: notebooks/00_check_setup
:link-type: doc
Chapter by chapter, with what every cell printed and drew
:::
:::{grid-item-card} Gallery
:link: docs/gallery
:link-type: doc
One picture of every chapter
:::
:::{grid-item-card} Report
:link: report.html
Every claim of the paper with its verdict and numbers
:::
:::{grid-item-card} Glossary
:link: docs/glossary
:link-type: doc
The words of the course, each with one meaning
:::
::::
"""


def title_of(chapter: Path) -> str:
    """`03 · Learn the [IMG] tokens`: the number by which texts call a chapter, and its heading."""
    heading = nbformat.read(chapter, as_version=4).cells[0].source.splitlines()[0]
    return f"{chapter.stem[:2]} · {heading.removeprefix('# ')}"


def contents() -> str:
    """The sidebar: parts of the course, then the documentation."""
    entries = {name: [] for name in PARTS.values()}
    for chapter in CHAPTERS:
        entries[PARTS[chapter.name[0]]].append(f"{title_of(chapter)} <notebooks/{chapter.stem}>")
    entries["Documentation"] = [f"docs/{name}" for name in ("gallery", "glossary", "api", "*")]
    return "".join(
        "\n```{toctree}\n:hidden:\n:glob:\n:caption: " + "\n".join([part, "", *lines]) + "\n```\n"
        for part, lines in entries.items()
        if lines
    )


def first_picture(chapter: Path, folder: Path) -> Path:
    """The picture a chapter shows first, written into `folder`."""
    outputs = [o for cell in nbformat.read(chapter, as_version=4).cells
               for o in cell.get("outputs", [])]  # fmt: skip
    found = [
        (kind, o.data[kind]) for o in outputs for kind in PICTURES if kind in o.get("data", {})
    ]
    kind, content = found[0]
    path = folder / f"{chapter.stem}.{kind.removeprefix('image/')}"
    path.write_bytes(base64.b64decode(content))
    return path


def cards_of_chapters(app) -> str:
    """A card a chapter, its first picture on top."""
    folder = Path(app.outdir).parent / "gallery"
    folder.mkdir(exist_ok=True)
    cards = []
    for chapter in CHAPTERS:
        picture = first_picture(chapter, folder)
        cards.append(
            f":::{{grid-item-card}} {title_of(chapter)}\n:link: ../notebooks/{chapter.stem}\n"
            f":link-type: doc\n:img-top: {os.path.relpath(picture, app.confdir)}\n"
            f":img-alt: first figure of {chapter.stem}\n:::\n"
        )
    return "\n::::{grid} 1 2 2 3\n:gutter: 3\n" + "".join(cards) + "::::\n"


def complete(app, docname: str, source: list[str]) -> None:
    """What only the site has: the start page's cards and sidebar, the gallery's pictures."""
    if docname == root_doc:
        text = re.sub(r"^\[!\[.*\n", "", source[0], flags=re.M)  # badges come from elsewhere
        before, *sections = text.split("\n## ")
        source[0] = "\n## ".join([before + CARDS, *sections]) + contents()
    if docname == "docs/gallery":
        source[0] += cards_of_chapters(app)


def without_folders(app, doctree) -> None:
    """Links to folders of the repository, which the site does not show, become their words."""
    for link in list(doctree.findall(pending_xref)):
        if (
            link["reftype"] == "myst"
            and (Path(doctree["source"]).parent / link["reftarget"]).is_dir()
        ):
            link.replace_self(link.children)


def lit_maps(app, doctree) -> None:
    """The map with a part in its frame, `model_map.svg#mapper`; Sphinx would look for the file."""
    up = "../" * app.env.docname.count("/")
    for image in list(doctree.findall(nodes.image)):
        file, _, part = image["uri"].partition("#")
        if part:
            place = f"{up}_static/{Path(file).name}#{part}"
            shown = f'<img src="{place}" alt="{escape(image["alt"])}">'
            image.replace_self(nodes.raw("", shown, format="html"))


def finish(app, problem) -> None:
    """Beside the pages: the report, and the start page under the name that servers look for."""
    if problem is None:
        report = page.as_html(ROOT, *read_results(ROOT / "results"), {"profile": "mini"})
        report = report.replace("<body>", f'<body><a href="index.html">{project}</a>')
        write_text(app.outdir / "report.html", report)
        shutil.copyfile(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def formula(display: bool):
    """Writes a formula as MathML, which browsers set without a script."""

    def visit(self, node):
        tex = node.astext().replace(r"\dots", r"\ldots")  # docutils knows only the latter
        try:
            self.body.append(tex2mathml(tex, as_block=display))
        except MathError as error:
            logger.warning("%s", error, location=node)
        raise nodes.SkipNode

    return visit, None


def is_field(app, what, name, value, *_) -> bool | None:
    """A NamedTuple's field says nothing that the signature does not say; None leaves the rest."""
    return str(value.__doc__).startswith("Alias for field number") or None


def setup(app) -> None:
    """Sphinx calls this."""
    app.add_lexer("python", IPython3Lexer)  # cells have lines with % and !
    app.add_html_math_renderer("mathml", formula(False), formula(True))
    app.connect("autodoc-skip-member", is_field)
    app.connect("source-read", complete)
    app.connect("doctree-read", without_folders)
    app.connect("doctree-read", lit_maps, priority=400)  # before Sphinx gathers the pictures
    app.connect("build-finished", finish)
