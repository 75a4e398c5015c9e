"""The endpoint under load, on loopback: latency, soak, reloads, overload, hostile requests, two ratios.

    python -m benchmarks.serve_load FOLDER --ratios
    python -m benchmarks.serve_load FOLDER --rates 5,20,50 --seconds 20
    python -m benchmarks.serve_load FOLDER --soak 1800 --rate 10
    python -m benchmarks.serve_load FOLDER --reload 600
    python -m benchmarks.serve_load FOLDER --overload
    python -m benchmarks.serve_load FOLDER --hostile 10000

FOLDER is an export with a graph. Every run starts a server of its own: `r4t serve --lite`, or with `--ray` Ray Serve
with `--replicas`, on the graph unless `--engine torch`. Bounded in count and time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.environment import environment
from benchmarks.hostile import attack
from benchmarks.serve_reload import reload
from benchmarks.served import Way, server, widened
from benchmarks.slow_clients import linger
from r4t.lineage import to_json
from r4t.retriever import R4TRetriever

MOST_SECONDS, MOST_RATE, MOST_HOSTILE = 3600, 2000, 100_000
WORDS = (
    ("light", "warm", "quick", "rich", "fresh"),
    ("summer", "winter", "rainy", "party"),
    ("lunch", "dinner", "snack"),
)
TEXTS = [" ".join(words) for words in itertools.product(*WORDS)]


def ratios(folder: Path, way: Way, repeats: int) -> dict[str, Any]:
    """End to end against the bare retriever, taking turns: p50 at batch 1, and sets per second at batch 64.

    Both on as many threads: Ray gives a replica's libraries one for each of its cores, and one at least.
    """
    if way.engine == "torch":
        torch.set_num_threads(1)
    retriever = R4TRetriever.from_pretrained(folder, engine=way.engine, threads=1)
    result: dict[str, Any] = {}
    limit = threadpool_limits(1) if way.ray else nullcontext()
    with limit, server(folder, way) as (url, _), httpx.Client(base_url=url, timeout=120) as client:
        for batch in (1, 64):
            texts = [TEXTS[place % len(TEXTS)] for place in range(batch)]

            def bare(texts: list[str] = texts) -> None:
                retriever.retrieve(texts, 10)

            def served(texts: list[str] = texts) -> None:
                client.post("/v1/retrieve", json={"queries": texts, "k": 10}).raise_for_status()

            times = _alternate([bare, served], repeats)
            result[f"batch_{batch}"] = {
                "bare_p50_ms": _percentiles(times[0])["p50"],
                "served_p50_ms": _percentiles(times[1])["p50"],
                "ratio": round(float(np.median(times[1]) / np.median(times[0])), 3),
                "throughput_share": round(float(np.median(times[0]) / np.median(times[1])), 3),
            }
    return result


def _alternate(calls: list[Callable[[], None]], repeats: int, warmup: int = 5) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(warmup + repeats):
        for place, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if turn >= warmup:
                times[place].append(time.perf_counter() - start)
    return times


async def offered(url: str, rate: float, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Requests at random times, `rate` a second on average whatever the server does; a latency counts from the time
    at which the request was due."""
    rng = random.Random(seed)
    taken: list[float] = []
    statuses: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=500, max_keepalive_connections=100)

    async def ask(client: httpx.AsyncClient, due: float) -> None:
        body = {"query": rng.choice(TEXTS), "k": 10, "seed": rng.randrange(1000)}
        try:
            response = await client.post("/v1/retrieve", json=body)
            statuses[str(response.status_code)] += 1
            if response.is_success:
                taken.append(time.perf_counter() - due)
        except httpx.HTTPError as error:
            statuses[type(error).__name__] += 1

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        tasks: list[asyncio.Task[None]] = []
        start = due = time.perf_counter()
        while (due := due + rng.expovariate(rate)) < start + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(client, due)))
        await asyncio.gather(*tasks)
        elapsed = time.perf_counter() - start
    return {
        "offered_per_s": rate,
        "answered_per_s": round(len(taken) / elapsed, 2),
        "statuses": dict(statuses),
        **_percentiles(taken),
    }


async def flood(url: str, clients: int, seconds: float) -> dict[str, Any]:
    """Clients that ask again as soon as they have an answer, and a tenth of a second after they were turned away."""
    taken: list[float] = []
    statuses: Counter[str] = Counter()
    ends = time.perf_counter() + seconds

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        while (start := time.perf_counter()) < ends:
            response = await client.post("/v1/retrieve", json={"query": TEXTS[number % len(TEXTS)], "k": 10})
            statuses[str(response.status_code)] += 1
            if response.is_success:
                taken.append(time.perf_counter() - start)
            else:
                await asyncio.sleep(0.1)

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        await asyncio.gather(*(ask(client, number) for number in range(clients)))
    return {
        "clients": clients,
        "answered_per_s": round(len(taken) / seconds, 2),
        "statuses": dict(statuses),
        **_percentiles(taken),
    }


def rates(folder: Path, way: Way, wanted: list[float], seconds: float) -> list[dict[str, Any]]:
    """Latency against offered load."""
    with server(folder, way) as (url, _):
        asyncio.run(offered(url, 5, 2))
        return [asyncio.run(offered(url, rate, seconds)) for rate in wanted]


