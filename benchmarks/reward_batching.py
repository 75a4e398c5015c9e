"""OpenRLHF's way of asking, one sample per call: batched across concurrent calls against scored one by one.

    python -m benchmarks.reward_batching [--sets RUN/sets] [--calls 512] [--items 142472] [--repeats 5]

Every call takes a thread (`asyncio.to_thread`), as in OpenRLHF's single-turn executor, of the pool that
`r4t.interop.openrlhf_reward` gives it. One by one is the same scoring, call after call, without threads or batcher.
Items, answers and the looked-up encoder are those of `benchmarks.rl_scoring`. Prints JSON; seconds are medians over the
repetitions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from benchmarks.rl_scoring import QUERIES, build, made_up, timed, written
from r4t.fanout import build_prompt
from r4t.interop.openrlhf_reward import widen_threads
from r4t.interop.reward import Asked, SetReward
from r4t.interop.service import RewardService


def batched(service: RewardService, calls: list[tuple[str, str, str]]) -> list[float]:
    """Rewards of concurrent one-sample calls."""

    async def ask() -> list[float]:
        widen_threads()
        pending = [asyncio.to_thread(service.judge, [text], [prompt], [label]) for text, prompt, label in calls]
        return [judged[0].reward for judged in await asyncio.gather(*pending)]

    return asyncio.run(ask())


def one_by_one(reward: SetReward, asked: list[Asked]) -> list[float]:
    """Rewards of one call after another."""
    return [reward.score([one])[0].reward for one in asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, help="the sets folder of a run; default: answers without a common query")
    parser.add_argument("--calls", type=int, default=512)
    parser.add_argument("--items", type=int, default=142_472)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
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
    service = RewardService(reward)
    together, found = timed(lambda: batched(service, calls), a.repeats)
    load = service.stats()
    apart, expected = timed(lambda: one_by_one(reward, asked), a.repeats)
    np.testing.assert_allclose(found, expected, atol=1e-4)  # the same rewards either way
    result: dict[str, Any] = {
        "calls": a.calls,
        "items": a.items,
        "subqueries": a.k,
        "dim": encoder.dim,
        "repeats": a.repeats,
        "encoder": "excluded: vectors are looked up",
        "seconds_batched": together,
        "seconds_one_by_one": apart,
        "ratio": apart / together,
        "calls_per_batch": load["calls"] / load["batches"],
        "largest_batch": load["largest"],
    }
    print(json.dumps({"schema": 1, "name": "reward_batching", "environment": environment(), "results": [result]}))


if __name__ == "__main__":
    main()
