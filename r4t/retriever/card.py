"""The model card of an exported retriever: lineage, measured quality, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r4t.evaluation.labels import network_calls
from r4t.retriever.files import ITEMS, ONNX, ONNX_INT8, Description

SHOWN = {
    "reward": "reward",
    "diversity": "diversity (Vendi/k of the items)",
    "content_alignment": "alignment (cosine of items and query)",
    "recall": "recall",
    "hit": "hit",
    "judge.diversity": "judge: diversity",
    "judge.alignment": "judge: alignment",
    "distinct_items": "distinct items in a set",
}
COMPARED = ("no_fanout", "mmr", "r4t_folm")


def card(description: Description, network: Mapping[str, Any], sampler: Mapping[str, Any], files: list[str]) -> str:
    """`README.md` as Markdown. network, sampler: as in `config.json`; files: what the folder holds."""
    encoder = description.encoder
    lines = [
        f"# R4T retriever: {description.name}",
        "",
        "Turns a query into a *set* of items: a diffusion model draws search directions jointly, and each finds its"
        " nearest item. No language model is in the path.",
        "",
        "```python",
        "from r4t.retriever import R4TRetriever",
        "",
        'retriever = R4TRetriever.from_pretrained("this folder")',
        f'rows = retriever.embed(["light summer lunch"])  # unit vectors [1, {description.rows}, {description.dim}]',
        *([f'sets = retriever.retrieve(["light summer lunch"], {description.k})'] if ITEMS in files else []),
        "```",
        "",
        "| | |",
        "|---|---|",
        f"| rows, width | {description.rows} x {description.dim} |",
        f"| network | {network['layers']} layers, hidden {network['hidden']}, {network['heads']} heads |",
        f"| sampler | {sampler['name']}, {sampler['steps']} steps, guidance {sampler['guidance']}:"
        f" {network_calls(description.calls)} a set |",
        f"| encoder | {encoder['name']}, {encoder['dim']} columns, hash `{encoder['fingerprint'][:16]}` |",
        f"| ONNX | {_graphs(description.metrics, files)} |",
        "",
        "## Lineage",
        "",
        "| stage | manifest (SHA-256) | code | finished |",
        "|---|---|---|---|",
        *(
            f"| {stage} | `{made['manifest'][:16]}` | `{made['code']}` | {made['finished']} |"
            for stage, made in description.lineage.items()
        ),
        "",
        "## Measured",
        "",
        *_measured(description.metrics),
        "",
        "## Limits",
        "",
        "- Queries and items must come from the encoder above; an index with another hash is refused.",
        "- Rows are learnt from the sets of one catalogue. For a catalogue that has changed much, train again"
        " (`r4t catalog diff` counts the targets that moved).",
        "- Trained on queries like those of the run; what it draws for others is not measured.",
        "- The figures are of the run's held-out queries, in the encoder's space and in the judge's, not of people.",
        "- The objective rewards sets, so a single nearest item is better found by plain search.",
    ]
    return "\n".join(lines) + "\n"


def _measured(metrics: Mapping[str, Any]) -> list[str]:
    methods = metrics.get("methods", {})
    if not methods:
        return ["The run was not evaluated: nothing is known about the quality of these sets."]
    named = [name for name in SHOWN if any(name in cells for cells in methods.values())]
    return [
        f"{metrics['n_queries']} held-out queries of `{metrics['dataset']}`, {metrics['database_items']} items,"
        f" {len(metrics['seeds'])} seed(s), k = {metrics['k']}; the judge is {metrics['judge_encoder']}.",
        "",
        "| method | " + " | ".join(SHOWN[name] for name in named) + " |",
        "|---" * (1 + len(named)) + "|",
        *(
            f"| {method} | " + " | ".join(f"{cells[name]:.3f}" if name in cells else "" for name in named) + " |"
            for method, cells in methods.items()
        ),
    ]


def _graphs(metrics: Mapping[str, Any], files: list[str]) -> str:
    if ONNX not in files:
        return "not exported"
    graphs = [f"`{ONNX}`, within {metrics['onnx_difference']:.0e} of torch"]
    if ONNX_INT8 in files:
        cosines = f"mean {metrics['int8_cosine_mean']:.4f}, least {metrics['int8_cosine_min']:.4f}"
        graphs.append(f"`{ONNX_INT8}`, cosine of its rows with those: {cosines}")
    return "; ".join(graphs)


def measured(metrics: Mapping[str, Any], method: str) -> dict[str, Any]:
    """What the card shows of a run's `evaluate/metrics.json`; empty where `method`, the retriever, is not in it."""
    cells = metrics.get("methods", {})
    if method not in cells:
        return {}
    kept = ("dataset", "n_queries", "database_items", "seeds", "k", "judge_encoder")
    return {name: metrics[name] for name in kept} | {
        "methods": {name: _means(cells[name]) for name in (*COMPARED, method) if name in cells}
    }


def _means(cells: Mapping[str, Any]) -> dict[str, float]:
    judged = {f"judge.{name}": value for name, value in cells.get("judge", {}).items()}
    flat = {**cells, **judged}
    return {name: float(flat[name]["mean"]) for name in SHOWN if isinstance(flat.get(name), dict)}
