"""OpenRLHF's way of asking, one sample per call: batched across concurrent calls against scored one by one.

    python -m benchmarks.reward_batching [--sets RUN/sets] [--calls 512] [--items 142472] [--repeats 5]

Every call is an `asyncio.to_thread`, as in OpenRLHF's single-turn executor, in the pool that
`r4t.interop.openrlhf_reward` gives its loop, where it takes no thread; and, to compare, in a pool of as many threads as
calls. One by one is call after call, without threads or batcher, in two ways: the same scoring over the same index, and
over a plain FAISS index, which is what a reward file written for single samples holds. All of them take turns. Items,
answers and the looked-up encoder are those of `benchmarks.rl_scoring`. Prints JSON; seconds are medians over the
repetitions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from benchmarks.rl_scoring import QUERIES, build, made_up, written
from r4t.fanout import build_prompt
from r4t.interop.batching import WAIT
from r4t.interop.openrlhf_reward import THREADS
from r4t.interop.reward import Asked, SetReward
from r4t.interop.service import RewardService
from r4t.interop.waiting import WaitingPool


def batched(service: RewardService, calls: list[tuple[str, str, str]], threads: bool) -> list[float]:
    """Rewards of concurrent one-sample calls, with a thread for each or none."""

    async def ask() -> list[float]:
        pool = ThreadPoolExecutor(THREADS) if threads else WaitingPool(service.judge, service.begin, THREADS)
        asyncio.get_running_loop().set_default_executor(pool)
        pending = [asyncio.to_thread(service.judge, [text], [prompt], [label]) for text, prompt, label in calls]
        return [judged[0].reward for judged in await asyncio.gather(*pending)]

    return asyncio.run(ask())


def one_by_one(reward: SetReward, asked: list[Asked]) -> list[float]:
    """Rewards of one call after another."""
    return [reward.score([one])[0].reward for one in asked]


def in_turns(ways: list[Callable[[], list[float]]], repeats: int) -> list[float]:
    """Median seconds of each way, which find the same rewards; each once before, to warm up."""
    expected, seconds = ways[0](), [[0.0] * repeats for _ in ways]
    for way in ways[1:]:
        np.testing.assert_allclose(way(), expected, atol=1e-4)
    for turn in range(repeats):
        for place, way in enumerate(ways):
            started = time.perf_counter()
            way()
            seconds[place][turn] = time.perf_counter() - started
    return [statistics.median(one) for one in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, help="the sets folder of a run; default: answers without a common query")
    parser.add_argument("--calls", type=int, default=512)
    parser.add_argument("--items", type=int, default=142_472)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--wait", type=float, default=WAIT, help="seconds without a call after which a batch closes")
    a = parser.parse_args()
    encoder, answers = written(a.sets, a.calls) if a.sets else made_up(a.calls, a.k, a.dim)
    scorer = build(a.items, a.k, encoder)
    probe = scorer.encoder.rows  # type: ignore[attr-defined]
    probe.setdefault(scorer.dataset.queries[0].text, 0)  # what SetReward asks once, as it opens
    reward = SetReward(scorer)
    config = scorer.config
    calls, asked = [], []
    for i, answer in enumerate(answers):
        query = scorer.dataset.queries[i % QUERIES]
        prompt = build_prompt(query.text, style="compact", task=config.task, domain="", k=a.k)
        calls.append((prompt + answer, prompt, query.query_id))
        asked.append(Asked(i % QUERIES, answer))
    plain = SetReward(build(a.items, a.k, encoder, flat=True))
    services = [RewardService(reward, a.wait) for _ in range(2)]
    seconds = in_turns(
        [
            lambda: batched(services[0], calls, threads=False),
            lambda: batched(services[1], calls, threads=True),
            lambda: one_by_one(reward, asked),
            lambda: one_by_one(plain, asked),
        ],
        a.repeats,
    )
    together, threaded, apart, naive = seconds
    loads = [service.stats() for service in services]
    result: dict[str, Any] = {
        "calls": a.calls,
        "items": a.items,
        "subqueries": a.k,
        "dim": encoder.dim,
        "repeats": a.repeats,
        "encoder": "excluded: vectors are looked up",
        "wait": a.wait,
        "seconds_batched": together,
        "seconds_batched_with_threads": threaded,
        "seconds_one_by_one": apart,
        "seconds_one_by_one_faiss": naive,
        "ratio": apart / together,
        "ratio_faiss": naive / together,
        "calls_per_batch": [load["calls"] / load["batches"] for load in loads],
        "largest_batch": [load["largest"] for load in loads],
    }
    print(json.dumps({"schema": 1, "name": "reward_batching", "environment": environment(), "results": [result]}))


if __name__ == "__main__":
    main()
