"""How fast each kind of work goes: read from a finished run, or from a small JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from pydantic import Field, ValidationError

from r4t.config import Config, parse_config
from r4t.config.section import Section
from r4t.errors import UserError
from r4t.lineage import read_json, read_manifest
from r4t.tracking import read_metrics


class Rates(Section):
    """Work per second of one actor of its kind, at the reference sizes. Unknown keys are refused."""

    source: str
    measured: bool  # False: assumed, and every output says so
    device: str
    parameters: float = Field(gt=0)  # of the policy
    retriever_parameters: float = Field(gt=0)
    answer_tokens: float = Field(gt=0)  # of one answer
    encode: float = Field(gt=0)  # texts, of the driver
    warm: float = Field(gt=0)  # warm-start examples, of one learner rank
    generate: float = Field(gt=0)  # tokens, of one rollout worker while it trains
    score: float = Field(gt=0)  # answers, of one scorer
    train: float = Field(gt=0)  # answer tokens, of one learner rank, all optimiser steps of a batch included
    synthesise: float = Field(gt=0)  # answers, of one rollout worker in stage sets
    denoise: float = Field(gt=0)  # sets, of one retriever rank
    distill: float | None = Field(None, gt=0)  # sets, of one rank that trains a student; None: a share of `denoise`
    evaluate: float = Field(gt=0)  # queries and seeds, of the driver and one rollout worker, all methods
    sync: float = Field(ge=0)  # seconds to publish the weights
    overhead: float = Field(ge=0)  # seconds of a step that none of the above explains
    start: float = Field(ge=0)  # seconds until all actors of stage folm work
    sets_start: float = Field(0.0, ge=0)  # the same of stage sets; 0 where `synthesise` includes it
    retriever_start: float = Field(0.0, ge=0)  # likewise
    distill_start: float = Field(0.0, ge=0)  # likewise
    evaluate_start: float = Field(0.0, ge=0)  # likewise, and what does not grow with the queries: latencies, the judge
    answer_bytes: float = Field(gt=0)  # of one stored answer
    items: int | None = None  # of the catalogue it was measured on
    queries: int | None = None


def load_rates(path: Path, device: str) -> Rates:
    """Rates of a finished run directory, or of `device` in a JSON file (`benchmarks/rates.json`).

    Raises UserError for a run that has not finished, a file of another shape, and a device without rates.
    """
    if path.is_dir():
        return rates_of_run(path)
    if not path.is_file():
        raise UserError(f"no rates at {path}: give a finished run directory, or a JSON file like benchmarks/rates.json")
    found = read_json(path)
    known = found.get("rates", {}) if isinstance(found, dict) else {}
    if device not in known:
        raise UserError(f"{path} has no rates for '{device}' (it has {', '.join(known) or 'none'}): --rates RUN of one")
    try:
        return Rates.model_validate(known[device])
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, one["loc"])) + f" ({one['msg']})" for one in error.errors())
        raise UserError(f"{path}: the rates of '{device}' are not usable: {wrong}") from None


def rates_of_run(folder: Path) -> Rates:
    """What a finished run says of its machine. Raises UserError when a stage of it has not finished."""
    stages = {name: read_manifest(folder / name) for name in ("prepare", "folm", "sets", "retriever", "evaluate")}
    if missing := [name for name, manifest in stages.items() if manifest is None]:
        raise UserError(f"{folder} has no finished {', '.join(missing)}: rates are read from a whole run")
    config = parse_config(stages["folm"]["config"])  # type: ignore[index]
    done = {name: manifest["metrics"] for name, manifest in stages.items() if manifest}
    lines = read_metrics(folder / "metrics.jsonl")
    steps = [line["values"] for line in lines if line["stage"] == "folm"]
    warm = [(line["step"], line["time"]) for line in lines if line["stage"] == "warm_start"]
    if len(steps) < 2 or len(warm) < 2 or warm[-1][1] <= warm[0][1]:
        raise UserError(f"{folder}/metrics.jsonl has too few steps to tell rates: use a run with more of them")
    return Rates(
        source=f"run {config.name}",
        measured=True,
        device=config.cluster.device,
        items=int(done["prepare"]["items"]),
        queries=int(sum(value for name, value in done["prepare"].items() if name.startswith("queries_"))),
        encode=_rate(_texts(done["prepare"]), done["prepare"]["seconds"]),
        warm=config.warm_start.batch * (warm[-1][0] - warm[0][0]) / (warm[-1][1] - warm[0][1]) / config.learner.ranks,
        **_loop(config, steps, done["folm"]["seconds"], warm),
        **_later(config, folder, done, lines),
    )


def _loop(
    config: Config, steps: list[dict[str, float]], seconds: float, warm: list[tuple[int, float]]
) -> dict[str, float]:
    """Rates of the reinforcement-learning loop. A step's wall time holds validations too, whose work is known."""
    wall = [step["step/seconds"] for step in steps]
    busy = {name: mean(step[f"share/{name}"] * t for step, t in zip(steps, wall, strict=True)) for name in SHARES}
    tokens = mean(step["tokens/answer"] for step in steps)
    rl, answers = config.rl, config.rl.queries_per_step * config.rl.group_size
    validations = 1 + rl.steps // rl.validate_every
    sampled = answers + rl.validate_queries * validations / rl.steps  # answers a step, validation's among them
    generate = sampled * tokens / (busy["rollout"] * config.rollout.workers)
    explained = sum(busy.values())
    warming = (warm[-1][1] - warm[0][1]) / (warm[-1][0] - warm[0][0]) * config.warm_start.steps
    return {
        "answer_tokens": tokens,
        "generate": generate,
        "score": sampled / (busy["score"] * config.scorer.workers),
        "train": answers * tokens / (busy["train"] * config.learner.ranks),
        "sync": busy["sync"],
        "overhead": max(0.0, mean(wall) - explained) if config.rl.staleness == 0 else 0.0,
        "start": max(0.0, seconds - warming - sum(wall)),
    }


