"""The page as a server: one address, one private folder for uploads, headers that keep it in."""

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gill_lite.errors import GillError

MAX_BYTES = "10mb"  # of an upload
HEADERS = [
    # What the page is made of comes from this server alone; pictures stand in it themselves.
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    """The HEADERS on every response, and no pages of others through this server."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        """As an ASGI application, so that answers still stream and who leaves is noticed."""

        async def guarded(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        if "file=http" in scope.get("path", "").lower():
            await send({"type": "http.response.start", "status": 403, "headers": HEADERS})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, receive, guarded)


def listen(host: str, port: int) -> socket.socket:
    """A place to serve at. port: 0 for any that is free. Raises GillError where it is taken."""
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        reason = str(error).partition(" (while")[0].rpartition("] ")[2].rstrip(".")
        raise GillError(
            f"cannot serve at {host}:{port} ({reason}); name another --port or --host"
        ) from error


def serve(responder, server: socket.socket) -> None:
    """Serve the page until it is interrupted. Raises GillError where there is no gradio."""
    with TemporaryDirectory(prefix="gill-page-") as folder:
        # Read when gradio is imported: where uploads lie until they are read, and no statistics.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        app = _application(responder, folder)
        import uvicorn

        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        responder.gallery  # noqa: B018  drawn at first use, which is not to be a visitor's
        host, port = server.getsockname()[:2]
        print(f"http://{host}:{port} (Ctrl-C ends it)", flush=True)
        uvicorn.Server(config).run(sockets=[server])


@contextmanager
def _no_proxy():
    """gradio makes clients when it is imported, of proxies, too, that no client can be made of."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "*"
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        os.environ |= {} if before is None else {"no_proxy": before}


def _application(responder, folder: str):
    try:
        with _no_proxy():
            import gradio
    except ModuleNotFoundError as error:
        raise GillError(
            "the page needs gradio; install it with `pip install 'gill-lite[demo]'`"
        ) from error
    from fastapi import FastAPI

    from gill_lite.demo.layout import CSS, build
    from gill_lite.demo.page import Page

    app = FastAPI(openapi_url=None)
    app.add_middleware(Guard)
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(
        body_text_color_subdued="*neutral_600", input_placeholder_color="*neutral_500"
    )  # grey that can be read on white
    return gradio.mount_gradio_app(
        app, build(Page(responder, Path(folder))), "/", footer_links=[], run_history=False,
        max_file_size=MAX_BYTES, enable_monitoring=False, pwa=False, mcp_server=False,
        ssr_mode=False, css=CSS, theme=theme,
    )  # fmt: skip
