"""Every command, block and link of the documentation is checked against what is in the tree."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from pages import FENCE, PAGES, blocks, commands
from support import ROOT

from jobs.cli import app
from r4t.config import Config, parse_config

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@by_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        if words[0] == "r4t":
            command = typer.main.get_command(app)
            words = words[1:]
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
            assert not hasattr(command, "commands") or words in ([], ["--help"]), f"r4t has no command {words}"
            known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
            assert {word.split("=")[0] for word in words if word.startswith("-")} <= known, words
        elif words[2].startswith(("benchmarks.", "jobs.")):
            module = ROOT / words[2].replace(".", "/")
            source = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
            assert source.is_file(), words
            for option in (word.split("=")[0] for word in words[3:] if word.startswith("--")):
                assert f'"{option}"' in options_of(source), f"{source.name} has no {option}"


def options_of(source: Path) -> str:
    """The source, with those of the benchmarks that it imports."""
    names = re.findall(r"from benchmarks\.(\w+) import", source.read_text())
    files = [ROOT / "benchmarks" / f"{name}.py" for name in names]
    return source.read_text() + "".join(file.read_text() for file in files if file.is_file())


@by_page
def test_yaml_blocks_are_parts_of_a_configuration(page: Path) -> None:
    for block in blocks(page, "yaml"):
        for raw in yaml.safe_load_all(block):
            if set(raw) <= set(Config.model_fields):
                parse_config(raw)
            else:
                section = "nouns" if "nouns" in raw else ""
                assert section or "openai" in page.name, f"{page.name}: unknown keys {sorted(raw)}"


@by_page
def test_python_blocks_compile_and_import_what_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                parts = [one.name for one in node.names if not hasattr(module, one.name)]
                missing = [name for name in parts if not importlib.util.find_spec(f"{node.module}.{name}")]
                assert missing == [], f"{page.name}: {node.module} has no {missing}"
            elif isinstance(node, ast.Import):
                assert all(importlib.util.find_spec(one.name) for one in node.names), block


def test_the_term_of_the_tutorial_runs() -> None:
    (block,) = blocks(ROOT / "docs" / "reward_term.md", "python")
    names: dict[str, object] = {}
    exec(compile(block, "reward_term.md", "exec"), names)  # noqa: S102  our own page

    class Inputs:
        shown = np.array([[0, 2], [1, 1]])

    assert names["price_range"](Inputs()).tolist() == [1.0, 0.0]  # type: ignore[operator]


@by_page
def test_relative_links_and_anchors_resolve(page: Path) -> None:
    text = re.sub(FENCE, "", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{page.name}: {target}"
        if anchor and other.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", other.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}, target


def test_every_documented_message_is_one_that_the_code_gives() -> None:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "tools" / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    given = "\n".join(text for texts in hooks.messages().values() for text in texts)
    assert len(given.splitlines()) > 250
    table = (ROOT / "docs" / "troubleshooting.md").read_text().split("Not a message of ours?")[0]
    documented = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(documented) > 15
    sources = "".join(path.read_text() for path in (ROOT / "r4t" / "config").glob("*.py")) + given
    for message in documented:
        pieces = [piece.strip(" :()'") for piece in message.split("…")]
        assert all(piece in sources for piece in pieces), message


def test_the_mathematics_names_code_that_exists() -> None:
    text = (ROOT / "docs" / "mathematics.md").read_text()
    for name in re.findall(r"`(r4t\.[\w.]+)`", text):
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            if importlib.util.find_spec(".".join(parts[:1])) and _importable(".".join(parts[:cut])):
                value = importlib.import_module(".".join(parts[:cut]))
                for part in parts[cut:]:
                    value = getattr(value, part)
                break
    flat = Config()
    for key in re.findall(r"`((?:rl|fanout|retriever)\.\w+)`", text):
        section, name = key.split(".")
        assert hasattr(getattr(flat, section), name), key


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_site_builds_strictly_with_every_page_in_its_menu(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "troubleshooting.html").read_text()
    assert "no Ray cluster answers at" in page
    assert "<!-- messages -->" not in page
    for html in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', html.read_text())
        assert [url for url in loaded if "canonical" not in url] == [], f"{html.name} fetches from elsewhere"
