"""The items of one version: vectors, columns, what can be filtered by, and the plane they are drawn on."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r4t.catalog.plane import fit_plane
from r4t.errors import UserError
from r4t.retriever.files import read_columns, read_items
from r4t.retriever.items import ItemIndex
from r4t.serving.refused import RefusedError
from r4t.types import Bools, Floats, Ints

BACKGROUND = 500
FACET_VALUES = 200
"""Columns with more different values, and those of decimals, are shown but cannot be filtered by."""
KEPT = 32
"""Selections that are remembered."""


class Catalogue:
    """Made from an exported folder, whole, and never changed. Every index here counts items by their row."""

    def __init__(self, folder: Path, encoder: str, *, exact: bool = False) -> None:
        """exact: searched by `ItemIndex.exact`, which needs torch, unless there are filters.

        Raises UserError for a folder that was exported without items, is damaged, or holds fewer than one item.
        """
        stored = read_items(folder)
        if stored is None:
            raise UserError(f"{folder} was exported without items: export it again, without --no-items")
        self.item_ids, self.names, vectors = stored
        self.vectors: Floats = np.ascontiguousarray(vectors, dtype=np.float32)
        self.columns = {name: [_plain(value) for value in values] for name, values in read_columns(folder).items()}
        self.encoder = encoder
        self._rows_of = {
            name: rows for name, values in self.columns.items() if (rows := _rows_of(values)) and name != "text"
        }
        self.plane = fit_plane(self.vectors)
        self.background = self.plane.project(
            self.vectors[np.random.default_rng(0).permutation(len(self.vectors))[:BACKGROUND]]
        )
        self._exact = exact
        build = ItemIndex.exact if exact else ItemIndex.of_vectors
        self.index = ItemIndex(index=build(self.vectors, encoder, self.item_ids, self.names).index, encoder=encoder)
        self._selections: dict[tuple[Any, ...], ItemIndex] = {}

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def facets(self) -> dict[str, list[str]]:
        """The columns that can be filtered by, and their values, the commonest first."""
        return {
            name: sorted(rows, key=lambda value: (-len(rows[value]), value)) for name, rows in self._rows_of.items()
        }

    def fields(self, row: int) -> dict[str, Any]:
        """An item's own columns, absent values left out."""
        return {name: values[row] for name, values in self.columns.items() if values[row] is not None}

    def within(self, filters: Mapping[str, Sequence[str]]) -> ItemIndex:
        """The items that have, in every column named, one of its values. Exact, as is the search in it.

        Raises RefusedError for a column that cannot be filtered by.
        """
        if not filters:
            return self.index
        key = tuple(sorted((name, tuple(sorted(set(values)))) for name, values in filters.items()))
        if (known := self._selections.get(key)) is not None:
            return known
        mask = np.ones(len(self), dtype=bool)
        for name, values in key:
            mask &= self._having(name, values)
        found = ItemIndex(
            index=_Selection(self._selectable.index, np.flatnonzero(mask), self.index.dim), encoder=self.encoder
        )
        if len(self._selections) >= KEPT:
            self._selections.clear()
        self._selections[key] = found
        return found

    def check(self, filters: Mapping[str, Sequence[str]]) -> None:
        """Raises RefusedError as `within` does."""
        for name in filters:
            if name not in self._rows_of:
                known = ", ".join(self._rows_of) or "none here"
                raise RefusedError(
                    422, "unknown_column", f"items cannot be filtered by this column: {known}", "filters"
                )

    @functools.cached_property
    def _selectable(self) -> ItemIndex:
        """One of FAISS, which can search among chosen items."""
        return ItemIndex.of_vectors(self.vectors, self.encoder, self.item_ids) if self._exact else self.index

    def _having(self, name: str, values: Sequence[str]) -> Bools:
        mask = np.zeros(len(self), dtype=bool)
        for value in values:
            if (rows := self._rows_of[name].get(value)) is not None:
                mask[rows] = True
        return mask


class _Selection:
    """Some items of a FAISS index, as an index of their own that still counts rows as the whole one does."""

    def __init__(self, index: Any, rows: Ints, dim: int) -> None:
        import faiss

        made: Any = faiss  # whose own types are those of its C++ part
        self._index, self.ntotal, self.d = index, len(rows), dim
        # FAISS keeps a pointer to the bits, so they live as long as this.
        self._bits = np.packbits(np.isin(np.arange(index.ntotal), rows), bitorder="little")
        self._chosen = made.SearchParameters(sel=made.IDSelectorBitmap(self._bits))

    def search(self, queries: Floats, n: int) -> tuple[Floats, Ints]:
        if not self.ntotal:
            return np.empty((len(queries), 0), dtype=np.float32), np.empty((len(queries), 0), dtype=np.int64)
        scores, rows = self._index.search(queries, n, params=self._chosen)
        return scores, rows


def _rows_of(values: Sequence[Any]) -> dict[str, Ints]:
    """Rows that have each value; empty for a column whose values do not group items."""
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, float):
                return {}
            if one is not None:
                rows.setdefault(_as_text(one), []).append(row)
        if len(rows) > FACET_VALUES:
            return {}
    return {value: np.array(found, dtype=np.int64) for value, found in rows.items()} if len(rows) > 1 else {}


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(value: Any) -> Any:
    """A cell as JSON has it: NaN and empty texts are absent, what JSON does not know is written out."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return str(value) or None
