"""What changed between two prepared catalogues, and how many training targets it concerns."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from r4t.catalog.changes import catalogue_change
from r4t.catalog.dataset import load_dataset
from r4t.config import load_config
from r4t.errors import UserError
from r4t.sets.reader import load_targets


def diff(old_prepare: Path, new_prepare: Path, sets: Path | None = None) -> dict[str, Any]:
    """Counts of items, and of retrieval targets whose nearest item changed, as plain numbers.

    Targets are the rows of the training sets in `sets`, a run's folder made over the old catalogue; without it, the
    queries of the old catalogue. Raises UserError for catalogues of different encoders' widths or unfinished folders.
    """
    old, new = load_dataset(old_prepare), load_dataset(new_prepare)
    widths = old.item_vectors.shape[1], new.item_vectors.shape[1]
    if widths[0] != widths[1]:
        raise UserError(f"the catalogues have vectors of {widths[0]} and {widths[1]} dimensions: encode both alike")
    targets = old.query_vectors
    if sets is not None:
        chosen = load_targets(sets, old, load_config(sets.parent / "config.yaml"), old_prepare)
        targets = chosen.vectors(np.unique(chosen.rows))
    change = catalogue_change(old.item_vectors, new.item_vectors, targets)
    return asdict(change) | {"moved_share": change.moved_share}