def soak(folder: Path, way: Way, rate: float, seconds: float, slices: int = 10) -> dict[str, Any]:
    """One rate for long; memory of the server after every tenth of it."""
    with server(folder, way) as (url, memory):
        asyncio.run(offered(url, rate, min(10.0, seconds / 10)))
        taken = [memory()]
        parts = []
        for place in range(slices):
            parts.append(asyncio.run(offered(url, rate, seconds / slices, seed=place)))
            taken.append(memory())
    statuses: Counter[str] = sum((Counter(part["statuses"]) for part in parts), Counter())
    return {
        "seconds": seconds,
        "offered_per_s": rate,
        "statuses": dict(statuses),
        "failed": sum(count for status, count in statuses.items() if status != "200"),
        "memory_mib": taken,
        "p99_ms_of_each_tenth": [part.get("p99") for part in parts],
    }


def overload(folder: Path, way: Way, seconds: float) -> dict[str, Any]:
    """Far more than the server can do, with little room to wait: what is shed, and how soon it answers again."""
    with server(folder, way, "serve.max_waiting=64") as (url, memory):
        calm = asyncio.run(offered(url, 5, 3))
        crowd = asyncio.run(flood(url, 200, seconds))
        start = time.perf_counter()
        httpx.post(f"{url}/v1/retrieve", json={"query": "soup"}, timeout=60).raise_for_status()
        recovered = (time.perf_counter() - start) * 1e3
        after = asyncio.run(offered(url, 5, 3))
        return {
            "before": calm,
            "flood": crowd,
            "first_answer_after_ms": round(recovered, 1),
            "after": after,
            "memory_mib": memory(),
        }


def hostile(folder: Path, way: Way, count: int) -> dict[str, Any]:
    """Hostile requests, connections that say nothing, clients that take their time, and what the server says after."""
    with server(folder, way, "serve.body_timeout=5") as (url, memory):
        where = urlsplit(url)
        host, port = str(where.hostname), int(where.port or 0)

        async def it() -> Any:
            silent = [await asyncio.open_connection(host, port) for _ in range(20)]
            tally = await attack(host, port, count)
            closed = await asyncio.gather(*(_is_closed(reader) for reader, _ in silent))
            return tally, sum(closed)

        tally, closed = asyncio.run(it())
        slow = asyncio.run(linger(host, port, 3, 30.0))  # more large requests than 3 are turned away at once
        good = httpx.post(f"{url}/v1/retrieve", json={"query": "soup"}, timeout=60)
        return {
            "requests": count,
            "statuses": dict(sorted(tally.statuses.items())),
            "left_open": dict(tally.open),
            "server_errors": tally.server_errors[:10],
            "leaks": tally.leaks,
            "silent_connections_closed": f"{closed} of 20",
            "slow_clients": {kind: dict(found) for kind, found in slow.items()},
            "answers_afterwards": good.status_code,
            "memory_mib": memory(),
        }


async def _is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends a connection by itself, soon."""
    try:
        return await asyncio.wait_for(reader.read(1), 30) == b""
    except TimeoutError:
        return False


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    found = np.percentile(np.array(seconds) * 1e3, [50, 95, 99])
    return {name: round(float(value), 2) for name, value in zip(("p50", "p95", "p99"), found, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=20_000, help="repeat the catalogue up to so many")
    parser.add_argument("--ratios", action="store_true")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--rates", type=lambda text: [float(one) for one in text.split(",")], default=[])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--soak", type=float, default=0, help="seconds")
    parser.add_argument("--rate", type=float, default=5)
    parser.add_argument("--reload", type=float, default=0, help="seconds of load while versions replace one another")
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--hostile", type=int, default=0)
    parser.add_argument("--ray", action="store_true", help="Ray Serve instead of --lite")
    parser.add_argument("--replicas", type=int, default=1, help="of Ray Serve")
    parser.add_argument("--engine", choices=("onnx", "torch"), default="onnx", help="of Ray Serve, and the bare call")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if max(given.soak, given.seconds, given.reload) > MOST_SECONDS or max([given.rate, *given.rates]) > MOST_RATE:
        parser.error(f"at most {MOST_SECONDS} s and {MOST_RATE} requests a second")
    if given.hostile > MOST_HOSTILE:
        parser.error(f"at most {MOST_HOSTILE} hostile requests")
    if given.engine != "onnx" and not given.ray:
        parser.error("--lite runs on ONNX Runtime alone: add --ray")
    way = Way(ray=given.ray, replicas=given.replicas, engine=given.engine)
    result: dict[str, Any] = {"schema": 1, "environment": environment(), "server": asdict(way)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = widened(given.folder, Path(temporary) / "wide", given.items)
        if given.ratios:
            result["ratios"] = ratios(folder, way, given.repeats)
        if given.rates:
            result["rates"] = rates(folder, way, given.rates, given.seconds)
        if given.overload:
            result["overload"] = overload(folder, way, given.seconds)
        if given.soak:
            result["soak"] = soak(folder, way, given.rate, given.soak)
        if given.reload:
            result["reload"] = reload(folder, way, given.reload, TEXTS)
        if given.hostile:
            result["hostile"] = hostile(folder, way, given.hostile)
    text = to_json(result)
    if given.out:
        given.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
