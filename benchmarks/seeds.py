"""Several finished runs of one configuration, trained with different seeds, as one result: mean and spread over runs.

    for seed in 0 1 2; do r4t run configs/recipes.yaml --run-dir runs/recipes-$seed --set seed=$seed; done
    python -m benchmarks.seeds runs/recipes-0 runs/recipes-1 runs/recipes-2 [--markdown [--details]]

Prints JSON, or a Markdown table; with --details also what each check compared in each run. `std` is over runs (n - 1),
each run being a policy and a retriever of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.environment import environment
from r4t.errors import UserError
from r4t.lineage import read_json

LATENCY = {f"latency_ms.{batch}.p50": f"p50 ms, batch {batch}" for batch in (1, 8, 64)}
COLUMNS = {
    "oar": {
        "reward": "reward",
        "diversity": "diversity",
        "content_alignment": "alignment",
        "judge.diversity": "judge: diversity",
        "judge.alignment": "judge: alignment",
        "distinct_items": "distinct in a set",
        "distinct_overall": "distinct overall",
    }
    | LATENCY,
    "wscr": {
        "recall_weighted": "weighted recall",
        "recall": "recall",
        "hit": "hit",
        "recall_weighted_shuffled": "weighted recall, queries shuffled",
        "distinct_items": "distinct in a set",
    }
    | LATENCY,
}


def load(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The metrics of every run. Raises UserError when a run is unfinished or differs in more than its seed."""
    runs = []
    for folder in folders:
        path = folder / "evaluate" / "metrics.json"
        if not path.is_file():
            raise UserError(f"{folder} has no evaluate/metrics.json: finish it with `r4t run`")
        runs.append(read_json(path) | {"config": yaml.safe_load((folder / "config.yaml").read_text())})
    configs = [{key: value for key, value in run["config"].items() if key != "seed"} for run in runs]
    for folder, config in zip(folders, configs, strict=True):
        if config != configs[0]:
            keys = sorted(key for key in config if config[key] != configs[0].get(key))
            raise UserError(f"{folder} is another configuration than {folders[0]}: they differ in {', '.join(keys)}")
    return runs


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per method and metric of the first run, then one per check; a run without them leaves them out."""
    results: list[dict[str, Any]] = []
    for method, cells in runs[0]["methods"].items():
        for metric in dict(_metrics(cells)):
            values = [dict(_metrics(run["methods"].get(method, {}))).get(metric) for run in runs]
            known = [value for value in values if value is not None]
            results.append(
                {"method": method, "metric": metric, "mean": statistics.fmean(known), "runs": known}
                | ({"std": statistics.stdev(known)} if len(known) > 1 else {})
            )
    for check in runs[0]["checks"]:
        same = [found for run in runs for found in run["checks"] if found["name"] == check["name"]]
        results.append(
            {
                "check": check["name"],
                "threshold": check["threshold"],
                "values": [found["value"] for found in same],
                "holds": [found["holds"] for found in same],
                "details": [found["detail"] for found in same],
            }
        )
    return results


def _metrics(cells: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in cells.items():
        if isinstance(value, dict) and "mean" in value:
            yield prefix + name, value["mean"]
        elif isinstance(value, dict) and "p50" in value:
            yield f"{prefix}{name}.p50", value["p50"]
        elif isinstance(value, dict):
            yield from _metrics(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield prefix + name, float(value)


def markdown(runs: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]], details: bool = False) -> str:
    """A table of the task's main metrics, and the checks with the number of runs in which each holds."""
    columns = COLUMNS[runs[0]["task"]]
    cell = {(r["method"], r["metric"]): r for r in results if "method" in r}
    lines = [f"| method | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    for method in runs[0]["methods"]:
        found = [cell.get((method, column)) for column in columns]
        lines.append(f"| {method} | {' | '.join(_text(r) for r in found)} |")
    lines += ["", "| check | holds in | values |", "|---|---|---|"]
    for r in results:
        if "check" in r:
            values = ", ".join(f"{value:.2f}" for value in r["values"])
            lines.append(f"| {r['check']} | {sum(r['holds'])} of {len(r['holds'])} | {values} (≥ {r['threshold']:g}) |")
            lines += [f"| | | {detail} |" for detail in r["details"] if details]
    return "\n".join(lines)


def _text(result: Mapping[str, Any] | None) -> str:
    """Mean and spread with three decimals, or none where the number is large."""
    if result is None:
        return ""
    digits = 3 if abs(result["mean"]) < 2 else 0
    spread = f" ± {result['std']:.{digits}f}" if "std" in result else ""
    return f"{result['mean']:.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--details", action="store_true")
    arguments = parser.parse_args()
    try:
        runs = load(arguments.runs)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    results = summarise(runs)
    if arguments.markdown:
        print(markdown(runs, results, arguments.details))
        return
    head = {key: runs[0][key] for key in ("dataset", "task", "split", "n_queries", "k", "n", "database_items")}
    seeds = [run["config"]["seed"] for run in runs]
    print(
        json.dumps(
            {"schema": 1, "name": "seeds", "environment": environment(), **head, "seeds": seeds, "results": results}
        )
    )


if __name__ == "__main__":
    main()
