"""What a new catalogue means for training sets that were made over the old one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from r4t.catalog.index import ExactIndex
from r4t.types import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueChange:
    """Items count as the same where their vectors are, whatever their rows and names."""

    added: int
    removed: int
    kept: int
    targets: int
    moved: int
    """Targets whose nearest item has another vector than before."""

    @property
    def moved_share(self) -> float:
        """Share of the targets that moved; 0 where there are none."""
        return self.moved / self.targets if self.targets else 0.0


def catalogue_change(old_vectors: Floats, new_vectors: Floats, targets: Floats) -> CatalogueChange:
    """Compares two catalogues [N, d] and [N', d], and the items nearest to `targets` [T, d] in either.

    Searches are exact. Raises UserError for an empty catalogue and ValueError for targets of another width.
    """
    old, new = _counts(old_vectors), _counts(new_vectors)
    kept = sum(min(number, new.get(vector, 0)) for vector, number in old.items())
    before, after = (vectors[_nearest(vectors, targets)] for vectors in (old_vectors, new_vectors))
    return CatalogueChange(
        added=len(new_vectors) - kept,
        removed=len(old_vectors) - kept,
        kept=kept,
        targets=len(targets),
        moved=int((before != after).any(axis=1).sum()),
    )


def _nearest(vectors: Floats, targets: Floats) -> Ints:
    return ExactIndex(vectors).search(targets, 1)[1][:, 0]


def _counts(vectors: Floats) -> dict[bytes, int]:
    values, numbers = np.unique(np.ascontiguousarray(vectors), axis=0, return_counts=True)
    return dict(zip((row.tobytes() for row in values), numbers.tolist(), strict=True))
