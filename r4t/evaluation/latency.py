"""How long a user waits: percentiles of the wall-clock time per batch, methods taking turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Answer = Callable[[Sequence[str]], object]
"""Takes query texts all the way to items: encoding, generation or sampling, and search included."""


def measure_latency(
    methods: Mapping[str, Answer],
    texts: Sequence[str],
    *,
    batches: Sequence[int],
    repeats: int,
    warmup: int = 2,
    settle: float = 0.02,
    advance: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    shared: Callable[[], float] = lambda: 0.0,
) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds `{method: {batch: {"p50", "p95", "own_p50", "own_p95"}}}`.

    In every repetition each method answers the same batch once, in the same order, so that a machine that slows down
    slows all of them. The first `warmup` repetitions of each batch size are not counted. Batches rotate through `texts`
    (repeated when there are fewer than a batch). Before its turn a method waits `settle` seconds, until the threads of
    the one before no longer spin. `advance` is called after each repetition; `clock` gives seconds.
    `shared` gives the seconds that encoding and search have taken so far; the own times are without them.
    """
    if not texts:
        raise ValueError("latency needs at least one query text")
    result: dict[str, dict[str, dict[str, float]]] = {name: {} for name in methods}
    for batch in batches:
        times: dict[str, list[float]] = {name: [] for name in methods}
        own: dict[str, list[float]] = {name: [] for name in methods}
        for repetition in range(warmup + repeats):
            chosen = [texts[(repetition * batch + i) % len(texts)] for i in range(batch)]
            for name, answer in methods.items():
                time.sleep(settle)
                start, before = clock(), shared()
                answer(chosen)
                taken = clock() - start
                if repetition >= warmup:
                    times[name].append(taken * 1e3)
                    own[name].append((taken - (shared() - before)) * 1e3)
            advance()
        for name in methods:
            result[name][str(batch)] = _percentiles("", times[name]) | _percentiles("own_", own[name])
    return result


def _percentiles(prefix: str, milliseconds: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {f"{prefix}p50": round(float(p50), 3), f"{prefix}p95": round(float(p95), 3)}
