"""`gill-lite fetch` against a local server that cuts, lies and changes its mind."""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import constants
from PIL import Image
from tenacity import wait_none

from gill_lite.cli import main as cli
from gill_lite.datasets.partiprompts import read_partiprompts
from gill_lite.datasets.visdial import read_visdial
from gill_lite.datasets.vist import read_vist
from gill_lite.errors import GillError
from gill_lite.fetching import download, network, sources
from gill_lite.fetching.download import Refused
from gill_lite.fetching.unpack import unpack
from gill_lite.world.export import export
from tests.helpers.local_server import LocalServer
from tests.helpers.places import RECORDINGS, ROOT

BODY = b"a\tb\n" + random.Random(0).randbytes(49_996).hex().encode()  # 99,996 bytes
PAGE = b"<!DOCTYPE html><html><body>please log in</body></html>" * 40


@pytest.fixture
def server():
    with LocalServer() as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "WAIT", wait_none())
    monkeypatch.setattr(download, "PIECE", 1_000)
    room = shutil.disk_usage("/")._replace(free=100_000_000_000)  # whatever this disk has
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def jpeg(colour="red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in extra:
            file.addfile(info)
    return buffer.getvalue()


# ---- one file ----------------------------------------------------------------------------


def test_a_cut_download_is_begun_again(server, tmp_path):
    url = server.add("/a.tsv", BODY, cuts=[30_000, 20_000])
    assert download.download(url, tmp_path / "a.tsv", "tsv") == sha(BODY)
    assert (tmp_path / "a.tsv").read_bytes() == BODY
    assert server.requests("/a.tsv") == [None, None, None], "from the first byte"
    assert names(tmp_path) == {"a.tsv"}
    assert (tmp_path / "a.tsv").stat().st_mode & 0o777 == 0o644


def test_a_download_that_is_cut_each_time_is_given_up(server, tmp_path):
    url = server.add("/a.tsv", BODY, cuts=[30_000] * 9)
    with pytest.raises(GillError, match=r"now \(the connection was cut, 5 times\); run the same"):
        download.download(url, tmp_path / "a.tsv", "tsv")
    assert len(server.log) == download.ATTEMPTS and names(tmp_path) == set()


def test_a_length_that_is_too_large(server, tmp_path):
    url = server.add("/a.tsv", BODY, length_error=+100)
    with pytest.raises(GillError, match=r"the connection was cut, 5 times\)"):
        download.download(url, tmp_path / "a.tsv", "tsv")
    assert names(tmp_path) == set()


def test_a_length_that_is_no_number(server, tmp_path):
    url = server.add("/a.tsv", BODY, length=False, headers={"Content-Length": "many"})
    with pytest.raises(Refused, match="says that it has 'many' bytes"):
        download.download(url, tmp_path / "a.tsv", "tsv")
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("json", json.dumps({"a": list(range(999))}).encode()),
        ("zip", zipped({"a": bytes(5000)})),
        ("picture", jpeg()),
    ],
)
def test_a_length_that_is_too_small(server, tmp_path, kind, content):
    url = server.add(f"/file.{kind}", content, length_error=-100)
    with pytest.raises(Refused, match="is not a.*, or cut off"):
        download.download(url, tmp_path / f"file.{kind}", kind)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "image/jpeg"])
@pytest.mark.parametrize("kind", ["picture", "zip", "json", "tar", "torch", "tsv"])
def test_a_web_page_in_the_place_of_a_file(server, tmp_path, kind, content_type):
    url = server.add("/photo.jpg", PAGE, content_type=content_type)
    with pytest.raises(Refused, match=f"^{url} sends a web page, not a"):
        download.download(url, tmp_path / "photo.jpg", kind)
    assert names(tmp_path) == set()


def test_something_else_than_what_the_name_says(server, tmp_path):
    url = server.add("/a.zip", b"plain text " * 999)
    with pytest.raises(Refused, match="does not begin as a zip archive"):
        download.download(url, tmp_path / "a.zip", "zip")
    assert names(tmp_path) == set()


def test_another_sha256_is_refused(server, tmp_path):
    url = server.add("/a.tsv", BODY)
    with pytest.raises(Refused, match="a.tsv has the sha256 .*not 000000000000... as known before"):
        download.download(url, tmp_path / "a.tsv", "tsv", known_sha256="0" * 64)
    assert names(tmp_path) == set()


