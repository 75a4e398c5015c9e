"""An exact index whose parts live in actors of their own, shared by every scorer of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.devices import role_environment, search_device
from cluster.launch import gather
from cluster.presence import roll_call, sign
from cluster.roles import Placement
from r4t.catalog.index import ExactIndex, ShardedIndex
from r4t.catalog.index.sharded import Found, split
from r4t.config import Config
from r4t.lineage import count_rows, read_rows
from r4t.types import Floats


class ShardActor:
    """Part number `shard` of a prepared dataset's items, searched exactly. A plain class; Ray wraps it."""

    def __init__(self, prepare_folder: Path, shard: int, config: Config, roll: Any = None) -> None:
        if roll is not None:
            sign(roll, f"index shard {shard}")
        path = prepare_folder / "vectors.safetensors"
        first, last = split(count_rows(path, "items"), config.index.shards)[shard]
        self.index = ExactIndex(read_rows(path, "items", first, last), search_device(config))

    def search(self, queries: Floats, n: int) -> Found:
        return self.index.search(queries, n)


@contextlib.contextmanager
def shard_roll(config: Config, say: Callable[[str], None]) -> Iterator[Any]:
    """The roll that shards sign; None where the index is not sharded.

    Scorers wait for shards as long as the driver waits for scorers, so a shard is ended in half that time.
    """
    if config.index.shards == 1:
        yield None
        return
    with roll_call(config, say, share=0.5) as roll:
        yield roll


def start_shards(placement: Placement, prepare_folder: Path, config: Config, roll: Any = None) -> list[Any]:
    """A `ShardActor` on each seat of the placement; none where the index is not sharded. roll: of `shard_roll`.

    A shard holds nothing that is not in its file, so Ray itself starts a dead one again and repeats its calls.
    """
    limit, env = config.cluster.max_restarts, role_environment("shard", config)
    return [
        ray.remote(ShardActor)
        .options(**placement.options(seat, env), max_restarts=limit, max_task_retries=limit)
        .remote(prepare_folder, shard, config, roll)
        for shard, seat in enumerate(placement.of("shard"))
    ]


def remote_index(shards: Sequence[Any], items: int, config: Config) -> ShardedIndex:
    """The index of `items` items that the shards hold together. A search asks them all at once."""

    def ask(queries: Floats, n: int) -> list[Found]:
        shared = ray.put(queries)
        return gather([shard.search.remote(shared, n) for shard in shards], config, "index shards")

    return ShardedIndex([last - first for first, last in split(items, len(shards))], ask)
