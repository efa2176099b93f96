"""A repository that holds nothing yet, for tests of the commands that run notebooks."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from gill_lite.course import kernels, notebooks
from gill_lite.experiments import reproduce

TABLE1 = "10_reproduce_table1_vist.ipynb"
KERNEL = {"name": "python3", "display_name": "p", "language": "python"}


def pretend_repository(folder, monkeypatch) -> None:
    """`folder`/repo is the repository for the commands, and `folder` the place one is in."""
    for name in ("notebooks", "data/mini"):
        (folder / "repo" / name).mkdir(parents=True)
    for module in (reproduce, kernels, notebooks):
        monkeypatch.setattr(module, "repository_root", lambda: folder / "repo")
    monkeypatch.chdir(folder)


def parameters(*sizes: str) -> str:
    """The parameters cell of a table's notebook, whose sizes have these names."""
    values = {"profile": "mini", "seeds": [0], **dict.fromkeys(sizes, 3), "recompute": False}
    values |= {"output_dir": "", "run_seed": 0, "protocol": "corrected"}
    return "\n".join(f"{name} = {value!r}  # a" for name, value in values.items())


def write_notebook(folder, source: str, cell: str | None = None, name: str = TABLE1) -> None:
    """Put a table's notebook into `folder`/repo: its parameters, then the code `source`."""
    cells = [new_code_cell(cell or parameters("num_stories")), new_code_cell(source)]
    cells[0].metadata["tags"] = ["parameters"]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    nbformat.write(notebook, folder / "repo/notebooks" / name)
