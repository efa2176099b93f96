"""A repository that holds nothing yet, for tests of the commands that run notebooks."""

from gill_lite.course import notebooks
from gill_lite.experiments import reproduce


def pretend_repository(folder, monkeypatch) -> None:
    """`folder`/repo is the repository for the commands, and `folder` the place one is in."""
    for name in ("notebooks", "data/mini"):
        (folder / "repo" / name).mkdir(parents=True)
    for module in (reproduce, notebooks):
        monkeypatch.setattr(module, "repository_root", lambda: folder / "repo")
    monkeypatch.chdir(folder)