def test_what_is_not_there_is_asked_for_once(server, tmp_path):
    url = server.add("/a.tsv", BODY, statuses=[404])
    with pytest.raises(Refused, match=r"a.tsv is not there \(answer 404\)"):
        download.download(url, tmp_path / "a.tsv", "tsv")
    assert len(server.log) == 1 and names(tmp_path) == set()
    assert download.download(url, tmp_path / "a.tsv", "tsv") == sha(BODY)


def test_a_busy_server_is_asked_again(server, tmp_path):
    url = server.add("/a.tsv", BODY, statuses=[500, 429, 503])
    assert download.download(url, tmp_path / "a.tsv", "tsv") == sha(BODY)
    assert len(server.log) == 4


def test_no_server_at_all(tmp_path):
    with pytest.raises(Refused, match="cannot be asked for"):
        download.download("htp:/nonsense", tmp_path / "a.tsv", "tsv")


def unknown_name(*_, **__):
    raise socket.gaierror(-2, "Name or service not known")


NETWORK = {  # what is set -> what is said
    "http://127.0.0.1:9/a": [
        ({}, "127.0.0.1 refuses the connection, 5 times); run the same command again later"),
        ({"http_proxy": "http://me:secret@127.0.0.1:9"},
         "the proxy 127.0.0.1:9 of http_proxy cannot be used: Connection refused, 5 times)"),
        ({"HTTP_PROXY": "foo://p:1"},
         "HTTP_PROXY names a proxy of the kind 'foo', which cannot be used here; name one that"),
        ({"http_proxy": "socks5://p:1"},
         "http_proxy names a proxy of the kind 'socks5', which cannot be used here; name one"),
    ],
    "https://127.0.0.1:9/a": [
        ({"REQUESTS_CA_BUNDLE": "/no/ca.pem"},
         "REQUESTS_CA_BUNDLE names /no/ca.pem, and there is no such file of certificates; correct"),
        ({"CURL_CA_BUNDLE": "/no/ca.pem"}, "CURL_CA_BUNDLE names /no/ca.pem, and there is no"),
    ],
    "http://nowhere.invalid/a": [
        ({}, "the name nowhere.invalid cannot be looked up, 5 times); check the network, or name"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("url", "environment", "said"),
    [(url, *case) for url, cases in NETWORK.items() for case in cases],
)
def test_what_failed_of_the_network_is_named(tmp_path, monkeypatch, url, environment, said):
    for name in os.environ:
        if name.lower().endswith("_proxy") or name in network.CERTIFICATES:
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "invalid" in url:
        monkeypatch.setattr(socket, "getaddrinfo", unknown_name)
    with pytest.raises(GillError) as error:
        download.download(url, tmp_path / "a.tsv", "tsv")
    assert said in str(error.value) and "secret" not in str(error.value)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SSL_CERT_FILE", "/no/ca.pem", "SSL_CERT_FILE names /no/ca.pem, and there is no such"),
        ("HTTPS_PROXY", "p:1", "the proxy p:1 of HTTPS_PROXY cannot be used: "),
        ("HTTPS_PROXY", "foo://p:1", "HTTPS_PROXY names a proxy of the kind 'foo', which cannot"),
        ("HF_ENDPOINT", "http://127.0.0.1:9", "127.0.0.1 refuses the connection"),
    ],
)
def test_what_failed_on_the_way_to_the_hub_is_named(tmp_path, name, value, said):
    keep = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    keep |= {"HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), name: value}
    command = [sys.executable, "-m", "gill_lite", "fetch", "clip", f"--data-dir={tmp_path / 'd'}"]
    done = subprocess.run(command, env=keep, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert said in done.stderr and "free some space" not in done.stderr


@pytest.mark.parametrize("length", [True, False], ids=["announced", "sent without a length"])
def test_more_bytes_than_there_may_be(server, tmp_path, length):
    url = server.add("/a.tsv", BODY, length=length)
    size = len(BODY) if length else 6_000
    with pytest.raises(Refused, match=f"larger than it may be .{size} bytes or more, at most 5000"):
        download.download(url, tmp_path / "a.tsv", "tsv", most=5_000)
    assert names(tmp_path) == set()


def test_a_disk_too_small_for_the_announced_size(server, tmp_path, monkeypatch):
    url = server.add("/a.tsv", BODY)
    free = shutil.disk_usage(tmp_path)._replace(free=50_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(GillError, match="has no room for the 99996 bytes of"):
        download.download(url, tmp_path / "a.tsv", "tsv")
    assert names(tmp_path) == set()


# ---- archives ----------------------------------------------------------------------------


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_with_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        info = zipfile.ZipInfo("in/a.txt")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (zipped({"in/a.txt": b"1", "../out.txt": b"2"}), "outside its folder: '../out.txt'"),
        (zipped({"in/a.txt": b"1", "/out.txt": b"2"}), "outside its folder: '/out.txt'"),
        (zipped({"in/a.txt": b"1", "C:\\out.txt": b"2"}), "outside its folder"),
        (zip_with_link(), "link or special file: 'in/a.txt'"),
        (tarred({"in/a.txt": b"1", "in/../../out.txt": b"2"}), "outside its folder"),
        (tarred({"in/a.txt": b"1", "/out.txt": b"2"}), "outside its folder: '/out.txt'"),
        (tarred({}, link("in/a.txt", tarfile.SYMTYPE, "/etc/passwd")), "link or special file"),
        (tarred({"b": b""}, link("in/a.txt", tarfile.LNKTYPE, "b")), "link or special file"),
        (tarred({"b": b""}, link("in/a.txt", tarfile.FIFOTYPE, "")), "link or special file"),
        (zipped({"in/a.txt": bytes(60_000)}), "would unpack to more than 50000 bytes"),
        (tarred({"in/a.txt": b"1", "b": bytes(60_000)}), "would unpack to more than 50000 bytes"),
        (tarred({"in/a.txt": random.Random(1).randbytes(9_000)})[:-5000], "is damaged or cut off"),
        (zipped({"in/a.txt": b"1", "x/in/a.txt": b"2"}), "holds in/a.txt twice"),
        (zipped({"in/b.txt": b"1"}), "holds nothing called in/a.txt"),
    ],
)
def test_unsafe_archives_are_refused_whole(tmp_path, content, sentence):
    archive, folder = tmp_path / "archive", tmp_path / "deep" / "folder"
    archive.write_bytes(content)
    with pytest.raises(Refused, match=f"^archive {archive} .*{sentence}"):
        unpack(archive, ["in/a.txt"], folder, 50_000)
    assert names(tmp_path) == {"archive"} and list(folder.iterdir()) == []


def test_a_zip_whose_bytes_were_changed_is_refused(tmp_path):
    content = bytearray(zipped({"in/a.txt": b"hello hello"}))
    content[content.index(b"hello")] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(Refused, match="is damaged or cut off: Bad CRC"):
        unpack(tmp_path / "a.zip", ["in/*.txt"], tmp_path / "folder", 50_000)
    assert names(tmp_path) == {"a.zip"}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_only_what_is_wanted_is_unpacked(tmp_path, pack):
    (tmp_path / "a").write_bytes(pack({"top/in/1.txt": b"1", "top/in/2.txt": b"2", "b.py": b""}))
    paths = unpack(tmp_path / "a", ["in/*.txt"], tmp_path / "out", 1_000)
    assert sorted(paths) == [tmp_path / "out/in/1.txt", tmp_path / "out/in/2.txt"]
    assert names(tmp_path / "out") == {"in/1.txt", "in/2.txt"}
    assert (tmp_path / "out/in/2.txt").read_bytes() == b"2"


# ---- the command -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    """Three stories and dialogues of the mini world in the official formats."""
    folder = tmp_path_factory.mktemp("official")
    export(folder, num_stories=3, num_dialogues=3, num_captions=0, seed=0)
    return folder


@pytest.fixture
def fetching(tmp_path, capsys):
    """`fetching("visdial", changes)` runs the command; returns status, stdout and stderr."""
    file = tmp_path / "sources.json"

    def run(name: str, changes: dict | None = None, *options: str):
        if changes is not None:
            file.write_text(json.dumps({name: changes}))
        typed = ["fetch", name, "--data-dir", str(tmp_path / "data"), "--sources", str(file)]
        status = cli.main([*typed, *options])
        return status, *capsys.readouterr()

    return run


def visdial(server, official) -> dict:
    """Serve VisDial; returns the changes to the table."""
    text = (official / "visdial/visdial_1.0_val.json").read_bytes()
    folder = official / "visdial/VisualDialog_val2018"
    pictures = {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
    as_jpeg = {f"VisualDialog_val2018/{Path(n).stem}.jpg": jpeg(n[-5:-4] * 6 and "blue")
               for n in pictures}  # fmt: skip
    files = {
        "visdial/visdial_1.0_val.zip": zipped({"visdial_1.0_val.json": text}),
        "visdial/VisualDialog_val2018.zip": zipped(as_jpeg),
    }
    return {
        "files": {
            name: {"url": server.add(f"/{Path(name).name}", content), "size": len(content)}
            for name, content in files.items()
        }
    }


def test_visdial_is_fetched_unpacked_read_and_checked(server, official, fetching, tmp_path):
    changes = visdial(server, official)
    status, out, err = fetching("visdial", changes)
    assert (status, err) == (0, "") and "visdial: complete and checked" in out
    folder = tmp_path / "data/visdial"
    reading = read_visdial(folder / "visdial_1.0_val.json", folder / "VisualDialog_val2018")
    assert len(reading.examples) == 3
    assert not list(folder.glob("*.zip*")), "archives are not kept"
    server.log.clear()
    assert fetching("visdial")[0] == 0 and server.log == [], "all is here"
    picture = sorted((folder / "VisualDialog_val2018").iterdir())[0]
    picture.write_bytes(picture.read_bytes()[:-1] + b"x")  # as long as before
    status, _, err = fetching("visdial")
    assert status == 2 and f"{picture} is not the file that was downloaded" in err
    picture.unlink()
    assert fetching("visdial")[0] == 0 and picture.exists()
    assert [path for _, path, _ in server.log] == ["/VisualDialog_val2018.zip"]


def test_an_archive_that_changed_upstream_is_refused(server, official, fetching, tmp_path):
    changes = visdial(server, official)
    assert fetching("visdial", changes)[0] == 0
    (tmp_path / "data/visdial/visdial_1.0_val.json").unlink()
    server.add("/visdial_1.0_val.zip", zipped({"visdial_1.0_val.json": b'{"data": {}}'}))
    status, _, err = fetching("visdial")
    assert status == 2 and "has the sha256" in err and "as known before" in err
    assert not list((tmp_path / "data/visdial").glob("visdial_1.0_val*")), "nothing kept"


def vist(server, official, pictures: dict[str, str]) -> dict:
    """Serve VIST; `pictures` is photo id -> URL instead of the right one."""
    record = json.loads((official / "vist/val.story-in-sequence.json").read_text())
    for image in record["images"]:
        path = next((official / "vist/val_images").glob(f"{image['id']}.*"))
        right = server.add(f"/photos/{path.name}", path.read_bytes())
        image["url_o"] = pictures.get(image["id"], right)
    content = tarred({
        "sis/train.story-in-sequence.json": b"{}",
        "sis/val.story-in-sequence.json": json.dumps(record).encode(),
    })  # fmt: skip
    url = server.add("/SIS-with-labels.tar.gz", content)
    file = {"url": url, "size": len(content), "unpacked": 1_000_000}
    return {"files": {"vist/SIS-with-labels.tar.gz": file}, "pictures_size": 1_000_000}


def photo_ids(official) -> list[str]:
    record = json.loads((official / "vist/val.story-in-sequence.json").read_text())
    return sorted({panel["photo_flickr_id"] for (panel,) in record["annotations"]})


def test_vist_counts_the_pictures_that_cannot_be_had(server, official, fetching, tmp_path):
    ids = photo_ids(official)
    changes = vist(server, official, {
        ids[0]: server.url("/gone.jpg"),
        ids[1]: server.add("/page.jpg", PAGE, content_type="image/jpeg"),
        ids[2]: server.add("/moved.jpg", b"", redirect=server.url("/photo_unavailable.png")),
        ids[3]: server.add("/cut.jpg", jpeg(), cuts=[100], statuses=[503]),
    })  # fmt: skip
    server.add("/photo_unavailable.png", jpeg())
    status, out, err = fetching("vist", changes)
    assert (status, err) == (0, "")
    assert f"vist: 3 of {len(ids)} pictures cannot be had" in out
    for reason in ("answer 404 1", "a web page 1", "removed from Flickr 1"):
        assert reason in out
    folder = tmp_path / "data/vist"
    assert len(list((folder / "val_images").iterdir())) == len(ids) - 3, "no .part, no page"
    assert (folder / f"val_images/{ids[3]}.jpg").read_bytes() == jpeg()
    assert not (folder / "train.story-in-sequence.json").exists()
    reading = read_vist(folder / "val.story-in-sequence.json", folder / "val_images", max_skipped=1)
    assert reading.eligible == 3 and reading.skipped["missing image"] >= 1
    server.add("/gone.jpg", jpeg("green"))
    server.log.clear()
    status, out, _ = fetching("vist")
    assert status == 0 and f"vist: 2 of {len(ids)} pictures" in out
    assert len(server.log) == 4, "only the three that were missing (one through a redirect)"


def test_vist_without_most_of_its_pictures_is_an_error(server, official, fetching, tmp_path):
    gone = dict.fromkeys(photo_ids(official), server.url("/gone.jpg"))
    status, _, err = fetching("vist", vist(server, official, gone))
    n = len(gone)
    assert status == 2 and f"{n} of {n} pictures of vist cannot be had (answer 404 {n})" in err


def test_a_photo_id_is_no_path(server, fetching, tmp_path):
    record = {
        "annotations": [[{"photo_flickr_id": "../../evil"}]],
        "images": [{"id": "../../evil", "url_o": server.add("/evil.jpg", jpeg())}],
    }
    content = tarred({"sis/val.story-in-sequence.json": json.dumps(record).encode()})
    file = {"url": server.add("/sis.tar.gz", content), "size": len(content)}
    status, _, err = fetching("vist", {"files": {"vist/SIS-with-labels.tar.gz": file}})
    assert status == 2 and "has the photo id '../../evil'" in err
    assert ("GET", "/evil.jpg", None) not in server.log


def test_partiprompts_is_the_official_file(server, fetching, tmp_path):
    files = {}
    for kind in ("Alignment", "Realism"):
        name = f"PartiPromptsAllDecisions_{kind}.tsv"
        url = server.add(f"/{name}", (RECORDINGS / name).read_bytes(), cuts=[10_000])
        files[f"partiprompts/{name}"] = {"url": url}
    assert fetching("partiprompts", {"files": files})[0] == 0
    path = tmp_path / "data/partiprompts/PartiPromptsAllDecisions_Alignment.tsv"
    assert len(read_partiprompts(path).examples) == 1632
    shutil.rmtree(tmp_path / "data")
    changed = (RECORDINGS / path.name).read_bytes().replace(b"gen,gen", b"gen,ret", 1)
    server.add(f"/{path.name}", changed)
    status, _, err = fetching("partiprompts", {"files": files})
    assert status == 2 and "has the sha256" in err and not path.exists()


def gill(server) -> dict:
    """Serve a checkpoint whose sha256 upstream does not publish."""
    model = zipped({"archive/data.pkl": b"no pickle is read here"})
    contents = {
        "gill/model_args.json": b'{"n_visual_tokens": 4}',
        "gill/pretrained_ckpt.pth.tar": model,
        "gill/decision_model.pth.tar": model,
    }
    return {
        "files": {
            name: {"url": server.add(f"/{name}", content), "size": len(content), "sha256": None}
            for name, content in contents.items()
        }
    }


def test_the_first_download_is_recorded_and_checked_ever_after(server, fetching, tmp_path):
    assert fetching("gill", gill(server))[0] == 0
    record = json.loads((tmp_path / "data/checksums.json").read_text())
    about = record["files"]["gill/model_args.json"]
    assert about["sha256"] == sha(b'{"n_visual_tokens": 4}') and about["bytes"] == 22
    assert about["from"] == server.url("/gill/model_args.json")
    (tmp_path / "data/gill/model_args.json").unlink()
    server.add("/gill/model_args.json", b'{"n_visual_tokens": 5}')
    status, _, err = fetching("gill")
    assert status == 2 and err.count("\n") == 1 and "nothing is kept" in err
    assert "gill/model_args.json" not in names(tmp_path / "data")


def test_a_file_that_was_put_there_by_hand_is_taken(server, fetching, tmp_path):
    changes = gill(server)
    path = tmp_path / "data/gill/pretrained_ckpt.pth.tar"
    path.parent.mkdir(parents=True)
    mine = zipped({"mine": b"1"})  # once: the time is in it
    path.write_bytes(mine)
    assert fetching("gill", changes)[0] == 0
    assert path.read_bytes() == mine
    assert "/gill/pretrained_ckpt.pth.tar" not in [path for _, path, _ in server.log]
    path.unlink()
    path.write_bytes(PAGE)
    assert "is not the file that was downloaded" in fetching("gill")[2]


def test_space_is_looked_at_before_the_first_byte(server, fetching, tmp_path, monkeypatch):
    changes = gill(server)
    changes["files"]["gill/pretrained_ckpt.pth.tar"]["size"] = 3 * sources.GB
    free = shutil.disk_usage(tmp_path)._replace(free=1_500_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    status, _, err = fetching("gill", changes)
    assert status == 2 and "has 1.5 GB free, but 3.0 GB are still missing" in err
    assert server.log == []


def test_offline_downloads_nothing_and_says_what_is_missing(server, fetching, monkeypatch):
    changes = gill(server)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    status, _, err = fetching("gill", changes)
    assert status == 2 and err.count("\n") == 1
    assert "HF_HUB_OFFLINE is set, so nothing is downloaded; missing: gill/model_args.json" in err
    status, _, err = fetching("opt", {})
    assert status == 2 and "missing: facebook/opt-6.7b;" in err
    assert server.log == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert fetching("gill", changes)[0] == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetching("gill", changes)[0] == 0, "all is here"


def test_offline_pictures_that_were_refused_are_not_missing(
    server, official, fetching, tmp_path, monkeypatch
):
    ids = photo_ids(official)
    assert fetching("vist", vist(server, official, {ids[0]: server.url("/gone.jpg")}))[0] == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.log.clear()
    assert "1 of" in fetching("vist")[1] and server.log == []
    next((tmp_path / "data/vist/val_images").glob(f"{ids[1]}.*")).unlink()
    status, _, err = fetching("vist")
    assert status == 2 and f"missing: vist/val_images/{ids[1]}" in err
    assert server.log == []


def test_a_dry_run_tells_all_and_touches_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["fetch", *sources.SOURCES, "--dry-run"]) == 0
    out = capsys.readouterr().out
    for source in sources.SOURCES.values():
        assert source.licence in out
        assert all(file.url in out for file in source.files)
        assert not source.model or f"{source.model.repo} at {source.model.revision}" in out
    assert "13.3 GB" in out and "Nothing was downloaded." in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vsit": {}}, "no source 'vsit'; known are gill, clip"),
        ({"gill": {"files": {"gill/x": {}}}}, "source 'gill' has no file 'gill/x'; known are"),
        ({"gill": {"files": {"gill/model_args.json": {"uri": ""}}}}, "has no setting 'uri'"),
        ({"opt": {"model": {"branch": "main"}}}, "has no setting 'branch'"),
    ],
)
def test_a_sources_file_with_a_mistake(tmp_path, changes, sentence, capsys):
    (tmp_path / "s.json").write_text(json.dumps(changes))
    typed = ["fetch", "gill", "--dry-run", "--sources", str(tmp_path / "s.json")]
    assert cli.main(typed) == 2 and sentence in capsys.readouterr().err