SHARES = ("rollout", "score", "train", "sync")


def _later(
    config: Config, folder: Path, done: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    compared = 1 + config.evaluate.zero_shot_diffusion
    answers = done["sets"]["answers"] * compared
    size = sum(path.stat().st_size for path in (folder / "sets").rglob("*.parquet"))
    retriever = config.retriever
    whole, first = done["sets"]["seconds"], done["sets"].get("first_shard", {"answers": 0, "seconds": 0.0})
    synthesise, sets_start = _apart(answers, whole, answers - first["answers"], whole - first["seconds"])
    denoise, retriever_start = _apart(retriever.steps, done["retriever"]["seconds"], *_span(lines, "retriever"))
    student, made = config.distill, read_manifest(folder / "distill")
    distill, distill_start = (
        _apart(student.steps, made["metrics"]["seconds"], *_span(lines, "distill")) if made else (None, 0.0)
    )
    asked = _evaluated(config, done["prepare"])
    answering = _span(lines, "evaluate")[1] - done["evaluate"].get("engine_seconds", 0.0)
    evaluate, evaluate_start = _apart(asked, done["evaluate"]["seconds"], asked, answering)
    return {
        "parameters": policy_parameters(folder / "folm" / "policy"),
        "retriever_parameters": done["retriever"]["parameters"],
        "synthesise": synthesise / config.rollout.workers,
        "sets_start": sets_start,
        "denoise": denoise * retriever.batch / retriever.ranks,
        "retriever_start": retriever_start,
        "distill": distill and distill * student.batch / student.ranks,
        "distill_start": distill_start,
        "evaluate": evaluate,
        "evaluate_start": evaluate_start,
        "answer_bytes": size / answers,
    }


def _span(lines: Sequence[Mapping[str, Any]], stage: str) -> tuple[float, float]:
    """Steps and seconds from the first line to the last of a stage's newest attempt; nothing where it has under two."""
    found = [(line["step"], line["time"]) for line in lines if line["stage"] == stage] or [(0, 0.0)]
    begins = max(at for at in range(len(found)) if at == 0 or found[at][0] <= found[at - 1][0])
    return found[-1][0] - found[begins][0], found[-1][1] - found[begins][1]


def _apart(work: float, seconds: float, later: float, spent: float) -> tuple[float, float]:
    """A stage's rate and the seconds before it: `later` of its work took `spent` once everything ran.

    Without any such later part the whole stage makes the rate.
    """
    if later <= 0 or spent <= 0:
        return _rate(work, seconds), 0.0
    return later / spent, max(0.0, seconds - work * spent / later)


def policy_parameters(folder: Path) -> float:
    """Values in the weights of a model directory."""
    from r4t.footprint import policy_shape

    return float(policy_shape(Config().policy.model_copy(update={"model": folder})).parameters)


def _texts(prepared: Mapping[str, float]) -> float:
    return prepared["items"] + sum(value for name, value in prepared.items() if name.startswith("queries_"))


def _evaluated(config: Config, prepared: Mapping[str, float]) -> float:
    available = prepared.get(f"queries_{config.evaluate.split}", config.evaluate.queries)
    return min(available, config.evaluate.queries) * len(config.evaluate.seeds)


def _rate(work: float, seconds: float) -> float:
    return work / max(seconds, 1e-3)
