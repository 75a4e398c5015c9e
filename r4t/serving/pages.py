"""The web page's files: those of the package folder `r4t/explorer`, by their names and no others."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
HOME = "index.html"
PLAIN = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>R4T</title>
<p>This server answers <code>POST /v1/retrieve</code>; <a href="/openapi.json">openapi.json</a> says how.</p></html>
"""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Page:
    content: bytes
    media_type: str


def pages() -> dict[str, Page]:
    """Every file by its name, read once: a request can name nothing else."""
    folder = files("r4t") / "explorer"
    found = {HOME: Page(PLAIN, TYPES[".html"])}
    if folder.is_dir():
        for file in folder.iterdir():
            suffix = file.name[file.name.rfind(".") :]
            if file.is_file() and suffix in TYPES:
                found[file.name] = Page(file.read_bytes(), TYPES[suffix])
    return found
