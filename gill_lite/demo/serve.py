"""The page as a server: one address, one private folder for uploads, headers that keep it in."""

import os
import socket
from tempfile import TemporaryDirectory

from gill_lite.errors import GillError

MAX_BYTES = "10mb"  # of an upload
HEADERS = {
    # What the page is made of comes from this server alone; pictures stand in it themselves.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def serve(responder, host: str, port: int) -> None:
    """Serve the page until it is interrupted.

    port: 0 for any that is free. Raises GillError where there is no gradio, or no such place.
    """
    try:
        server = socket.create_server((host, port))
    except OSError as error:
        raise GillError(
            f"cannot serve at {host}:{port} ({error.strerror}); name another --port or --host"
        ) from error
    with TemporaryDirectory(prefix="gill-page-") as folder:
        # Read when gradio is imported: where uploads lie until they are read, and no statistics.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        app = _application(responder, folder)
        import uvicorn

        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        responder.gallery  # noqa: B018  drawn at first use, which is not to be a visitor's
        print(f"http://{host}:{server.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        uvicorn.Server(config).run(sockets=[server])


def _application(responder, folder: str):
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise GillError(
            "the page needs gradio; install it with `pip install gill-lite[demo]`"
        ) from error
    from pathlib import Path

    from fastapi import FastAPI, Response

    from gill_lite.demo.layout import CSS, build
    from gill_lite.demo.page import Page

    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def guard(request, call_next):
        if "file=http" in request.url.path.lower():  # gradio would fetch other people's pages
            return Response(status_code=403)
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    font = ["system-ui", "sans-serif"]
    return gradio.mount_gradio_app(
        app, build(Page(responder, Path(folder))), "/", footer_links=[], run_history=False,
        max_file_size=MAX_BYTES, enable_monitoring=False, pwa=False, mcp_server=False,
        ssr_mode=False, show_error=True, css=CSS,
        theme=gradio.themes.Default(font=font, font_mono=["monospace"]),
    )  # fmt: skip