def test_a_data_folder_that_is_none(fetching, tmp_path):
    (tmp_path / "data").write_text("a file")
    status, _, err = fetching("gill", {})
    assert status == 2 and err.count("\n") == 1 and f"cannot write {tmp_path / 'data'}" in err


def test_two_at_a_time_are_refused(server, fetching, tmp_path):
    (tmp_path / "data").mkdir()
    with FileLock(tmp_path / "data/.lock"):
        status, _, err = fetching("gill", gill(server))
    assert status == 2 and "another run is writing to" in err and server.log == []


def test_the_documented_command_for_cc3m(tmp_path):
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    block = text.partition("## CC3M")[2].partition("```sh\n")[2].partition("```")[0]
    made, loop = block.split("\n", 1)
    assert made.startswith("python3 -m venv .venv && ")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/img2dataset").write_text('#!/bin/sh\necho "$*" >> log\n')
    (tmp_path / ".venv/bin/img2dataset").chmod(0o755)
    for name in ("Train_GCC-training", "Validation_GCC-1.1.0-Validation"):
        (tmp_path / f"{name}.tsv").write_text("a cat\thttp://x/cat.jpg\n")
    subprocess.run(["sh", "-euc", loop], cwd=tmp_path, check=True)
    assert (tmp_path / "train.tsv").read_text() == "caption\turl\na cat\thttp://x/cat.jpg\n"
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.startswith("--url_list train.tsv --output_folder train_shards --input_format tsv")
    assert second.startswith("--url_list validation.tsv --output_folder validation_shards")
    assert first.endswith('["noai", "noimageai", "noindex", "noimageindex"]')


