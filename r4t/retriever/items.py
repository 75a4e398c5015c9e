"""Items that a retriever can search: any FAISS index, or an index of R4T, with the encoder it was made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from r4t.errors import UserError
from r4t.types import Floats, Ints

L2 = 1  # faiss.METRIC_L2


class Searchable(Protocol):
    """`faiss.Index` and `r4t.catalog.index.Index` both are."""

    def search(self, queries: Any, n: int, /) -> tuple[Any, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemIndex:
    """An index over unit item vectors and what it takes to use it.

    encoder: `R4TRetriever.encoder_hash` of the encoder that made the vectors. item_ids: the id of each row of the
    index, None where the index's own numbers are the ids (`faiss.IndexIDMap`). names: what people call them.
    Raises UserError for lists that are not as long as the index.
    """

    index: Searchable
    encoder: str
    item_ids: Sequence[str] | None = None
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for what, values in (("item_ids", self.item_ids), ("names", self.names)):
            if values is not None and len(values) != self.size:
                raise UserError(
                    f"the index holds {self.size} items and {what} {len(values)}: give one for each, in order"
                )

    @property
    def size(self) -> int:
        return int(self.index.ntotal if hasattr(self.index, "ntotal") else self.index.size)  # type: ignore[attr-defined]

    @property
    def dim(self) -> int:
        return int(self.index.d if hasattr(self.index, "d") else self.index.dim)  # type: ignore[attr-defined]

    @classmethod
    def of_vectors(
        cls, vectors: Floats, encoder: str, item_ids: Sequence[str], names: Sequence[str] | None = None
    ) -> ItemIndex:
        """A flat FAISS index over unit vectors [N, d]. Raises UserError where FAISS is not installed."""
        try:
            import faiss
        except ImportError:
            raise UserError(
                "searching needs FAISS: pip install faiss-cpu, or search another store with `embed`"
            ) from None
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(index=index, encoder=encoder, item_ids=item_ids, names=names)

    @classmethod
    def exact(
        cls, vectors: Floats, encoder: str, item_ids: Sequence[str], names: Sequence[str] | None = None
    ) -> ItemIndex:
        """R4T's own exact index, which finds the same items somewhat faster than `of_vectors`. Needs torch."""
        from r4t.catalog.index import ExactIndex

        return cls(index=ExactIndex(vectors), encoder=encoder, item_ids=item_ids, names=names)

    @classmethod
    def of_run(cls, run_folder: Path) -> ItemIndex:
        """The items of a run, through the index that its prepare stage keeps. Needs torch."""
        from r4t.catalog.dataset import load_dataset
        from r4t.catalog.index import open_index
        from r4t.config import load_config
        from r4t.lineage import read_manifest

        prepare = run_folder / "prepare"
        dataset = load_dataset(prepare)
        index = open_index(prepare, dataset.item_vectors, load_config(run_folder / "config.yaml").index)
        fingerprint = (read_manifest(prepare) or {})["encoder"]["fingerprint"]
        return cls(index=index, encoder=fingerprint, item_ids=dataset.item_ids, names=dataset.item_names)

    def check(self, encoder: str, dim: int) -> None:
        """Raises UserError unless the items were encoded by the encoder of that hash, in `dim` columns."""
        if self.encoder != encoder:
            raise UserError(
                f"the index was made with another encoder (hash {self.encoder[:12]}) than the retriever's"
                f" ({encoder[:12]}): encode the items with `R4TRetriever.encode` and build the index again"
            )
        if self.dim != dim:
            raise UserError(f"the index holds vectors of width {self.dim}, the retriever's have {dim}: build it again")

    def nearest(self, rows: Floats, n: int) -> tuple[Floats, Ints]:
        """[m, d] unit rows -> cosines and row numbers [m, at most n], best first; -1 where FAISS found no more."""
        scores, found = self.index.search(np.ascontiguousarray(rows, dtype=np.float32), min(n, self.size))
        if getattr(self.index, "metric_type", 0) == L2:
            scores = 1 - scores / 2  # of unit vectors, which is also the order of cosines
        return np.asarray(scores, dtype=np.float32), np.asarray(found, dtype=np.int64)

    def item_id(self, number: int) -> str:
        return str(number) if self.item_ids is None else self.item_ids[number]

    def name(self, number: int) -> str:
        return "" if self.names is None else self.names[number]
