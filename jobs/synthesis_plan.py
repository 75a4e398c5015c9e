"""How long stage 2 takes on many engines, and what it needs beside them, from rates that were measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from r4t.config import Config
from r4t.errors import UserError
from r4t.lineage import read_json
from r4t.sets.slices import slices

TRAIN_SHARE = 0.8  # of data.n_queries (paper App. C)


def plan(config: Config, measured: Path, engines: int, queries: int | None = None) -> dict[str, Any]:
    """The plan for `engines` of the measured kind and `queries` training queries (default: those of the configuration).

    `measured` is what `python -m benchmarks.synthesis RUN --engine` printed. Shards are dealt out whole, so the time is
    that of the engine with the most. Raises UserError when a rate is missing.
    """
    rates = _rates(measured)
    queries = queries or round(TRAIN_SHARE * config.data.n_queries)
    parts = slices(np.arange(queries), config.sets)
    answers = sum(part.answers for part in parts)
    rounds = math.ceil(len(parts) / engines)
    longest = max(part.answers for part in parts)
    seconds = rounds * longest / rates["engine"] * (1 + rates["pipeline_adds"])
    return {
        "engines": engines,
        "queries": queries,
        "answers": answers,
        "shards": len(parts),
        "hours": seconds / 3600,
        "engines_busy": answers / (engines * rounds * longest),
        "scorers": math.ceil(engines * rates["engine"] / rates["scorer"]),
        "disk_gb": answers * rates["bytes_per_row"] / 1e9,
        "measured": rates | {"file": str(measured)},
        "advice": _advice(config, len(parts), engines, answers),
    }


def show(found: dict[str, Any]) -> str:
    """The plan in lines."""
    rates = found["measured"]
    lines = [
        f"{found['queries']} queries, {found['answers']} answers in {found['shards']} shards",
        f"{found['engines']} engines at {rates['engine']:.4g} answers/s: {found['hours']:.3g} h,"
        f" busy {found['engines_busy']:.0%} of it",
        f"{found['scorers']} scorers at {rates['scorer']:.4g} answers/s keep up with them",
        f"{found['disk_gb']:.3g} GB on disk",
        f"(rates as measured in {rates['file']}, one engine there being one engine here)",
    ]
    return "\n".join([*lines, *found["advice"]])


def _rates(measured: Path) -> dict[str, float]:
    again = f"run `python -m benchmarks.synthesis RUN --engine > {measured}` first"
    if not measured.is_file():
        raise UserError(f"no measurement at {measured}: {again}")
    results = {result.get("what"): result for result in read_json(measured).get("results", [])}
    try:
        engine, replay = results["engine"], results["replay"]
        return {
            "engine": float(engine["engine_rows_per_second"]),
            "pipeline_adds": max(0.0, float(engine["pipeline_adds"])),
            "scorer": float(replay["rows_per_second"]),
            "bytes_per_row": float(replay["bytes_per_row"]),
        }
    except (KeyError, TypeError):
        raise UserError(f"{measured} holds no rates of engine and replay (several shards of each): {again}") from None


def _advice(config: Config, shards: int, engines: int, answers: int) -> list[str]:
    if shards >= 4 * engines:
        return []
    smaller = max(1, answers // (8 * engines))
    return [
        f"only {shards} shards for {engines} engines: set sets.shard_answers to {smaller}"
        f" (now {config.sets.shard_answers}) so that none waits long for the last"
    ]
