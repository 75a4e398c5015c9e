"""The documentation's pages: their blocks and the commands in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\.venv/bin/)?r4t [a-z][^`]*|python -m [a-z][^`]*)`(?! does not exist)")


def blocks(page: Path, *languages: str) -> list[str]:
    found = [(lang, re.sub(rf"(?m)^{indent}", "", body)) for indent, lang, body in FENCE.findall(page.read_text())]
    return [body for lang, body in found if lang in languages]


def commands(page: Path) -> list[list[str]]:
    """Words of each `r4t ...` and `python -m ...` in a page's blocks and inline code."""
    shell = "\n".join(blocks(page, "", "bash", "sh", "console")).replace("\\\n", " ")
    texts = [text for line in shell.splitlines() for text in re.split(r" \| | && |; (?:do )?| -- |(?<= )#.*", line)]
    found = []
    for text in [*texts, *(part.split(" | ")[0] for part in INLINE.findall(page.read_text()))]:
        words = shlex.split(text.split(" > ")[0].replace("'", "") if text.count("'") % 2 else text.split(" > ")[0])
        while words and (re.fullmatch(r"[A-Z0-9_]+=.*", words[0]) or words[0] == "do"):
            words.pop(0)
        words = [word.removeprefix(".venv/bin/") for word in words]
        if words[:1] == ["r4t"] or words[:2] == ["python", "-m"]:
            found.append([_bare(word) for word in words if word not in ("...", "…")])
    return found


def _bare(word: str) -> str:
    """Without the brackets of what may be left out: `[--set` and `a=[1,2]]`."""
    word = word.removeprefix("[") if word.startswith("[-") or "]" not in word else word
    return word.removesuffix("]") if word.count("]") > word.count("[") else word