def test_ctrl_c_leaves_nothing_and_the_next_run_begins_again(server, tmp_path):
    changes = gill(server)
    big = zipped({"a": random.Random(2).randbytes(3_000_000)})
    held = threading.Event()
    changes["files"]["gill/pretrained_ckpt.pth.tar"] |= {
        "url": server.add("/big", big, hold=held), "size": len(big)
    }  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps({"gill": changes}))
    typed = ["-m", "gill_lite", "fetch", "gill", "--data-dir", "data", "--sources", "s.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, *typed], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background
    )  # fmt: skip
    folder, deadline = tmp_path / "data/gill", time.monotonic() + 30
    written = lambda: sum(p.stat().st_size for p in folder.glob(".pretrained*"))  # noqa: E731
    while time.monotonic() < deadline and written() < 1_000_000:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=20)
    held.set()
    assert run.returncode == 130 and "the same command continues" in err
    assert names(folder) == {"model_args.json"}
    (folder / ".pretrained_ckpt.pth.tar.x").write_bytes(b"left by a kill")
    subprocess.run([sys.executable, *typed], cwd=tmp_path, env=environment, check=True)
    assert server.requests("/big") == [None, None], "what was whole is not asked for again"
    assert len(server.requests("/gill/model_args.json")) == 1
    assert (folder / "pretrained_ckpt.pth.tar").read_bytes() == big
    assert not list(folder.glob(".*"))


