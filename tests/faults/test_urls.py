"""Pictures named by a URL: refused where a file is expected, and where they are fetched, asked
for on the public internet only, within a size and a time."""

import io
import json
import time

import pytest
from huggingface_hub import constants
from PIL import Image
from tenacity import wait_none

from gill_lite.cli import main as cli
from gill_lite.fetching import download
from gill_lite.fetching import pictures as fetch_pictures
from gill_lite.fetching.checksums import Checksums
from gill_lite.fetching.sources import File, Source
from tests.helpers.local_server import LocalServer
from tests.helpers.tiny_commands import told

PNG = io.BytesIO()
Image.new("RGB", (16, 16), "red").save(PNG, "PNG")
PNG = PNG.getvalue()


@pytest.mark.parametrize("url", ["https://example.com/a.png", "HTTP://10.0.0.1/a", "file:///a.png"])
def test_a_url_in_the_place_of_a_picture_is_refused(capsys, url):
    assert cli.main(["chat", f"@{url}"]) == 2
    assert told(capsys) == f"gill-lite: image {url} is a URL; download it and give the file"


def test_a_caption_file_of_urls_is_refused_with_the_count(tmp_path, capsys):
    lines = [f"a cat\thttps://example.com/{i}.jpg\n" for i in range(4)]
    (tmp_path / "c.tsv").write_text("caption\timage\n" + "".join(lines))
    typed = ["train", f"--captions={tmp_path / 'c.tsv'}", f"--images={tmp_path}"]
    assert cli.main(typed) == 2
    line = told(capsys)
    assert "4 of 4 examples are unusable (image is a URL 4;" in line
    assert "line 2 of" in line and "names https://example.com/0.jpg, a URL; download it" in line


@pytest.fixture
def fetched(tmp_path, monkeypatch, capsys):
    """`fetched(server, url)` downloads three pictures, one from `url`; what is told of it."""
    monkeypatch.setattr(download, "WAIT", wait_none())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def run(server: LocalServer, url: str) -> str:
        whole = [server.add(f"/{i}.png", PNG) for i in range(2)]
        images = [{"id": str(i), "url_o": given} for i, given in enumerate([*whole, url])]
        panels = [[{"photo_flickr_id": image["id"]}] for image in images]
        folder = tmp_path / "vist"
        folder.mkdir()
        (folder / "val.json").write_text(json.dumps({"annotations": panels, "images": images}))
        archive = File("vist/sis.tar.gz", server.url("/sis.tar.gz"), "tar", 1)
        source = Source("vist", "", (archive,), pictures="vist/val.json")
        fetch_pictures.fetch_pictures(source, Checksums(tmp_path))
        assert sorted(p.name for p in (folder / "val_images").iterdir()) == ["0.png", "1.png"]
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("host", ["localhost", "2130706433", "[::ffff:127.0.0.1]", "127.1"])
def test_a_picture_on_a_private_address_is_not_asked_for(fetched, host):
    """The list came from 127.0.0.1, so that host may be asked; other names for it may not."""
    with LocalServer() as server:
        secret = server.add("/secret.png", PNG)
        told = fetched(server, secret.replace("127.0.0.1", host))
        assert "1 of 3 pictures cannot be had (no public address 1)" in told
        assert server.requests("/secret.png") == []


def test_a_redirect_to_a_private_address_is_not_followed(fetched):
    with LocalServer() as server:
        secret = server.add("/secret.png", PNG)
        inward = server.add("/inward.png", b"", redirect=secret.replace("127.0.0.1", "localhost"))
        told = fetched(server, server.add("/start.png", b"", redirect=inward))
        assert "1 of 3 pictures cannot be had (no public address 1)" in told
        assert len(server.requests("/inward.png")) == 1, "the first redirect was followed"
        assert server.requests("/secret.png") == []


@pytest.mark.parametrize(
    "url",
    ["file:///etc/hostname", "ftp://example.com/a.png", "a.png", "http://[x/a.png"],
)
def test_only_http_is_asked(fetched, url):
    with LocalServer() as server:
        assert "1 of 3 pictures cannot be had (no such address 1)" in fetched(server, url)


def test_a_picture_that_comes_byte_by_byte_is_given_up(fetched, monkeypatch):
    monkeypatch.setattr(fetch_pictures, "SECONDS", 0.5)
    with LocalServer() as server:
        content = PNG + bytes(1000)
        started = time.perf_counter()
        told = fetched(server, server.add("/slow.png", content, drip=0.02))  # 10 seconds
        assert time.perf_counter() - started < 5
        assert "1 of 3 pictures cannot be had (too slow 1)" in told


def test_a_picture_that_is_too_large_is_given_up(fetched, monkeypatch):
    monkeypatch.setattr(fetch_pictures, "MOST", 2000)
    with LocalServer() as server:
        content = PNG + bytes(5000)
        told = fetched(server, server.add("/large.png", content, length=False))
        assert "1 of 3 pictures cannot be had (too large 1)" in told
