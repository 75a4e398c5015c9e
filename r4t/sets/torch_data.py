"""A run's training sets as a PyTorch data set, for trainers other than R4T's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from r4t.config import load_config
from r4t.errors import UserError
from r4t.sets.stream import SetStream, rank_and_world
from r4t.sets.tables import open_tables

ENDLESS = -1


def torch_dataset(
    run: Path | str,
    *,
    batch: int,
    seed: int = 0,
    epochs: int | None = 1,
    equal: bool = False,
    rank: int | None = None,
    world: int | None = None,
) -> TorchSets:
    """All usable sets of a run that has finished stage 2, in batches; `epochs=None` never ends.

    The run's filters apply. `rank` and `world` are those of the process group or the launcher's environment by default.
    With `equal`, every rank gets the same number of batches and up to `world` - 1 batches of the pass go to nobody.
    Raises UserError for a folder that is no run, and as `open_tables`.
    """
    folder = Path(run)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is no run directory (it has no config.yaml): give the folder that `r4t run` made")
    found = rank_and_world()
    place = (found[0] if rank is None else rank, found[1] if world is None else world)
    return TorchSets(folder, batch=batch, seed=seed, epochs=epochs, equal=equal, place=place)


class TorchSets(IterableDataset[dict[str, Tensor]]):
    """Whole batches of sets; give it to `DataLoader(dataset, batch_size=None, num_workers=...)`.

    A batch holds `sets` [B, L, d] and `queries` [B, d] in float32, `query` [B] (rows of the prepared dataset) and
    `set` [B] (which set it is). Workers and ranks share the tables and share out the batches: no set comes twice in an
    epoch, and the loader's order does not depend on the number of its workers.
    """

    def __init__(
        self, run: Path, *, batch: int, seed: int, epochs: int | None, equal: bool, place: tuple[int, int]
    ) -> None:
        self._run, self._epochs = run, epochs
        self._settings: dict[str, Any] = {
            "batch": batch, "seed": seed, "equal": equal, "rank": place[0], "world": place[1]
        }  # fmt: skip
        self._opened: SetStream | None = None
        # First and last position, shared so that workers that live for several passes see them change.
        self._range = torch.zeros(2, dtype=torch.int64).share_memory_()
        self.set_epoch(0)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        stream, worker = self.stream(), get_worker_info()
        for batch in stream.batches(*((worker.id, worker.num_workers) if worker else (0, 1))):
            yield {
                "sets": torch.from_numpy(batch.sets),
                "queries": torch.from_numpy(batch.queries),
                "query": torch.from_numpy(stream.targets.query[batch.chosen]),
                "set": torch.from_numpy(batch.chosen),
            }

    def set_epoch(self, epoch: int) -> None:
        """Another order from now on: call it before each pass, as with PyTorch's samplers."""
        length = len(self.stream().targets)
        stop = ENDLESS if self._epochs is None else (epoch + self._epochs) * length
        self._range.copy_(torch.tensor([epoch * length, stop]))

    def state(self, taken: int) -> dict[str, Any]:
        """The state to save once each rank has taken `taken` batches of the present pass: a small JSON object."""
        return self.stream().state(taken)

    def resume(self, state: dict[str, Any]) -> None:
        """Go on to the end of the pass in which a state was saved. Errors as `SetStream.resumed`."""
        stream = self.stream().resumed(state)
        self._range.copy_(torch.tensor([stream.start, ENDLESS if stream.stop is None else stream.stop]))

    def stream(self) -> SetStream:
        """This rank's stream of the present pass."""
        if self._opened is None:
            config = load_config(self._run / "config.yaml")
            tables = open_tables(self._run / "sets", self._run / "prepare", config)
            self._opened = SetStream(targets=tables.targets, digest=tables.digest, **self._settings)
        start, stop = self._range.tolist()
        return replace(self._opened, start=start, stop=None if stop == ENDLESS else stop)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}  # each worker maps the tables: pickled they would be copies
