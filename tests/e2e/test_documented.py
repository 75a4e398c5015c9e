"""Every command and every Python block of the documentation runs, in the folder of a small shop."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from documented import ELSEWHERE, SHOP, TABLE, Documented, documented, firsts
from object_store import s3_server, variables
from pages import PAGES, blocks
from support import R4T, ROOT, TINY, environment

from tests.integration.serve_process import served

pytestmark = pytest.mark.slow

EVERY = documented()
RUN = firsts([one for one in EVERY if not ELSEWHERE & set(one.told)])
FOODS = ("apple", "carrot", "lemon", "walnut", "ginger", "rice", "bean", "leek", "plum", "barley")
DISHES = ("soup", "cake", "salad", "pie", "stew", "bread")


def small(*layers: dict[str, Any]) -> dict[str, Any]:
    """One configuration over the other, and tests/e2e/tiny.yaml over all of them."""
    made: dict[str, Any] = {}
    for layer in (*layers, yaml.safe_load(TINY.read_text()) | {"name": layers[0]["name"]}):
        for key, value in layer.items():
            made[key] = {**made.get(key, {}), **value} if isinstance(value, dict) else value
    return made


def execute(folder: Path, *words: str, env: dict[str, str] | None = None) -> str:
    """Runs a command as a reader would who stands in `folder`. Returns what it prints; fails where it fails."""
    command = [R4T if words[0] == "r4t" else sys.executable, *words[1:]]
    done = subprocess.run(
        command, cwd=folder, env=environment({"PYTHONPATH": str(ROOT), **(env or {})}), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which s3:// is a server of this machine."""
    with s3_server(tmp_path_factory.mktemp("store") / "log") as port:
        yield variables(port)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the catalogue and configurations that the pages speak of, a finished run, and its export."""
    folder = tmp_path_factory.mktemp("desk")
    names = [f"{food} {dish}" for food in FOODS for dish in DISHES]
    meals = ["lunch" if "soup" in name or "salad" in name else "dinner" for name in names]
    table = {"item_id": [f"i{n}" for n in range(len(names))], "text": names, "meal": meals}
    pq.write_table(pa.table(table), folder / "items.parquet")
    own = yaml.safe_load(blocks(ROOT / "docs" / "own_catalogue.md", "yaml")[0])
    (folder / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.yaml"):
        whole = yaml.safe_load(path.read_text())
        made = whole if path.stem == "paper" else small(whole)
        (folder / "configs" / path.name).write_text(yaml.safe_dump(made))
    quick = {"distill": {"steps": 4, "validate_every": 2}, "learner": {"ranks": 1}}
    (folder / "shop.yaml").write_text(yaml.safe_dump(small(own, quick)))
    (folder / "new.yaml").write_text(yaml.safe_dump(small(own | {"name": "new"})))
    (folder / "docs" / "figures").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "reliability.md", folder / "docs")
    shutil.copy(ROOT / "benchmarks" / "chaos" / "published.jsonl", folder / "chaos.jsonl")
    shutil.copy(ROOT / "benchmarks" / "rates.json", folder)
    execute(folder, "r4t", "run", "shop.yaml")
    execute(folder, "r4t", "run", "new.yaml", "--run-dir", "runs/new", "--stage", "prepare")
    execute(folder, "r4t", "export", SHOP, "served", "--onnx")
    return folder


@pytest.mark.parametrize("command", RUN, ids=lambda command: command.text)
def test_a_command_runs(command: Documented, desk: Path, store: dict[str, str]) -> None:
    if "long" in command.told and not os.environ.get("R4T_LONG"):
        pytest.skip(f"{command.told['long']}: R4T_LONG=1 runs it")
    words = command.as_run(desk)
    said = execute(desk, *words, env=store if any("s3://" in word for word in words) else None)
    if "benchmarks.synthesis" in words and "--engine" in words:
        (desk / "measured.json").write_text(said)  # which `r4t sets plan` reads


def test_every_other_command_is_run_by_a_test_or_says_why_not() -> None:
    used = {one.entry for one in EVERY if one.entry}
    assert set(TABLE) == used, "entries of documented.yaml that no page needs"
    for entry in used:
        told, words = TABLE[entry], entry.split()
        assert len((ELSEWHERE | {"more"}) & set(told)) <= 1, entry
        if test := told.get("by") or told.get("parts"):
            named = (f'"{words[1]}"',) if words[0] == "r4t" else (words[2], f"import {words[2].rpartition('.')[2]}")
            text = (ROOT / "tests" / test).read_text()
            assert "parts" in told or any(name in text for name in named), f"{test} does not run {entry}"


PYTHON = [(page.name, block) for page in PAGES for block in blocks(page, "python")]


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=lambda value: value[:20])
def test_a_python_block_runs(page: str, block: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from r4t.retriever import R4TRetriever

    monkeypatch.chdir(desk)
    names: dict[str, Any] = {"MARGIN": np.ones(60), "retriever": None}
    text = block.replace('"DIR"', '"served"').replace('"runs/mine"', f'"{SHOP}"')
    with contextlib.ExitStack() as stack:
        if "retriever" in text:
            names["retriever"] = R4TRetriever.from_pretrained(desk / "served")
        if "127.0.0.1:8000" in text:
            url, _ = stack.enter_context(served(desk / "served", "--lite", "--port", "0"))
            text = text.replace("http://127.0.0.1:8000", url)
        exec(compile(text, page, "exec"), names)  # noqa: S102  our own pages


def test_curl_asks_as_the_page_says(desk: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (block,) = [one for one in blocks(ROOT / "docs" / "serving.md", "") if one.startswith("curl")]
    with served(desk / "served", "--lite", "--port", "0") as (url, _):
        for line in block.replace("\\\n", " ").strip().splitlines():
            line = line.replace("localhost:8000", url).replace("curl ", "curl -sS --fail-with-body ")
            environ = os.environ | {"R4T_SERVE_KEY": "x"}
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=environ)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
