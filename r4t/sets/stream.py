"""The shuffled stream of training sets, cut into batches for ranks and workers; resumes at the sample."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from r4t.errors import UserError
from r4t.sets.reader import TargetSets
from r4t.types import Floats, Ints


@dataclass(frozen=True, slots=True)
class SetBatch:
    """B training sets."""

    sets: Floats
    """[B, L, d] unit rows, in a random order of this draw."""
    queries: Floats
    """[B, d]"""
    chosen: Ints
    """[B] places of the sets in the reader's `TargetSets`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetStream:
    """Every set once per epoch, over all ranks together: batch i of the stream belongs to rank i mod `world`.

    What stands at a position of the stream depends on the seed and the position alone (`TargetSets.drawn`), so neither
    `world` nor `batch` changes the order, and one number says how far a reader is.
    """

    targets: TargetSets
    digest: str
    """Who the sets are (`OpenTables.digest`); goes into the state."""
    batch: int
    seed: int = 0
    rank: int = 0
    world: int = 1
    start: int = 0
    """Position of the first set. Position p is in epoch p // M."""
    stop: int | None = None
    """Position after the last set, where the last batch may be smaller; None never ends."""
    equal: bool = False
    """Every rank gets equally many batches: those left over at the end, fewer than `world`, are given to nobody."""

    def __post_init__(self) -> None:
        if self.batch < 1 or not 0 <= self.rank < self.world:
            raise ValueError(f"no stream of batches of {self.batch} for rank {self.rank} of {self.world}")

    def batches(self, worker: int = 0, workers: int = 1) -> Iterator[SetBatch]:
        """This rank's batches, or every `workers`-th of them from `worker` on."""
        turn = worker
        while (positions := self._positions(turn)).size:
            chosen, rows = self.targets.drawn(positions, self.seed)
            queries = self.targets.query_vectors[self.targets.query[chosen]]
            yield SetBatch(self.targets.vectors(rows), queries, chosen)
            turn += workers

    def state(self, taken: int) -> dict[str, Any]:
        """Where the stream stands after each rank took `taken` batches: plain values for a JSON file."""
        position = self.start + taken * self.batch * self.world
        if self.stop is not None:
            position = min(position, self.stop)
        return {"schema": 1, "position": position, "stop": self.stop, "seed": self.seed, "sets": self.digest}

    def resumed(self, state: dict[str, Any]) -> SetStream:
        """This stream from where a state was saved, by any number of ranks and in batches of any size.

        Raises UserError when the state is of other sets or another order.
        """
        if state.get("sets") != self.digest or state.get("seed") != self.seed:
            raise UserError(
                "the saved state of the reader is of other training sets, filters or another seed: start without it, or"
                " read the sets that it was saved with"
            )
        return replace(self, start=int(state["position"]), stop=state["stop"])

    def _positions(self, turn: int) -> Ints:
        round_starts = self.start + turn * self.world * self.batch
        first = round_starts + self.rank * self.batch
        if self.stop is None:
            return np.arange(first, first + self.batch)
        if self.equal and round_starts + (self.world - 1) * self.batch >= self.stop:
            return np.arange(0)
        return np.arange(first, min(first + self.batch, self.stop))


def rank_and_world() -> tuple[int, int]:
    """Of the process group, else of the environment (RANK, WORLD_SIZE) that launchers set, else 0 of 1."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
