"""The page's files, read once into memory: a request can name nothing else on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}
_INDEX = "index.html"


@dataclass(frozen=True)
class PageFile:
    """A file of the page as it is sent."""

    body: bytes
    content_type: str
    etag: str


def read_page() -> dict[str, PageFile]:
    """By URL path; the index is "/"."""
    table = {}
    for entry in files("rap_edge.runtime.serve").joinpath("page").iterdir():
        suffix = entry.name.rpartition(".")[2]
        if entry.is_file() and suffix in _TYPES:
            body = entry.read_bytes()
            path = "/" if entry.name == _INDEX else f"/{entry.name}"
            table[path] = PageFile(body, _TYPES[suffix], hashlib.sha256(body).hexdigest()[:16])
    return table


def add_page(app: web.Application) -> None:
    """Route every file of the page."""
    for path, file in read_page().items():
        app.router.add_get(path, _sender(file))


def _sender(file: PageFile) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def send(request: web.Request) -> web.Response:
        headers = {"ETag": f'"{file.etag}"', "Cache-Control": "no-cache", "Content-Type": file.content_type}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, headers=headers)

    return send
