"""The synthesis job: Ray Data moves shards from engines that sample a frozen policy to scorers that write them.

One row is one shard, so that the next ones are being sampled while the last is scored. A row names the shard's queries,
samples and policy, from which its content follows: an actor or a node that dies costs its shards in flight, which Ray
hands to another, and it makes no difference which.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources
from ray.exceptions import RayActorError

from cluster.data_job import ending_its_schedule, timely
from cluster.devices import role_environment
from cluster.engine import open_engine
from cluster.presence import roll_call, sign
from r4t.catalog.dataset import load_dataset
from r4t.catalog.encoders import run_encoder
from r4t.catalog.index import open_index
from r4t.config import Config
from r4t.errors import UserError
from r4t.scoring import SetScorer
from r4t.seats import gpus
from r4t.sets.known import KnownTexts
from r4t.sets.parsed import ParseCount, count_parsed
from r4t.sets.records import Written, build_shard, scoring_config
from r4t.sets.store import write_shard
from r4t.sets.tensors import tensor_table

WEIGHTS = "model.safetensors"
SHARD_TRIES = 8  # losses of the same shard with its engine that are still taken for chance
WAITING_BYTES = 16 << 20  # of answers for each engine that no scorer has taken yet; then engines wait


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard to make: which answers, of which policy, and where the shard goes."""

    path: str
    policy: str
    """A Hugging Face directory."""
    version: int
    queries: tuple[int, ...]
    """Rows of the prepared dataset."""
    texts: tuple[str, ...]
    """The queries' own."""
    first: int
    """Number of the first answer to each query."""
    samples: int
    """Answers to each query."""
    lineage: str
    """JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDone:
    """A shard that stands now."""

    path: str
    policy: str
    answers: int
    parsed: ParseCount
    seconds_sampling: float
    """Of the engine's time, its start included where this was its first shard."""
    seconds_scoring: float


class ShardSampler:
    """One vLLM engine. It starts with the first shard's policy and swaps weights when a shard names another."""

    def __init__(self, config: Config, roll: Any) -> None:
        sign(roll, "an engine")
        self.config = config
        self.engine: Any = None
        self.policy = ""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        self._load(Path(row["policy"]), int(row["version"]))
        self.engine.forget_prompts()  # else rounding could depend on the shards that this engine made before
        answers = self.engine.generate(
            [(int(query), text) for query, text in zip(row["queries"], row.pop("texts"), strict=True)],
            samples=int(row["samples"]),
            first_sample=int(row["first"]),
            temperature=self.config.sets.temperature,
            seed=self.config.seed,
            logprobs=False,
        )
        return row | {
            "text": [answer.text for answer in answers],
            "finished": [answer.finished for answer in answers],
            "seconds_sampling": time.perf_counter() - started,
        }

    def _load(self, policy: Path, version: int) -> None:
        if self.engine is None:
            self.engine = open_engine(policy, self.config, version)
        elif str(policy) != self.policy:
            self.engine.load_weights(policy / WEIGHTS, version)
        self.policy = str(policy)


class ShardScorer:
    """Parses, retrieves and rewards the answers of a shard, composes the sets and writes it."""

    def __init__(self, prepare_folder: Path, config: Config, roll: Any) -> None:
        sign(roll, "a scorer")
        self.config = config
        self.dataset = load_dataset(prepare_folder, config.objective.columns)
        index = open_index(prepare_folder, self.dataset.item_vectors, config.index)
        self.scorer = SetScorer(self.dataset, run_encoder(config, prepare_folder), scoring_config(config), index)
        self.known = KnownTexts(self.scorer.encoder, index, self.scorer.config.fanout.n)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        first, samples, queries = int(row["first"]), int(row["samples"]), np.asarray(row["queries"], dtype=np.int64)
        texts = list(row["text"])
        written = Written(
            query=np.repeat(queries, samples),
            sample=np.tile(np.arange(first, first + samples), len(queries)),
            text=texts,
            finished=row["finished"],
            policy_version=int(row["version"]),
        )
        shard = build_shard(written, self.scorer, self.config, self.known)
        vectors = self.dataset.query_vectors, self.dataset.item_vectors
        tensors = tensor_table(shard, *vectors) if self.config.sets.write_tensors else None
        write_shard(Path(row["path"]), shard, lineage=json.loads(row["lineage"]), tensors=tensors)
        parsed = count_parsed(len(queries), shard.status, texts)
        return {
            "path": row["path"],
            "policy": row["policy"],
            "answers": len(texts),
            "queries": parsed.queries,
            "statuses": list(parsed.statuses),
            "examples": list(parsed.examples),
            "seconds_sampling": row["seconds_sampling"],
            "seconds_scoring": time.perf_counter() - started,
        }


