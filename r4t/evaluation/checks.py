"""What a run must show before its numbers may be believed, computed from the same per-query values as the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from r4t.config import Task
from r4t.evaluation.labels import OURS
from r4t.evaluation.metrics import paired_difference
from r4t.types import Floats

Values = Mapping[str, Mapping[str, Floats]]
"""{method: {metric: per-query values [B]}}"""
Times = Mapping[str, Mapping[str, float]]
"""{batch: {"p50", "p95"}}"""
Latency = Mapping[str, Times]
"""{method: times}"""

COMPILED = OURS[1:]
FEW_ERRORS = 2.0  # standard errors within which a mean counts as unchanged
KEPT = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line: `value` is compared with `threshold`; `detail` says in words what was computed."""

    name: str
    value: float
    threshold: float
    holds: bool
    detail: str


def run_checks(task: Task, values: Values, latency: Latency) -> list[dict[str, Any]]:
    """Every check whose methods and metrics were measured, as JSON-ready rows."""
    found = [*_reward(values), *_honest(values), *_distinct(values), *_kept(values, task), *_speed(latency)]
    if task == "wscr":
        found += _coverage(values)
    return [asdict(check) for check in found]


def _reward(values: Values) -> Iterator[Check]:
    yield from _gain(values, "r4t_folm", "zero_shot", "reward", 3.0)
    yield from _gain(values, "best_of_n", "zero_shot", "reward", 0.0)
    yield from _gain(values, "r4t_folm", "best_of_n", "reward", 0.0)


def _gain(values: Values, better: str, worse: str, metric: str, errors: float) -> Iterator[Check]:
    if not _has(values, (better, worse), metric):
        return
    gap = paired_difference(values[better][metric], values[worse][metric])
    if gap is None:
        return
    z = _in_errors(gap.mean, gap.stderr)
    yield Check(
        name=f"{metric}: {better} above {worse}" + (f" by {errors:g} standard errors" if errors else ""),
        value=z,
        threshold=errors,
        holds=bool(z >= errors and z > 0),
        detail=f"paired difference {gap.mean:+.4f}, standard error {gap.stderr:.4f}, {gap.n} queries",
    )


def _honest(values: Values) -> Iterator[Check]:
    """At equal temperature one judged quality rises and the other does not fall: gaming the reward does neither."""
    metrics = ("judge.diversity", "judge.alignment")
    if all(_has(values, ("r4t_folm", "zero_shot"), metric) for metric in metrics):
        gaps = [paired_difference(values["r4t_folm"][m], values["zero_shot"][m]) for m in metrics]
        if all(gaps):
            z = [_in_errors(gap.mean, gap.stderr) for gap in gaps if gap]
            parts = [f"{m} {gap.mean:+.4f} ({s:+.1f} se)" for m, gap, s in zip(metrics, gaps, z, strict=True) if gap]
            yield Check(
                name="judge: r4t_folm raises one of diversity and alignment and lowers neither",
                value=max(z),
                threshold=FEW_ERRORS,
                holds=bool(max(z) >= FEW_ERRORS and min(z) >= -FEW_ERRORS),
                detail="against zero_shot: " + ", ".join(parts) + f"; unchanged means within {FEW_ERRORS:g} se",
            )
    if all(_has(values, ("r4t_folm", "best_of_n"), metric) for metric in metrics):
        total = {m: values[m][metrics[0]] + values[m][metrics[1]] for m in ("r4t_folm", "best_of_n")}
        sums = {method: {"judge.diversity + judge.alignment": total[method]} for method in total}
        yield from _gain(sums, "r4t_folm", "best_of_n", "judge.diversity + judge.alignment", 0.0)


def _distinct(values: Values) -> Iterator[Check]:
    yield from _ratio(values, "r4t_folm", "zero_shot", "distinct_items", KEPT)


def _kept(values: Values, task: Task) -> Iterator[Check]:
    shares = {"recall": 0.75, "hit": 0.85} if task == "wscr" else {}
    shares = dict.fromkeys(("diversity", "content_alignment", "judge.diversity", "judge.alignment"), KEPT) | shares
    for compiled in COMPILED:
        for metric, share in shares.items():
            yield from _ratio(values, compiled, "r4t_folm", metric, share)


def _coverage(values: Values) -> Iterator[Check]:
    """Weighted recall is the yardstick where the objective weights coverage; plain recall rewards popularity."""
    weighted = "recall_weighted" in values.get("r4t_folm", {})
    metric = "recall_weighted" if weighted else "recall"
    yield from _ratio(values, "r4t_folm", "zero_shot", metric, 1.3)
    for rival in ("no_fanout", "popular", "mmr", "dpp", "kmeans", "prf", "bm25", "random"):
        yield from _gain(values, "r4t_folm", rival, metric, 0.0)
    shuffled = f"{metric}_shuffled"
    if _has(values, ("r4t_folm",), shuffled):
        folm = values["r4t_folm"]
        answers = {"r4t_folm": {metric: folm[metric]}, "shuffled queries": {metric: folm[shuffled]}}
        yield from _gain(answers, "r4t_folm", "shuffled queries", metric, FEW_ERRORS)


def _ratio(values: Values, part: str, whole: str, metric: str, threshold: float) -> Iterator[Check]:
    if not _has(values, (part, whole), metric):
        return
    upper, lower = float(np.nanmean(values[part][metric])), float(np.nanmean(values[whole][metric]))
    if lower <= 0:
        return
    yield Check(
        name=f"{metric}: {part} at least {threshold:g} x {whole}",
        value=upper / lower,
        threshold=threshold,
        holds=bool(upper / lower >= threshold),
        detail=f"{upper:.4f} against {lower:.4f}",
    )


def _speed(latency: Latency) -> Iterator[Check]:
    for compiled in COMPILED:
        yield from _faster(compiled, latency.get("r4t_folm", {}), latency.get(compiled, {}))


def _faster(compiled: str, slow: Times, fast: Times) -> Iterator[Check]:
    for batch in sorted(slow.keys() & fast.keys(), key=int):
        threshold = 4.0 if batch == "1" else 1.0
        ratio = slow[batch]["p50"] / fast[batch]["p50"]
        yield Check(
            name=f"latency at batch {batch}: {compiled} "
            + (f"at least {threshold:g} times as fast as r4t_folm" if threshold > 1 else "faster than r4t_folm"),
            value=ratio,
            threshold=threshold,
            holds=bool(ratio >= threshold) if threshold > 1 else bool(ratio > 1),
            detail=f"p50 {slow[batch]['p50']:.1f} ms against {fast[batch]['p50']:.1f} ms, encoding and search in both",
        )


def _has(values: Values, methods: tuple[str, ...], metric: str) -> bool:
    return all(metric in values.get(method, {}) for method in methods)


def _in_errors(mean: float, stderr: float) -> float:
    """The mean in standard errors; a difference without any spread counts as certain, but stays a finite number."""
    return float(np.clip(mean / stderr if stderr > 0 else np.sign(mean) * 1e3, -1e3, 1e3))
