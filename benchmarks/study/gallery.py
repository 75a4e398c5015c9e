"""Figs. 3 and 6: what each method writes and retrieves, side by side, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.study.plan import Study
from benchmarks.study.results import CellResults
from r4t.evaluation.labels import method_name

METHODS = ("no_fanout", "mmr", "zero_shot", "r4t_folm", "r4t_diffusion", "r4t_distilled")
TEST_QUERIES = 3


def gallery(study: Study, cells: Mapping[str, CellResults]) -> str:
    """The page: the probe's queries, then some test queries, of every cell of tables 1 and 2."""
    parts = [
        f"# Sets side by side: {study.title}",
        "The first seed of each catalogue. Items in the method's order, repetitions left out; beside them the"
        " sub-queries that found them, where a method writes any. Test queries are spread evenly over the split, not"
        " chosen.",
    ]
    for cell in cells.values():
        shown = [*cell.gallery, *cell.samples[:TEST_QUERIES]]
        if cell.cell.part not in ("table1", "table2") or not shown:
            continue
        parts.append(f"## {cell.cell.label} ({cell.key})")
        parts += [_query(sample) for sample in shown]
    return "\n\n".join(parts) + "\n"


def _query(sample: Mapping[str, Any]) -> str:
    lines = [f"### {_plain(sample['query'])}", ""]
    if references := sample.get("references"):
        lines += [f"People chose: {_listed(references[:12])}{' ...' if len(references) > 12 else ''}", ""]
    lines += ["| method | items | sub-queries |", "|---|---|---|"]
    for name in METHODS:
        if (found := sample["methods"].get(name)) is not None:
            lines.append(
                f"| {method_name(name)} | {_listed(found['items'])} | {_listed(found.get('subqueries', []))} |"
            )
    return "\n".join(lines)


def _listed(texts: Sequence[str]) -> str:
    return "; ".join(_plain(text) for text in dict.fromkeys(texts))


def _plain(text: str) -> str:
    """Text from a catalogue or a model, without what Markdown would read as a table, a link or a tag."""
    plain = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in " ".join(text.split()))
    return plain[:117] + "..." if len(plain) > 120 else plain
