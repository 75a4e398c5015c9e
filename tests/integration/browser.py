"""A real headless Chromium, and a served catalogue with names that no page should believe."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from export_fixtures import NAMES, made_run
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving_fixtures import COLUMNS, application, running
from support import absent

from jobs.export import export
from r4t.evaluation.run_page import run_page
from r4t.evaluation.training_samples import save_samples
from r4t.lineage import write_json
from r4t.serving.version import Version
from r4t.tracking import MetricsFile

VARIABLE = "R4T_CHROMIUM"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ASKED = "?q=grilled+salmon&k=4"
METHODS = ("no_fanout", "mmr", "r4t_diffusion")
TITLES = ["No fan-out", "MMR", "R4T-Diffusion"]
THEMES = ("light", "dark")
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
PATIENCE = 30_000  # milliseconds: the machine may be busy


def chromium() -> str:
    """Path of the system's Chromium. Skips the test where there is none; in continuous integration fails it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        absent("chromium", f"no Chromium on this machine: install one, or name it in {VARIABLE}")
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened_page(browser: Browser, url: str, *, width: int = 1280, height: int = 900, **context: Any) -> Iterator[Page]:
    """A page that has settled. Whatever it throws, and whatever it asks of another origin, fails the test."""
    origin = url.split("/?")[0].rstrip("/")
    wrong: list[str] = []
    with browser.new_context(viewport={"width": width, "height": height}, **context) as made:
        page = made.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        page.on("request", lambda asked: None if asked.url.startswith(origin) else wrong.append(asked.url))
        page.goto(url)
        page.wait_for_load_state("networkidle")
        yield page
    assert wrong == []


def make_served(folder: Path) -> Path:
    """A run in `folder/run` with hostile names and something for its page, and its retriever in `folder/exported`."""
    names = [HOSTILE if place == 0 else f"{name} <b>{place}</b>" for place, name in enumerate(NAMES)]
    run = made_run(folder / "run", name=names, **COLUMNS)
    export(run, folder / "exported", onnx=True)
    log = MetricsFile(run / "metrics.jsonl")
    for step in (0, 15, 30):
        log.write("folm", step + 1, {"reward/mean": 0.3 + step / 100, "distinct": 0.9})
        log.write("valid", step, {"reward": 0.3 + step / 90, "distinct": 0.8})
        sample = {"query": HOSTILE, "reward": 0.4, "valid": True, "subqueries": [HOSTILE], "items": [HOSTILE]}
        save_samples(run / "folm", step, [sample])
    log.close()
    cells = {"diversity": {"mean": 0.6, "stderr": 0.01}, "content_alignment": {"mean": 0.3, "stderr": 0.01}}
    methods = {"mmr": cells, "r4t_diffusion": {"diversity": {"mean": 0.7}, "content_alignment": {"mean": 0.2}}}
    measured = {"dataset": "dishes", "task": "oar", "n_queries": 9, "database_items": len(NAMES), "methods": methods}
    write_json(run / "evaluate" / "metrics.json", measured)
    return folder


@contextmanager
def served(folder: Path, version: Any, **limits: Any) -> Iterator[str]:
    """Address of a server of what `make_served` made."""
    with running(application(version, run_page=partial(run_page, folder / "run"), **limits)) as url:
        yield f"{url}/"


class Held:
    """A version that answers only once it is let, so that a server can be full."""

    def __init__(self, version: Version) -> None:
        self.version, self.let, self.asked = version, threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.version, name)

    def answer(self, asked: Any) -> Any:
        self.asked.set()
        assert self.let.wait(60)
        return self.version.answer(asked)


def names(page: Page, method: str) -> list[str]:
    return page.locator(f"article[data-method={method}] .name").all_inner_texts()


def settled(page: Page) -> None:
    """Every method has answered."""
    expect(page.locator("article.column[aria-busy]")).to_have_count(0)
    expect(page.locator("article.column .items, article.column .failed, article.column .none").first).to_be_visible()


def grave(page: Page) -> list[tuple[str, str]]:
    """What axe-core finds that is serious or critical."""
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
