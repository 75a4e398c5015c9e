"""What the site's build changes in the pages: it lists every message, and unlinks source files, which it has not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AREAS = {
    "r4t/config": "Configuration",
    "r4t/catalog": "Catalogue, queries and encoders",
    "r4t/objective": "Objective",
    "r4t/sets": "Training sets",
    "r4t/diffusion": "Retriever",
    "r4t/retriever": "Exported retriever",
    "r4t/evaluation": "Evaluation",
    "r4t/storage": "Object stores",
    "r4t/interop": "Reward server, OpenRLHF, TRL",
    "r4t": "Files, policy, plan",
    "cluster": "Cluster and engines",
    "jobs": "Runs and commands",
}
_SOURCE_LINK = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def messages() -> dict[str, list[str]]:
    """Every message of a UserError by area, `…` where it names what was wrong."""
    found: dict[str, list[str]] = {area: [] for area in AREAS.values()}
    for layer in ("r4t", "cluster", "jobs"):
        for path in sorted((ROOT / layer).rglob("*.py")):
            where = path.relative_to(ROOT).as_posix()
            area = next(name for prefix, name in AREAS.items() if where.startswith(prefix + "/"))
            found[area] += [text for text in _messages(path) if text not in found[area]]
    return {area: texts for area, texts in found.items() if texts}


def on_page_markdown(markdown: str, **_: object) -> str:
    """MkDocs calls this for each page."""
    if "<!-- messages -->" in markdown:
        listed = "\n\n".join(
            f"### {area}\n\n" + "\n".join(f"- `{text}`" for text in sorted(texts)) for area, texts in messages().items()
        )
        markdown = markdown.replace("<!-- messages -->", listed)
    return _SOURCE_LINK.sub(r"\1", markdown)


def _messages(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    in_config = "r4t/config" in path.as_posix()
    own = {"UserError", "StoreError", "NodeEndedError", "ClockWentBackError"}
    names = {"UserError", "ValueError"} if in_config else own
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in names and node.args
    ]
    texts = (re.sub(r"\s+", " ", _text(call.args[0])).replace("`", "'").strip() for call in calls)
    return [text for text in texts if len(text.replace("…", "").strip()) > 12]


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"
