"""Stage sets: samples the frozen policy for every training query and stores what its sub-queries retrieve."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.synthesis import WEIGHTS, ShardTask, stream_shards
from jobs.run import Run
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.config import Config
from r4t.lineage import MANIFEST, clear_partial, file_hash, is_finished, read_manifest, write_manifest
from r4t.sets.parsed import ParseCount
from r4t.sets.reader import shard_paths
from r4t.sets.slices import Slice, slices
from r4t.sets.store import read_columns, shard_files, shard_name, shard_problem
from r4t.sets.targets import check_rows


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
    first = make_shards(config, run, tasks, started) if tasks else None
    for one in missing:
        _finish(config, run, one, time.monotonic() - started, first)


def pending_shards(config: Config, run: Run, dataset: Dataset, one: Synthesis) -> list[ShardTask]:
    """The shards that do not stand yet. Existing ones are checked: content against digest, lineage against this run."""
    one.folder.mkdir(parents=True, exist_ok=True)
    clear_partial(one.folder)
    lineage = _lineage(config, run, one)
    folm = read_manifest(run.folder / "folm") or {}
    version = int(folm.get("metrics", {}).get("step", 1)) if one.policy.name == "policy" else 0
    parts = slices(dataset.split("train"), config.sets)
    paths = [one.folder / shard_name(number) for number in range(len(parts))]
    for stray in set(shard_paths(one.folder)) - set(paths):
        stray.unlink()  # of another plan: its rows would stand twice
    tasks, reused = [], 0
    for path, part in zip(paths, parts, strict=True):
        own = lineage | _place(part)
        if shard_problem(path, own) is None:
            reused += 1
            continue
        tasks.append(
            ShardTask(
                path=str(path),
                policy=str(one.policy),
                version=version,
                queries=part.queries,
                texts=tuple(dataset.queries[row].text for row in part.queries),
                first=part.first,
                samples=part.samples,
                lineage=json.dumps(own, sort_keys=True),
            )
        )
    if reused:
        run.say(f"{one.name}: {reused} shards stand already, {len(tasks)} to make")
    return tasks


def make_shards(config: Config, run: Run, tasks: list[ShardTask], started: float) -> dict[str, float]:
    """Runs the Ray Data job. Returns the answers of the first shard, and the seconds since `started` until it stood.

    Raises UserError when a policy writes hardly an answer that can be read.
    """
    read: dict[str, ParseCount] = {}
    first: dict[str, float] = {}
    answers = sum(len(task.queries) * task.samples for task in tasks)
    job = closing(stream_shards(tasks, config, run.folder / "prepare", say=run.say))  # before the session, if stopped
    with run.progress("sets (answers)", answers) as bar, job as shards:
        for done in shards:
            read[done.policy] = read.get(done.policy, ParseCount()) + done.parsed
            read[done.policy].check(config.sets.min_parsed, config.sets.check_after, f"the policy {done.policy}")
            bar.advance(done.answers)
            first = first or {"answers": done.answers, "seconds": time.monotonic() - started}
    return first


def _place(part: Slice) -> dict[str, Any]:
    """The answers of one shard, in its lineage."""
    return {
        "queries": [part.queries[0], part.queries[-1]],
        "n_queries": len(part.queries),
        "samples": [part.first, part.first + part.samples - 1],
    }


def _lineage(config: Config, run: Run, one: Synthesis) -> dict[str, Any]:
    """All that decides a shard's content."""
    return {
        "schema": 2,
        "policy": one.policy.name,
        "policy_sha256": file_hash(one.policy / WEIGHTS),
        "prepare_sha256": file_hash(run.folder / "prepare" / MANIFEST),
        "task": config.task,
        "seed": config.seed,
        "rows": config.retriever.rows,
        "temperature": config.sets.temperature,
        "max_tokens": config.rl.max_tokens,
        "tensors": config.sets.write_tensors,
        "fanout": config.fanout.model_dump(mode="json"),
        "objective": config.objective.model_dump(mode="json"),
    }


def _finish(config: Config, run: Run, one: Synthesis, seconds: float, first: dict[str, float] | None) -> None:
    """Closes the stage over its shards, which are read one at a time. first: the first shard, for `r4t plan`."""
    clear_partial(one.folder)  # of scorers that died while others went on
    answers = valid = 0
    reward = 0.0
    queries: set[int] = set()
    paths = shard_paths(one.folder)
    for path in paths:
        columns = read_columns(path, ("query", "valid", "reward"))
        answers += len(columns["valid"])
        valid += int(columns["valid"].sum())
        reward += float(columns["reward"][columns["valid"]].sum(dtype=np.float64))
        queries.update(np.unique(columns["query"]).tolist())
    metrics = {
        "answers": answers,
        "valid": valid / answers,
        "reward": reward / valid if valid else None,
        "queries": len(queries),
        "seconds": seconds,
    }
    write_manifest(
        one.folder,
        stage=one.name,
        config=config.model_dump(mode="json"),
        inputs={"prepare": run.folder / "prepare", "folm": run.folder / "folm"},
        files=[file.name for path in paths for file in shard_files(path)],
        metrics=metrics | ({"first_shard": first} if first else {}),
    )
    run.log(one.name, 0, {name: value for name, value in metrics.items() if value is not None})
