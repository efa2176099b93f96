"""What can be retrieved: pictures at hand, in a folder or behind a URL; the rest is passed over."""

import io
import time

import pytest
import torch
from PIL import Image

from gill_lite.answering import gallery
from gill_lite.answering.gallery import Gallery
from gill_lite.answering.index import ImageIndex
from tests.helpers.local_server import LocalServer

QUERY = torch.tensor([1.0, 0.0])


def index(*names) -> ImageIndex:
    """The names in the order in which QUERY finds them."""
    away = torch.arange(1.0, 1.0 + len(names))
    return ImageIndex.build(torch.stack([torch.ones_like(away), away], dim=1), names)


def red() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "PNG")
    return content.getvalue()


def names(found) -> list[str]:
    return [one.id for one in found]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(gallery, "SECONDS", 0.5)
    with LocalServer() as server:
        yield server


def test_a_url_that_is_dead_slow_or_no_picture_is_passed_over_in_time(server):
    good = server.add("/good.png", red())
    urls = [
        server.url("/gone.png"),
        server.add("/page.jpg", b"<!doctype html>not found"),
        server.add("/slow.png", red(), drip=0.3),
        "http://127.0.0.1:9/nobody.png",
        good,
        server.add("/next.png", red()),
    ]
    begun = time.monotonic()
    found, passed = Gallery(index(*urls)).find(QUERY, 2)
    assert names(found) == urls[4:] and passed == urls[:4]
    assert found[0].image.getpixel((0, 0)) == (255, 0, 0) and found[0].score > found[1].score
    assert time.monotonic() - begun < 5


def test_a_url_with_too_much_behind_it_is_passed_over(server, monkeypatch):
    monkeypatch.setattr(gallery, "MOST", 100)
    url = server.add("/large.png", red() + bytes(2**18))
    assert Gallery(index(url)).find(QUERY, 1) == ([], [url])


def test_files_of_the_folder_are_opened_and_none_outside_it(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "a.png", folder / "sub" / "b.png", tmp_path / "secret.png"):
        path.write_bytes(red())
    (folder / "broken.png").write_bytes(red()[:40])
    wanted = ["../secret.png", str(tmp_path / "secret.png"), "broken.png", "a.png", "sub/b.png"]
    found, passed = Gallery(index(*wanted), folder=folder).find(QUERY, 2)
    assert names(found) == ["a.png", "sub/b.png"] and passed == wanted[:3]
    assert Gallery(index(*wanted)).find(QUERY, 2) == ([], wanted), "no folder: none is at hand"


def test_what_was_seen_is_not_found_again_and_only_so_many_are_tried():
    pictures = {str(n): Image.new("RGB", (4, 4)) for n in range(20)}
    every = index(*pictures)
    found, passed = Gallery(every, pictures).find(QUERY, 3, seen=["0", "2"])
    assert names(found) == ["1", "3", "4"] and passed == []
    few, tried = Gallery(every, {"19": pictures["19"]}).find(QUERY, 1)
    assert few == [] and len(tried) == 1 + gallery.SPARE
    assert names(Gallery(every, pictures).find(QUERY, 99)[0]) == list(pictures)
