"""A file server on 127.0.0.1 that misbehaves on request, and the part of the hub's API that
huggingface_hub needs to download a model. Used by test_fetch.py and by the end-to-end test."""

import hashlib
import json
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

HEAVY = (".safetensors", ".bin")  # what the hub keeps in large-file storage


@dataclass
class Served:
    """One file and how it is served. Lists are used up, one entry an answer."""

    content: bytes
    content_type: str = "application/octet-stream"
    etag: str | None = '"v1"'
    statuses: list[int] = field(default_factory=list)  # answers of these come first
    cuts: list[int] = field(default_factory=list)  # bytes of the body before the line is cut
    length: bool = True  # says Content-Length; without it the body ends with the connection
    length_error: int = 0  # added to Content-Length
    redirect: str | None = None
    hold: threading.Event | None = None  # waits for it after half of the body
    drip: float = 0  # seconds before each byte of the body's second half
    headers: dict[str, str] = field(default_factory=dict)


class LocalServer:
    """`with LocalServer() as server: server.add("/a.zip", content); server.url("/a.zip")`.

    `log` lists (method, path, Range header or None) of every request.
    """

    def __init__(self):
        self.files: dict[str, Served] = {}
        self.models: dict[str, tuple[str, dict[str, bytes]]] = {}
        self.log: list[tuple[str, str, str | None]] = []

    def __enter__(self) -> "LocalServer":
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.http.shutdown()
        self.http.server_close()

    def url(self, path: str = "") -> str:
        """The address of `path`; without one, what HF_ENDPOINT takes."""
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def add(self, path: str, content: bytes, **how) -> str:
        """Serve `content` at `path`; `how` are fields of Served. Returns the URL."""
        self.files[path] = Served(content, **how)
        return self.url(path)

    def add_model(self, repo: str, revision: str, files) -> None:
        """Serve a hub model: `files` is name -> bytes, or a folder."""
        if isinstance(files, str | Path):
            root = Path(files)
            paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
            files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
        self.models[repo] = (revision, dict(files))

    def requests(self, path: str) -> list[str | None]:
        """The Range headers of the GETs of `path`."""
        return [span for method, asked, span in self.log if (method, asked) == ("GET", path)]

    def downloaded(self, repo: str) -> set[str]:
        """The names of a model's files that were asked for."""
        start = f"/{repo}/resolve/"
        asked = [path[len(start) :] for method, path, _ in self.log if path.startswith(start)]
        return {name.split("/", 1)[1] for name in asked}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may leave
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: LocalServer

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.owner.log.append((self.command, path, self.headers.get("Range")))
        if path in self.owner.files:
            self.send_file(self.owner.files[path])
        elif served := self.hub(path):
            self.send_file(served)
        else:
            self.plain(404, {"X-Error-Code": "EntryNotFound"})

    def plain(self, status: int, headers=()) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()

    # ---- one file ----

    def send_file(self, served: Served) -> None:
        if served.statuses:
            return self.plain(served.statuses.pop(0))
        if served.redirect:
            return self.plain(302, {"Location": served.redirect})
        start, size = self.first_byte(), len(served.content)
        self.send_response(206 if start else 200)
        headers = {"Content-Type": served.content_type, **served.headers}
        if served.length:
            headers["Content-Length"] = str(size - start + served.length_error)
        if served.etag:
            headers["ETag"] = served.etag
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send_body(served, served.content[start:])

    def first_byte(self) -> int:
        found = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        return int(found[1]) if found else 0

    def send_body(self, served: Served, body: bytes) -> None:
        try:
            if served.hold is not None:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                served.hold.wait(20)
                body = body[len(body) // 2 :]
            if served.cuts:
                body, self.close_connection = body[: served.cuts.pop(0)], True
            if served.length_error < 0:
                body = body[: served.length_error]
            if served.drip:
                self.wfile.write(body[: len(body) // 2])
                for byte in body[len(body) // 2 :]:
                    time.sleep(served.drip)
                    self.wfile.write(bytes([byte]))
                body = b""
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if served.length_error > 0 or not served.length:
            self.close_connection = True

    # ---- the hub ----

    def hub(self, path: str) -> Served | None:
        for repo, (revision, files) in self.owner.models.items():
            if path.startswith(f"/{repo}/resolve/"):
                return self.hub_file(path[len(f"/{repo}/resolve/") :], revision, files)
            if path.startswith(f"/api/models/{repo}/tree/"):
                return _json([_entry(name, files[name]) for name in files])
            if path in (f"/api/models/{repo}", f"/api/models/{repo}/revision/{revision}",
                        f"/api/models/{repo}/revision/main"):  # fmt: skip
                return _json(_info(repo, revision, files))
        return None

    def hub_file(self, rest: str, revision: str, files: dict[str, bytes]) -> Served | None:
        at, name = rest.split("/", 1)
        if at not in (revision, "main") or name not in files:
            return None
        digest = _oid(name, files[name])
        return Served(files[name], etag=f'"{digest}"', headers={"X-Repo-Commit": revision})


def _oid(name: str, content: bytes) -> str:
    if name.endswith(HEAVY):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(name: str, content: bytes) -> dict:
    entry = {"type": "file", "path": name, "size": len(content), "oid": _oid(name, content)}
    if name.endswith(HEAVY):
        entry["oid"] = hashlib.sha1(content).hexdigest()
        entry["lfs"] = {"oid": _oid(name, content), "size": len(content), "pointerSize": 134}
    return entry


def _info(repo: str, revision: str, files: dict[str, bytes]) -> dict:
    siblings = []
    for name, content in files.items():
        about = {"rfilename": name, "size": len(content), "blobId": _entry(name, content)["oid"]}
        if name.endswith(HEAVY):
            digest = _oid(name, content)
            about["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        siblings.append(about)
    plain = {"tags": [], "private": False, "gated": False, "disabled": False}
    return {"id": repo, "modelId": repo, "sha": revision, "siblings": siblings, **plain}


def _json(value) -> Served:
    return Served(json.dumps(value).encode(), content_type="application/json", etag=None)
