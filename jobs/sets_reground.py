"""`r4t sets reground`: training sets of a run over a changed catalogue, without the language model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track

from jobs.pipeline import locked
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.catalog.encoders import run_encoder
from r4t.catalog.index import open_index
from r4t.config import Config, load_config, parse_config
from r4t.errors import UserError
from r4t.lineage import MANIFEST, clear_partial, file_hash, is_finished, read_manifest, write_manifest
from r4t.scoring import SetScorer
from r4t.sets.columns import checked_shard, shard_paths
from r4t.sets.records import scoring_config
from r4t.sets.reground import changed_sets, reground_shard, same_queries
from r4t.sets.store import ShardColumns, read_lineage, read_shard, shard_files, shard_problem, write_shard
from r4t.sets.tensors import tensor_table
from r4t.types import Ints

FROM = "regrounded_from"


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogues:
    """What the old and the new sets search."""

    config: Config
    """The run's, with the encoder and the index of the new catalogue."""
    old: Dataset
    new: Dataset
    old_sha256: str
    new_sha256: str
    """Of the manifests of the prepare folders."""
    queries: Ints
    """`same_queries`"""
    scorer: SetScorer


def reground(run: Path, catalog: Path, out: Path | None = None) -> dict[str, Any]:
    """Writes the sets of `run` over the catalogue of `catalog`, a run or a prepare folder; an interrupted call resumes.

    The sets of the policy before RL go along where there are any. Returns counts. Raises UserError where something is
    missing, is of another encoder than its configuration says, or would be overwritten.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run directory (it has no config.yaml): give the folder that `r4t run` made")
    is_run = (catalog / "config.yaml").is_file()
    prepare = catalog / "prepare" if is_run else catalog
    if out is None and not is_run:
        raise UserError(f"{catalog} is no run directory: say with --out where the new sets shall go")
    target = out or catalog / "sets"
    if target.resolve() == (run / "sets").resolve():
        raise UserError(f"{target} are the sets to start from: give another directory with --out")
    if not is_finished(run / "sets"):
        raise UserError(f"{run / 'sets'} is not finished: run `r4t run CONFIG --stage sets` first")
    catalogues = _open(run, prepare, load_config(catalog / "config.yaml") if is_run else None)
    with locked(catalog if out is None else target):
        found = _sets(run / "sets", target, run / "prepare", prepare, catalogues)
        if is_finished(run / "sets" / "zero_shot"):
            zero_shot = "zero_shot"
            args = (run / "prepare", prepare, catalogues)
            found[zero_shot] = _sets(run / "sets" / zero_shot, target / zero_shot, *args)
    return {"schema": 1, "from": str(run / "sets"), "catalog": str(prepare), "folder": str(target), **found}


def show(found: dict[str, Any]) -> str:
    """The counts as a few lines of text."""
    lines = []
    for name, one in (("sets", found), ("sets/zero_shot", found.get("zero_shot"))):
        if one:
            lines.append(
                f"{name}: {one['changed']:,} of {one['sets']:,} sets changed ({one['changed_share']:.1%});"
                f" {one['left_out']:,} answers left out, whose query is not in the new training split"
            )
    return "\n".join([*lines, f"written to {found['folder']}"])


def _open(run: Path, prepare: Path, other: Config | None) -> Catalogues:
    config = load_config(run / "config.yaml")
    recorded = (read_manifest(prepare) or {}).get("config")
    source = other or (parse_config(recorded) if recorded else config)
    config = config.model_copy(update={"encoder": source.encoder, "index": source.index})
    old, new = load_dataset(run / "prepare"), load_dataset(prepare, config.objective.columns)
    encoder = run_encoder(config, prepare)
    index = open_index(prepare, new.item_vectors, config.index)
    return Catalogues(
        config=config,
        old=old,
        new=new,
        old_sha256=file_hash(run / "prepare" / MANIFEST),
        new_sha256=file_hash(prepare / MANIFEST),
        queries=same_queries(old, new),
        scorer=SetScorer(new, encoder, scoring_config(config), index),
    )


def _sets(source: Path, target: Path, old_prepare: Path, prepare: Path, catalogues: Catalogues) -> dict[str, Any]:
    """One folder of sets. Its shards keep their names."""
    started = time.monotonic()
    target.mkdir(parents=True, exist_ok=True)
    clear_partial(target)
    paths = shard_paths(source)
    inputs = {"prepare": prepare, "sets": source}
    _refuse_others(target, inputs, {path.name for path in paths})
    total = np.zeros(4, dtype=np.int64)
    reward = 0.0
    for path in track(paths, f"reground {source.name}", console=Console(stderr=True), transient=True):
        old = checked_shard(path, catalogues.old, catalogues.old_sha256)
        new = _shard(path, target / path.name, old, catalogues)
        if new is None:
            total += (len(old.query), 0, 0, 0)
            continue
        changed = changed_sets(old, new, catalogues.old, catalogues.new, catalogues.queries)
        total += (len(old.query) - len(new.query), len(new.query), new.valid.sum(), changed.sum())
        reward += float(new.reward[new.valid].sum(dtype=np.float64))
    left_out, answers, sets, changes = total.tolist()
    if not answers:
        raise UserError(
            f"no query of {old_prepare} is in the training split of {prepare} with the same id and text: nothing can be"
            " kept; run the stage 'sets' over the new catalogue"
        )
    counts = {"sets": sets, "changed": changes, "changed_share": changes / max(sets, 1), "left_out": left_out}
    if not is_finished(target):
        write_manifest(
            target,
            stage="sets/zero_shot" if source.name == "zero_shot" else "sets",
            config=catalogues.config.model_dump(mode="json"),
            inputs=inputs,
            files=[file.name for path in shard_paths(target) for file in shard_files(path)],
            metrics={
                "answers": answers,
                "valid": sets / answers,
                "reward": reward / sets if sets else None,
                "seconds": time.monotonic() - started,
            },
            extra={"regrounded": counts},
        )
    return counts


def _shard(path: Path, target: Path, old: ShardColumns, catalogues: Catalogues) -> ShardColumns | None:
    """The new shard, made if it does not stand yet as these inputs make it."""
    config = catalogues.config
    lineage = {
        "schema": 2,
        FROM: {"digest": pq.read_schema(path).metadata[b"digest"].decode(), "lineage": read_lineage(path)},
        "prepare_sha256": catalogues.new_sha256,
        "task": config.task,
        "seed": config.seed,
        "rows": config.retriever.rows,
        "tensors": config.sets.write_tensors,
        "fanout": config.fanout.model_dump(mode="json"),
        "objective": config.objective.model_dump(mode="json"),
    }
    if shard_problem(target, lineage) is None:
        return read_shard(target)
    shard = reground_shard(old, catalogues.queries, catalogues.scorer, config)
    if shard is None:
        return None
    vectors = catalogues.new.query_vectors, catalogues.new.item_vectors
    tensors = tensor_table(shard, *vectors) if config.sets.write_tensors else None
    write_shard(target, shard, lineage=lineage, tensors=tensors)
    return shard


def _refuse_others(target: Path, inputs: Mapping[str, Path], names: set[str]) -> None:
    """Raises UserError where the folder holds sets that a language model wrote, or that were made of other inputs."""
    finished = read_manifest(target)
    if finished is not None:
        recorded = {name: one["manifest"] for name, one in finished["inputs"].items()}
        if recorded != {name: file_hash(folder / MANIFEST) for name, folder in inputs.items()}:
            raise UserError(f"{target} holds other finished sets: give another directory with --out")
    for path in shard_paths(target):
        if path.name not in names or not _ours(path):
            raise UserError(f"{path} is of other sets: give another directory with --out, or delete {target}")


def _ours(path: Path) -> bool:
    """False for a shard that the language model wrote. One that cannot be read is made anew: it is lost either way."""
    try:
        return FROM in read_lineage(path)
    except (pa.ArrowException, OSError):
        return True