# ---- the hub -----------------------------------------------------------------------------

UNSAFE = {"pytorch_model.bin": b"pickle", "modeling.py": b"import os", "x.pkl": b"pickle",
          "flax_model.msgpack": b"", "README.md": b"hello"}  # fmt: skip


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 77; exec "$@"'


@pytest.fixture
def hub(server, tmp_path):
    """`hub("fetch clip", OFFLINE=...)` runs the command in its own process on an empty cache.

    read_only: nobody may write into the cache; skipped where no disk can be mounted.
    """

    def run(*typed: str, code: str | None = None, read_only: bool = False, **environment):
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": server.url(),
            "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1", **environment,
        }  # fmt: skip
        command = [sys.executable, *(["-c", code] if code else ["-m", "gill_lite", *typed])]
        if read_only:
            if not shutil.which("unshare"):
                pytest.skip("no disk can be mounted here")
            command = ["unshare", "-m", "sh", "-c", READ_ONLY, str(tmp_path / "cache"), *command]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True,
                              text=True)  # fmt: skip
        if read_only and (done.returncode == 77 or done.stderr.startswith("unshare")):
            pytest.skip("no disk can be mounted here")
        return done

    return run


def serve_paper_models(server) -> None:
    """The mini models under the paper's names and commits, the LM as pickles only."""
    import torch
    from safetensors.torch import load_file

    mini = ROOT / "data/mini"
    revision = {m.repo: m.revision for s in sources.SOURCES.values() if (m := s.model)}
    for name, repo in (("clip", "openai/clip-vit-large-patch14"),
                       ("diffusion", "stable-diffusion-v1-5/stable-diffusion-v1-5")):  # fmt: skip
        server.add_model(repo, revision[repo], mini / name)
        server.models[repo][1].update(UNSAFE)
    server.models[repo][1]["unet/diffusion_pytorch_model.bin"] = b"pickle"
    server.models[repo][1]["v1-5-pruned.safetensors"] = b"a second copy of it all"
    server.add_model("facebook/opt-6.7b", revision["facebook/opt-6.7b"], mini / "lm")
    files = server.models["facebook/opt-6.7b"][1]
    weights = list(load_file(mini / "lm/model.safetensors").items())
    del files["model.safetensors"]
    for number, half in enumerate((weights[::2], weights[1::2]), 1):
        buffer = io.BytesIO()
        torch.save(dict(half), buffer)
        files[f"pytorch_model-{number:05d}-of-00002.bin"] = buffer.getvalue()
    files["pytorch_model.bin.index.json"] = b"{}"


