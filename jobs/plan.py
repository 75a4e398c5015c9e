"""`r4t plan`: what a configuration will take, as a table or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.shipped_configs import SHIPPED
from r4t import plan
from r4t.config import Config
from r4t.errors import UserError
from r4t.footprint import GIB, denoiser_parameters, footprints, policy_shape
from r4t.rates import Rates, load_rates
from r4t.seats import describe as seat_lines
from r4t.seats import gpus_held, retriever_ranks

RATES = SHIPPED / "rates.json"
RECIPES = 4_734  # items of the embedded catalogue


def describe(
    config: Config,
    *,
    rates: Path | None = None,
    items: int | None = None,
    queries: int | None = None,
    parameters: float | None = None,
    gpus: int | None = None,
    gpu_memory: float = 80.0,
    memory: float | None = None,
) -> dict[str, Any]:
    """The plan as JSON. Raises UserError for a configuration that cannot fit, and for what is not known."""
    speeds = load_rates(rates or RATES, config.cluster.device)
    if speeds.device != config.cluster.device:
        raise UserError(
            f"these rates were measured with cluster.device={speeds.device}, and the configuration says"
            f" {config.cluster.device}: give --rates of a run on such machines"
        )
    size = _size(config, speeds, items, queries, parameters)
    memories = footprints(config, size.policy, size.items)
    plan.check_fit(config, size, memories, gpus=gpus, gpu_gib=gpu_memory, memory_gib=memory)
    found = plan.stages(config, speeds, size)
    held = 0 if config.cluster.device == "cpu" else gpus_held(config)
    actors = plan.counts(config) | {"retriever": retriever_ranks(config)}
    return {
        "schema": 1,
        "name": config.name,
        "device": config.cluster.device,
        "rates": {"source": speeds.source, "measured": speeds.measured},
        "size": {"items": size.items, "queries": size.queries, "policy_parameters": size.policy.parameters}
        | {"retriever_parameters": size.retriever_parameters},
        "placement": seat_lines(config),
        "stages": {name: _stage(stage, held) for name, stage in (found | {"total": plan.total(found)}).items()},
        "memory_gib": {
            kind: {"actors": actors.get(kind, 1), "host": round(one.host, 2), "gpu": round(one.device, 2)}
            for kind, one in memories.items()
        },
        "simulation": _simulation(config, speeds, size),
        "scaling": [] if config.cluster.device == "cpu" else _scaling(config, speeds, size, gpu_memory),
        "assumptions": list(plan.ASSUMPTIONS),
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """The plan for people."""
    kind = "measured" if found["rates"]["measured"] else "ASSUMED, not measured"
    console.print(f"{found['name']} on {found['device']}, rates {kind}: {found['rates']['source']}")
    console.print("\n".join(found["placement"]), soft_wrap=True)
    table = Table("stage", "time", "GPU-hours", "storage, GiB", "bottleneck")
    for name, stage in found["stages"].items():
        hours = f"{stage['gpu_hours']:.2f}" if found["device"] != "cpu" else ""
        table.add_row(name, duration(stage["seconds"]), hours, f"{stage['storage_gib']:.2f}", stage["bottleneck"])
    console.print(table)
    step, loop = found["simulation"]["step_seconds"], found["simulation"]
    console.print(
        f"SIMULATED step: {step:.2f} s ({loop['reckoned_step_seconds']:.2f} s by division), rollout workers idle"
        f" {loop['rollout_idle']:.0%}, learners idle {loop['learner_idle']:.0%}",
        soft_wrap=True,
    )
    table = Table("role", "actors", "memory each, GiB", "GPU memory each, GiB")
    for role, one in found["memory_gib"].items():
        if one["actors"]:
            table.add_row(role, str(one["actors"]), f"{one['host']:.1f}", f"{one['gpu']:.1f}")
    console.print(table)
    if found["scaling"]:
        table = Table("GPUs", "sample + learn", "step", "simulated", "whole run", "GPU-hours", "bottleneck of a step")
        for row in found["scaling"]:
            if "seconds" not in row:
                table.add_row(str(row["gpus"]), "does not fit")
                continue
            split = "shared" if row["colocate"] else f"{row['rollout_workers']} + {row['learner_ranks']}"
            steps = (duration(row["step_seconds"]), duration(row["simulated_step_seconds"]))
            cells = (*steps, duration(row["seconds"]), f"{row['gpu_hours']:.1f}")
            table.add_row(str(row["gpus"]), split, *cells, row["bottleneck"])
        console.print(table)
    for line in found["assumptions"]:
        console.print(f"assumed: {line}", soft_wrap=True)


def duration(seconds: float) -> str:
    """`12.3 s`, `4.5 min`, `6.7 h`."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _size(config: Config, rates: Rates, items: int | None, queries: int | None, parameters: float | None) -> plan.Size:
    own = config.data.kind == "recipes"
    items = items or (RECIPES if own else rates.items)
    if queries is None:
        generated = config.task == "oar" and config.data.queries is None
        queries = config.data.n_queries if generated else rates.queries
    if items is None or queries is None:
        raise UserError("the sizes of your catalogue are not known: give --items and --queries (all splits)")
    policy, retriever = policy_shape(config.policy, parameters), denoiser_parameters(config)
    return plan.Size(items=items, queries=queries, policy=policy, retriever_parameters=retriever)


def _stage(stage: plan.Stage, gpus: int) -> dict[str, Any]:
    return {
        "seconds": round(stage.seconds, 2),
        "gpu_hours": gpus * stage.seconds / 3600,
        "storage_gib": stage.storage / GIB,
        "bottleneck": stage.bottleneck,
        "parts": {name: round(seconds, 2) for name, seconds in stage.parts.items()},
    }


def _simulation(config: Config, rates: Rates, size: plan.Size) -> dict[str, Any]:
    parts = plan.step_parts(config, rates, size)
    found = plan.simulated_step(config, parts)
    return {
        "simulated": True,
        "steps": plan.SIMULATED_STEPS,
        "spread": plan.SPREAD,
        "step_seconds": round(found.step, 4),
        "reckoned_step_seconds": round(plan.step_seconds(config, parts), 4),
        "rollout_idle": round(found.samplers_idle, 4),
        "learner_idle": round(found.learners_idle, 4),
    }


def _scaling(config: Config, rates: Rates, size: plan.Size, gpu_gib: float) -> list[dict[str, Any]]:
    """The best split of 1 to 512 GPUs, one row each; where nothing fits, the row holds the number alone."""
    rows: list[dict[str, Any]] = []
    for gpus in plan.GPUS:
        best = plan.best_split(config, rates, size, gpus, gpu_gib)
        if best is None:
            rows.append({"gpus": gpus})
            continue
        parts = plan.step_parts(best, rates, size)
        seconds = plan.total(plan.stages(best, rates, size)).seconds
        rows.append(
            {
                "gpus": gpus,
                "rollout_workers": best.rollout.workers,
                "learner_ranks": best.learner.ranks,
                "colocate": best.rollout.colocate,
                "step_seconds": plan.step_seconds(best, parts),
                "simulated_step_seconds": plan.simulated_step(best, parts).step,
                "seconds": seconds,
                "gpu_hours": gpus * seconds / 3600,
                "bottleneck": max(parts, key=parts.__getitem__),
            }
        )
    return rows
