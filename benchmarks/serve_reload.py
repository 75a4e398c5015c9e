"""Versions that replace one another under load: every answer must be, whole, of the one version that it names."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.served import Way, server
from benchmarks.versions import Sets, answers_of, matches, put, variants
from r4t.serving.lineage import lineage_of

CLIENTS, VERSIONS, K = 8, 4, 10
PAUSE = 2.0  # seconds between a version's first answer and the next version
LONGEST = 60.0  # seconds until a new version must have answered


@dataclass(slots=True)
class Reloads:
    """What came back while versions changed."""

    statuses: Counter[str] = field(default_factory=Counter)
    """By status, or by the error of a connection. Nothing is asked twice."""
    versions: Counter[str] = field(default_factory=Counter)
    """Answers of each version."""
    wrong: list[str] = field(default_factory=list)
    """Answers that are not what the version that they name must answer."""
    taken: int = 0
    """Versions that took over."""


def reload(folder: Path, way: Way, seconds: float, texts: list[str]) -> dict[str, Any]:
    """Replaces what is served, again and again, while clients ask without a pause."""
    with tempfile.TemporaryDirectory() as temporary:
        live = Path(temporary) / "live"
        shutil.copytree(folder, live)
        others = variants(folder, Path(temporary), VERSIONS)
        known = answers_of([folder, *others], texts, K)
        with server(live, way, "serve.watch=0.25") as (url, memory):
            before = memory()
            ends = time.perf_counter() + seconds
            turns = itertools.takewhile(lambda _: time.perf_counter() < ends, itertools.cycle(others))
            found = asyncio.run(changing(url, live, turns, known, texts))
            return {
                "seconds": seconds,
                "clients": CLIENTS,
                "statuses": dict(found.statuses),
                "wrong": len(found.wrong),
                "wrong_first": found.wrong[:3],
                "versions_taken": found.taken,
                "answers_of_each_version": sorted(found.versions.values()),
                "memory_mib": [before, memory()],
            }


async def changing(
    url: str,
    live: Path,
    turns: Iterable[Path],
    known: Mapping[str, Sets],
    texts: Sequence[str],
    *,
    k: int = K,
    clients: int = CLIENTS,
    pause: float = PAUSE,
    name: Callable[[Path], str] = lambda folder: lineage_of([folder]),
) -> Reloads:
    """The load, and `turns` put in the place of `live`, the next one `pause` seconds after one has answered.

    known: by its lineage what each version answers for `texts` and k. name: a folder's lineage in the server.
    Raises TimeoutError where a version does not take over.
    """
    found = Reloads()
    done = asyncio.Event()

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        rng = random.Random(number)
        while not done.is_set():
            places = rng.sample(range(len(texts)), rng.choice((1, 1, 3)))
            body = {"queries": [texts[place] for place in places], "k": k}
            try:
                response = await client.post("/v1/retrieve", json=body)
            except httpx.HTTPError as error:
                found.statuses[type(error).__name__] += 1
                continue
            found.statuses[str(response.status_code)] += 1
            if response.is_success:
                answer = response.json()
                found.versions[answer["lineage"]] += 1
                if not matches(answer, known, places):
                    found.wrong.append(response.text[:300])

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        tasks = [asyncio.create_task(ask(client, number)) for number in range(clients)]
        try:
            for source in turns:
                await asyncio.to_thread(put, source, live)
                await _answers(found, name(source))
                found.taken += 1
                await asyncio.sleep(pause)
        finally:
            done.set()
        await asyncio.gather(*tasks)
    return found


async def _answers(found: Reloads, lineage: str) -> None:
    before = found.versions[lineage]
    async with asyncio.timeout(LONGEST):
        while found.versions[lineage] == before:
            await asyncio.sleep(0.05)