LOAD = """
import torch
from safetensors.torch import load_file
from gill_lite.model.backbones import load_backbones
from gill_lite.files import DATA
from gill_lite.profiles import PAPER
paper = load_backbones(PAPER)
for module, name in ((paper.lm, "lm/model"), (paper.vision, "clip/model"),
                     (paper.pipeline.unet, "diffusion/unet/diffusion_pytorch_model")):
    weights = module.state_dict()
    for key, value in load_file(DATA / f"mini/{name}.safetensors").items():
        assert torch.equal(weights[key], value.to(weights[key])), key
print("same weights")

from huggingface_hub import constants
from transformers import AutoModelForCausalLM
from gill_lite.profiles import REVISIONS
constants.HF_HUB_OFFLINE = False
options = {"revision": REVISIONS[PAPER.lm], "use_safetensors": True, "output_loading_info": True}
model, found = AutoModelForCausalLM.from_pretrained(PAPER.lm, **options)
assert not found["missing_keys"], found
print("with a network too")
"""


def test_hub_models_come_pinned_safe_and_loadable_offline(server, hub, tmp_path):
    serve_paper_models(server)
    done = hub("fetch", "clip", "opt", "sd")
    assert done.returncode == 0, done.stderr
    for source in ("clip", "opt", "sd"):
        model = sources.SOURCES[source].model
        assert (
            f"{source}: complete and checked ({model.repo}, commit {model.revision}" in done.stdout
        )
    asked = {name for model in server.models for name in server.downloaded(model)}
    pickles = {name for name in asked if name.endswith(".bin")}
    assert pickles == {f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)}, "to be converted"
    assert not asked & ({*UNSAFE, "v1-5-pruned.safetensors"} - pickles)
    left = {path.suffix for path in (tmp_path / "cache").rglob("snapshots/**/*") if path.is_file()}
    assert left == {".json", ".safetensors"}
    assert names(tmp_path / "data") == {"paper/checksums.json", "paper/.lock"}
    server.log.clear()
    assert hub("fetch", "clip", "opt", "sd").returncode == 0
    assert server.log == [], "all is here and checked"
    done = hub(code=LOAD, HF_HUB_OFFLINE="1")
    assert done.stdout == "same weights\nwith a network too\n", done.stderr
    assert all("facebook/opt" in path for _, path, _ in server.log), "asked before the second part"
    server.log.clear()
    done = hub(code=LOAD, read_only=True)
    assert done.stdout == "same weights\nwith a network too\n", done.stderr
    assert all("facebook/opt" in path for _, path, _ in server.log), "not asked where all is here"


