"""Where the loop stands: what a checkpoint holds beside the learners' tensors, and how a run finds back to it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.groups import GroupSource
from cluster.launch import gather
from cluster.watch import LEARNERS, Actors
from jobs.warm_start import VALIDATION
from r4t.catalog.dataset import Dataset
from r4t.config import Config
from r4t.errors import UserError
from r4t.lineage import read_json, write_json
from r4t.sealed import STEPS, damage, newest_whole, sealed_folder
from r4t.stream import QueryStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The loop at a step's boundary."""

    step: int = 0
    """Steps done; also the version of the weights."""
    consumed: int = 0
    """Draws of the query stream that finished steps used, trained or filtered: the next batch begins here."""
    best: dict[str, float] = field(default_factory=dict)
    """`reward` and `step` of the policy in `folm/policy`."""
    start: dict[str, float] = field(default_factory=dict)
    """Validation of the warm-started policy: vital signs, terms, and what the judge said."""


def checkpoint(config: Config, actors: Actors, folder: Path, progress: Progress, source: GroupSource) -> None:
    """Writes an atomic checkpoint and drops the oldest beyond `rl.keep_last`.

    Draws in flight were not consumed: a resumed run draws the same queries again, with the weights of then.
    """
    root = folder / "checkpoints"
    root.mkdir(exist_ok=True)
    state = {
        "step": progress.step,
        "consumed": progress.consumed,
        "last_consumed": source.query_id(progress.consumed - 1) if progress.consumed else None,
        "in_flight": source.in_flight,
        "start": progress.start,
    }
    with sealed_folder(root / f"step-{progress.step:06d}") as temporary:
        gather([learner.save.remote(temporary) for learner in actors.learners], config, LEARNERS)
        gather(
            [learner.export.remote(temporary / "model.safetensors") for learner in actors.learners], config, LEARNERS
        )
        write_json(temporary / "state.json", state)
    for old in sorted(root.glob(STEPS))[: -config.rl.keep_last]:
        shutil.rmtree(old)


def resume(config: Config, dataset: Dataset, actors: Actors, folder: Path, say: Callable[[str], None]) -> Progress:
    """Restores the newest whole checkpoint, if any. Raises UserError when its queries are not this dataset's, and when
    the policy that is kept is damaged, which no checkpoint holds.

    The best validation is that of the policy that is kept, which can be newer than the checkpoint.
    """
    if problem := damage(folder / "policy"):
        raise UserError(
            f"{folder / 'policy'} is damaged ({problem}) and holds the best policy so far: restore it, or remove it and"
            f" {folder / 'checkpoints'} to train again from the warm start"
        )
    kept = folder / "policy" / VALIDATION
    best = read_json(kept) if kept.is_file() else {}
    newest = newest_whole(folder / "checkpoints", say)
    if newest is None:
        return Progress(best=best)
    state = read_json(newest / "state.json")
    _check_queries(config, dataset, state, newest)
    gather([learner.load.remote(newest) for learner in actors.learners], config, LEARNERS)
    return Progress(step=state["step"], consumed=state["consumed"], best=best, start=state["start"])


def _check_queries(config: Config, dataset: Dataset, state: dict[str, Any], where: Path) -> None:
    """The last draw consumed and those that were in flight must be what the stream gives here too."""
    stream = QueryStream(dataset.split("train"), config.seed)
    expected = [state["last_consumed"], *state["in_flight"]] if state["consumed"] else state["in_flight"]
    first = max(0, state["consumed"] - 1)
    drawn = [dataset.queries[stream.row(first + i)].query_id for i in range(len(expected))]
    if drawn != expected:
        raise UserError(
            f"{where} drew other queries than this run's dataset and seed give: resume with the prepared data and"
            " configuration it was written with, or start in a new run directory"
        )
