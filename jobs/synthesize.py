"""Stage sets: samples the frozen policy for every training query and stores what its sub-queries retrieve."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext

from cluster.devices import gpus, role_environment
from cluster.synthesis import WEIGHTS, ShardSampler, ShardScorer, ShardTask
from jobs.run import Run
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.config import Config
from r4t.lineage import MANIFEST, clear_partial, file_hash, is_finished, read_manifest, write_manifest
from r4t.sets.reader import shard_paths
from r4t.sets.store import read_shard, shard_name, shard_problem, subqueries_name
from r4t.sets.targets import check_rows
from r4t.types import Ints


@dataclass(frozen=True, slots=True)
class Synthesis:
    """One policy's training sets."""

    name: str
    policy: Path
    folder: Path


def main(config: Config, run: Run) -> None:
    """The trained policy's sets in `sets/` and, for comparison, the warm-started one's in `sets/zero_shot/`."""
    check_rows(config.retriever.rows, config.fanout.k)
    folm, sets = run.folder / "folm", run.stage_folder("sets")
    wanted = [Synthesis("sets", folm / "policy", sets)]
    if config.evaluate.zero_shot_diffusion:
        wanted.append(Synthesis("sets/zero_shot", folm / "warm_start", sets / "zero_shot"))
    missing = [one for one in wanted if not is_finished(one.folder)]
    if not missing:
        run.say("sets: already finished")
        return
    started = time.monotonic()
    dataset = load_dataset(run.folder / "prepare")
    tasks = [task for one in missing for task in pending_shards(config, run, dataset, one)]
    if tasks:
        make_shards(config, run, tasks)
    for one in missing:
        _finish(config, run, one, time.monotonic() - started)


def pending_shards(config: Config, run: Run, dataset: Dataset, one: Synthesis) -> list[ShardTask]:
    """The shards that do not stand yet. Existing ones are checked: content against digest, lineage against this run."""
    one.folder.mkdir(parents=True, exist_ok=True)
    clear_partial(one.folder)
    lineage = _lineage(config, run, one)
    folm = read_manifest(run.folder / "folm") or {}
    version = int(folm.get("metrics", {}).get("step", 1)) if one.policy.name == "policy" else 0
    tasks, reused = [], 0
    for number, queries in enumerate(slices(dataset.split("train"), config.sets.shard_queries)):
        path = one.folder / shard_name(number)
        own = lineage | {"queries": [int(queries[0]), int(queries[-1])], "n_queries": len(queries)}
        if shard_problem(path, own) is None:
            reused += 1
            continue
        tasks.append(
            ShardTask(
                path=str(path),
                policy=str(one.policy),
                version=version,
                queries=queries.tolist(),
                lineage=json.dumps(own, sort_keys=True),
            )
        )
    if reused:
        run.say(f"{one.name}: {reused} shards stand already, {len(tasks)} to make")
    return tasks


def make_shards(config: Config, run: Run, tasks: list[ShardTask]) -> None:
    """The Ray Data job: tasks -> answers of the policy (vLLM) -> scored, composed and written shards."""
    _quiet()
    prepare, queries = run.folder / "prepare", sum(len(task.queries) for task in tasks)
    answers = (
        ray.data.from_items([task.to_row() for task in tasks], override_num_blocks=len(tasks))
        .map(
            cast(Any, ShardSampler),  # Ray's annotation of `map` leaves out callable classes
            fn_constructor_args=(prepare, config),
            compute=ActorPoolStrategy(size=min(config.rollout.workers, len(tasks)), max_tasks_in_flight_per_actor=2),
            num_cpus=config.rollout.cpus,
            num_gpus=gpus("rollout", config),
            runtime_env={"env_vars": role_environment("rollout", config)},
        )
        .map(
            cast(Any, ShardScorer),
            fn_constructor_args=(prepare, config),
            compute=ActorPoolStrategy(size=min(config.scorer.workers, len(tasks))),
            num_cpus=config.scorer.cpus,
            runtime_env={"env_vars": role_environment("scorer", config)},
        )
    )
    with run.progress("sets (queries)", queries) as bar:
        for done in answers.iter_rows():
            bar.advance(int(done["answers"]) // config.sets.samples_per_query)


def slices(rows: Ints, size: int) -> list[Ints]:
    """Consecutive slices of `size` queries: shard i always holds the same ones."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _lineage(config: Config, run: Run, one: Synthesis) -> dict[str, Any]:
    """All that decides a shard's content."""
    return {
        "schema": 1,
        "policy": one.policy.name,
        "policy_sha256": file_hash(one.policy / WEIGHTS),
        "prepare_sha256": file_hash(run.folder / "prepare" / MANIFEST),
        "task": config.task,
        "seed": config.seed,
        "rows": config.retriever.rows,
        "samples_per_query": config.sets.samples_per_query,
        "temperature": config.sets.temperature,
        "max_tokens": config.rl.max_tokens,
        "fanout": config.fanout.model_dump(mode="json"),
        "objective": config.objective.model_dump(mode="json"),
    }


def _finish(config: Config, run: Run, one: Synthesis, seconds: float) -> None:
    paths = shard_paths(one.folder)
    shards = [read_shard(path) for path in paths]
    valid = np.concatenate([shard.valid for shard in shards])
    reward = np.concatenate([shard.reward for shard in shards])
    metrics = {
        "answers": len(valid),
        "valid": float(valid.mean()),
        "reward": float(reward[valid].mean()) if valid.any() else None,
        "queries": len(np.unique(np.concatenate([shard.query for shard in shards]))),
        "seconds": seconds,
    }
    names = [path.name for path in paths]
    write_manifest(
        one.folder,
        stage=one.name,
        config=config.model_dump(mode="json"),
        inputs={"prepare": run.folder / "prepare", "folm": run.folder / "folm"},
        files=names + [subqueries_name(name) for name in names],
        metrics=metrics,
    )
    values = {name: value for name, value in metrics.items() if value is not None}
    run.log(one.name, 0, values)


def _quiet() -> None:
    """Ray Data's own bars and plans stay out of the way of the run's one line per step."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
