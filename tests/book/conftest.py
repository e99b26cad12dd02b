"""The built book, its pages, and what a browser finds on them."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROWSER = Path(__file__).parent / "browser"
NOT_OURS = ("_static/", "_sources/", "_modules/")


@pytest.fixture(scope="session")
def html() -> Path:
    """The built site: $BOOK_HTML, or what `make book` left."""
    folder = Path(os.environ.get("BOOK_HTML", ROOT / "_build" / "html")).resolve()
    if not (folder / "book" / "index.html").exists():
        pytest.skip(f"there is no built book in {folder.name}: run `make book` first")
    return folder


@pytest.fixture(scope="session")
def pages(html: Path) -> list[str]:
    """The book's own pages, relative to the site's root."""
    found = sorted(p.relative_to(html).as_posix() for p in html.rglob("*.html"))
    return [p for p in found if not p.startswith(NOT_OURS)]


@pytest.fixture(scope="session")
def node() -> Callable[..., Any]:
    """``node("visit.mjs", word, …)``: a script of the folder ``browser`` with Chromium as its first word; its JSON."""
    program, chromium = shutil.which("node"), _chromium()
    if program is None or chromium is None or not (BROWSER / "node_modules" / "playwright-core").exists():
        pytest.skip("needs Node.js, Chromium ($CHROMIUM or on the path) and `make browser`")

    def run(script: str, *words: Any) -> Any:
        command = [program, script, chromium, *map(str, words)]
        done = subprocess.run(command, cwd=BROWSER, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def browsed(html: Path, pages: list[str], node: Callable[..., Any]) -> dict:
    """What Chromium found: ``visits``, a list with an entry a page, and ``theme``."""
    own = [p for p in pages if p.startswith("book/") or p in ("search.html", "genindex.html")]
    with _serve(html) as base:
        return node("visit.mjs", base, *own)


def _chromium() -> str | None:
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    names.append("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    return next((shutil.which(n) for n in names if n and shutil.which(n)), None)


class _serve:
    """The site on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_) -> None: ...

        handler = functools.partial(Quiet, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()