def test_a_cache_that_is_read_only_and_not_whole_is_named(server, hub, tmp_path):
    serve_paper_models(server)
    assert hub("fetch", "clip").returncode == 0
    [weights] = (tmp_path / "cache").rglob("snapshots/*/model.safetensors")
    weights.resolve().unlink()
    weights.unlink()
    done = hub("fetch", "clip", read_only=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = f"cannot write the hub's cache {tmp_path / 'cache' / 'hub'}, which HF_HOME names (Read-"
    assert said in done.stderr and "change its rights or choose another folder" in done.stderr


def test_hub_models_that_differ_are_refused(server, hub, tmp_path):
    model = sources.SOURCES["clip"].model
    server.add_model(model.repo, "f" * 40, ROOT / "data/mini/clip")
    done = hub("fetch", "clip")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"gill-lite: {model.repo} cannot be fetched from the hub" in done.stderr
    server.add_model(model.repo, model.revision, {"config.json": b"{}", "model.h5": b""})
    done = hub("fetch", "clip")
    assert done.returncode == 2 and "holds no weights of the names looked for" in done.stderr
    server.add_model(model.repo, model.revision, ROOT / "data/mini/clip")
    content = server.models[model.repo][1]["model.safetensors"]
    path = f"/{model.repo}/resolve/{model.revision}/model.safetensors"
    headers = {"X-Repo-Commit": model.revision}
    server.add(path, content[:-1] + b"x", etag=f'"{sha(content)}"', headers=headers)
    done = hub("fetch", "clip")
    assert done.returncode == 2 and "does not have the sha256 that the hub publishes" in done.stderr
    assert not list((tmp_path / "cache").rglob("snapshots/*/model.safetensors"))
    server.add(path, content, etag=f'"{sha(content)}"', headers=headers, cuts=[1_000_000])
    assert hub("fetch", "clip").returncode == 0
    assert len(server.requests(path)) == 3, "the hub's own client asks again"
    weights = next((tmp_path / "cache").rglob("snapshots/*/model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(content)
    done = hub("fetch", "clip")
    assert done.returncode == 2 and f"{weights} is not the file that was downloaded" in done.stderr


def test_without_a_pin_the_first_commit_is_recorded_and_kept(server, hub, tmp_path):
    (tmp_path / "s.json").write_text(
        json.dumps({"clip": {"model": {"repo": "some/clip", "revision": None}}})
    )
    server.add_model("some/clip", "a" * 40, ROOT / "data/mini/clip")
    typed = ("fetch", "clip", "--sources", "s.json")
    assert hub(*typed).returncode == 0
    record = json.loads((tmp_path / "data/paper/checksums.json").read_text())
    assert record["models"]["some/clip"]["revision"] == "a" * 40
    shutil.rmtree(tmp_path / "cache")
    server.models["some/clip"] = ("b" * 40, server.models["some/clip"][1])
    done = hub(*typed)
    assert done.returncode == 2 and "cannot be fetched" in done.stderr, "main moved on, we do not"
