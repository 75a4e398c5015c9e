"""`r4t bench`: measured rates for `r4t plan`, from a short run of the configuration on the machines it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.devices import cores
from jobs.pipeline import run_pipeline
from r4t.config import Config, parse_config
from r4t.errors import UserError
from r4t.lineage import write_json
from r4t.rates import Rates, rates_of_run

STEPS = 10  # of reinforcement learning
QUERIES = 1600  # all splits, where the queries are made up
HELD_OUT = 60
RETRIEVER_STEPS, LINES = 150, 3  # its speed is read between the lines of its log


def measure(config: Config, folder: Path, out: Path, address: str | None = None) -> Rates:
    """Runs `shortened(config)` in `folder`, or takes it where it has finished, and writes its rates to `out`.

    Rates of other devices that `out` holds stay. Raises UserError where `out` holds something else.
    """
    known = _known(out)
    short = shortened(config)
    run_pipeline(short, folder, address=address)
    rates = rates_of_run(folder)
    rates = rates.model_copy(update={"source": f"r4t bench {config.name}, driver with {cores()} cores"})
    write_json(out, {"schema": 1, "rates": known | {rates.device: rates.model_dump(mode="json")}})
    return rates


def shortened(config: Config) -> Config:
    """The configuration with less of everything that repeats.

    The warm start stays whole: how long answers are, and so what they cost, depends on it.
    """
    rl, evaluate = config.rl, config.evaluate
    steps = min(rl.steps, STEPS)
    denoising, distilling = (min(one.steps, RETRIEVER_STEPS) for one in (config.retriever, config.distill))
    changes: dict[str, dict[str, Any]] = {
        "rl": {"steps": steps, "validate_every": steps or 1, "validate_queries": min(rl.validate_queries, HELD_OUT)},
        "retriever": {"steps": denoising, "validate_every": max(1, denoising // LINES)},
        "distill": {"steps": distilling, "validate_every": max(1, distilling // LINES)},
        "evaluate": {"queries": min(evaluate.queries, HELD_OUT)},
        "data": {"n_queries": min(config.data.n_queries, QUERIES)},
    }
    made = config.model_dump(mode="json")
    for section, values in changes.items():
        made[section] |= values
    return parse_config(made | {"name": f"bench-{config.name}"})


def show(rates: Rates, out: Path) -> str:
    """The rates for people."""
    values = rates.model_dump(exclude={"source", "measured", "device", "items", "queries"})
    lines = [f"  {name:<22}{value:>12.4g}" for name, value in values.items() if value is not None]
    return "\n".join([f"rates on {rates.device}:", *lines, f"{out}: use it with `r4t plan CONFIG --rates {out}`"])


def _known(out: Path) -> dict[str, Any]:
    """The rates that a file holds already."""
    if not out.exists():
        return {}
    try:
        found = json.loads(out.read_text())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("rates"), dict):
        raise UserError(f"{out} holds no rates and would be overwritten: give another --out")
    known: dict[str, Any] = found["rates"]
    return known