def stream_shards(
    tasks: Sequence[ShardTask],
    config: Config,
    prepare_folder: Path,
    sampler: type = ShardSampler,
    sampler_args: tuple[Any, ...] | None = None,
    say: Callable[[str], None] = print,
) -> Generator[ShardDone, None, None]:
    """Makes the shards, in any order, and yields each when it stands.

    From one engine up to `rollout.workers` work at a time, as many as find a place. `sampler` stands in for the engine
    where completions come from elsewhere; it is called with a task's row and adds what `ShardSampler` adds.
    say: where the loss of one that stood still is reported.
    """
    _settle_ray_data(config)
    with roll_call(config, say) as roll, ending_its_schedule():
        job = _job(tasks, config, prepare_folder, sampler, sampler_args, roll)
        yield from _stream(tasks, timely(job.iter_rows(), config.cluster.call_timeout))


def _stream(tasks: Sequence[ShardTask], rows: Iterator[Any]) -> Iterator[ShardDone]:
    standing: set[str] = set()
    try:
        for row in rows:
            standing.add(row["path"])
            yield ShardDone(
                path=row["path"],
                policy=row["policy"],
                answers=row["answers"],
                parsed=ParseCount(
                    queries=row["queries"], statuses=tuple(row["statuses"]), examples=tuple(row["examples"])
                ),
                seconds_sampling=row["seconds_sampling"],
                seconds_scoring=row["seconds_scoring"],
            )
    except RayActorError as error:
        if "creation task" in str(error):  # it never came to a shard
            raise
        missing = [Path(task.path).name for task in tasks if task.path not in standing]
        raise UserError(
            f"an engine or scorer died {SHARD_TRIES} times of the same shard, one of the {len(missing)} missing "
            f"({', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}): {error}\n"
            "Where memory ran out, lower sets.shard_answers or rollout.max_num_seqs; what stands is kept"
        ) from None


def _job(
    tasks: Sequence[ShardTask],
    config: Config,
    prepare_folder: Path,
    sampler: type,
    sampler_args: tuple[Any, ...] | None,
    roll: Any,
) -> ray.data.Dataset:
    return (
        ray.data.from_items([asdict(task) for task in tasks], override_num_blocks=len(tasks))
        .map(
            cast(Any, sampler),  # Ray's annotation of `map` leaves out callable classes
            fn_constructor_args=(config, roll) if sampler_args is None else sampler_args,
            compute=_pool(config.rollout.workers, len(tasks)),
            num_cpus=config.rollout.cpus,
            num_gpus=gpus("rollout", config),
            runtime_env={"env_vars": role_environment("rollout", config)},
            max_task_retries=SHARD_TRIES - 1,
        )
        .map(
            cast(Any, ShardScorer),
            fn_constructor_args=(prepare_folder, config, roll),
            compute=_pool(config.scorer.workers, len(tasks)),
            num_cpus=config.scorer.cpus,
            runtime_env={"env_vars": role_environment("scorer", config)},
            max_task_retries=SHARD_TRIES - 1,
        )
    )


def _pool(workers: int, tasks: int) -> ActorPoolStrategy:
    """At once as many actors as there is work for; where fewer find a place, or nodes go, the rest do it."""
    most = min(workers, tasks)
    return ActorPoolStrategy(min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=2)


def _settle_ray_data(config: Config) -> None:
    """Engines wait for scorers; Ray Data's own bars and plans stay out of the way of the run's one line per step."""
    context = DataContext.get_current()
    waiting = WAITING_BYTES * config.rollout.workers
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=waiting)
    context.raise_original_map_exception = True  # a full disk stays the one message that it is
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised, too
