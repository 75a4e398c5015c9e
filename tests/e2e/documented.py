"""The commands of the documentation, and how tests run each of them: documented.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import typer
import yaml
from pages import PAGES, commands

from jobs.cli import app

TABLE: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("documented.yaml").read_text())
SHOP = "runs/shop"
WORDS = {  # what the pages leave to the reader -> what the folder of the tests has
    "CONFIG": "shop.yaml", "NEWCONFIG": "new.yaml", "RUN": SHOP, "NEW": "runs/new", "OLD": SHOP, "DIR": "served",
    "OUT": "out", "runs/students": "out", "FILE": "measured.json", "FILE.png": "sets.png", "N": "100",
    "MODEL": f"{SHOP}/folm/warm_start", "s3://BUCKET/FOLDER": "s3://runs/all", "s3://BUCKET/FOLDER/x": "s3://runs/all/x",
    "s3://BUCKET/served": "s3://runs/served", "RUN/distill": f"{SHOP}/distill",
}  # fmt: skip
VARIABLES = {"$name": "recipes", "$seed": "0", "$stage": "prepare"}
OWN = ("recipes", "speed", "large", "y", "new")  # runs that a page makes
ELSEWHERE = {"by", "parts", "not"}  # keys of what is not run here


@dataclass(frozen=True, slots=True)
class Documented:
    """A command as a page has it, and how it is run."""

    page: str
    words: tuple[str, ...]
    entry: str | None

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def told(self) -> dict[str, str]:
        return {} if self.entry is None else TABLE[self.entry]

    def as_run(self, folder: Path) -> list[str]:
        """The words in `folder`, with the options that make it small."""
        own = {"CONFIG": "configs/quickstart.yaml"} if self.words[1] in ("plan", "manifest") else {}  # pods see no shop
        words = [own.get(word) or _filled(word, self.words, folder) for word in self.words]
        return words + self.told.get("more", "").split()

    def shape(self) -> tuple[str, ...]:
        """The same for commands that differ in their numbers alone, or in what is made small anyway."""
        program = [word for word in self.words[:3] if re.fullmatch(r"[a-z][\w.-]*|-m", word)]
        keys = {_key(word, after) for word, after in zip(("", *self.words), self.words, strict=False)}
        keys -= {"", *self.told.get("more", "").replace("=", " ").split()}
        store = ["s3"] if any(word.startswith("s3:") for word in self.words) else []
        return (self.entry or "", *program, *sorted(keys), *store)


def _filled(word: str, words: tuple[str, ...], folder: Path) -> str:
    word = WORDS.get(word, word)
    for name, value in VARIABLES.items():
        word = word.replace(name, value)
    made = words[:2] == ("r4t", "run") and word.removeprefix("runs/").startswith(OWN)
    word = word if made or word in WORDS.values() else re.sub(r"^runs/[\w<>-]+", SHOP, word)
    key, _, value = word.partition("=")
    return f"{key}={WORDS.get(value, value)}".replace("$PWD", str(folder)) if value else word


def _key(before: str, word: str) -> str:
    """`--option`, the key that `--set` sets, or the stage, which is no number."""
    return word.partition("=")[0] if word.startswith("-") or before in ("--set", "--stage") else ""


def _is_whole(words: list[str]) -> bool:
    """Whether nothing is missing that the command needs: `r4t run` in a sentence is a name."""
    if words[0] != "r4t":
        return True
    try:
        command, rest = typer.main.get_command(app), words[1:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]  # type: ignore[attr-defined]
        command.make_context("r4t", rest).close()
    except Exception as error:
        code = getattr(error, "exit_code", None)  # 0: it asked for help
        if code not in (0, 2):
            raise
        return code == 0
    return True


def firsts(commands: list[Documented]) -> list[Documented]:
    """The first of each shape."""
    found: dict[tuple[str, ...], Documented] = {}
    for one in commands:
        found.setdefault(one.shape(), one)
    return list(found.values())


def documented() -> list[Documented]:
    """Every whole command of every page, each once, in the pages' order."""
    found: dict[str, Documented] = {}
    for page in PAGES:
        for words in filter(_is_whole, commands(page)):
            entry = next((entry for entry in TABLE if f"{' '.join(words)} ".startswith(f"{entry} ")), None)
            found.setdefault(" ".join(words), Documented(page.name, tuple(words), entry))
    return list(found.values())
