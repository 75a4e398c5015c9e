"""Fast approximate inner products of one block of items with every query, and how far off they can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from r4t.types import Floats

FLOAT32_ROUNDING = 2.0**-24
INT8_MAX = 127


class Products(Protocol):
    """Products of stored items with queries, in units of each query's own.

    Comparisons are all they are good for, until `window` says how far apart two must be to be ordered for certain.
    """

    def of(self, queries: Floats) -> tuple[Block, torch.Tensor]:
        """For [m, d] queries: a function (first, last) -> products [last - first, m] of the items in between, and
        `window` [m]: an item whose product is lower than another's by more than that has the lower exact score."""
        ...

    def keep(self, items: torch.Tensor) -> None:
        """Forgets all items but those at `items`, in their order."""
        ...

    def append(self, vectors: Floats) -> None:
        """Stores further items [a, d] after the others."""
        ...


Block = Callable[[int, int], torch.Tensor]


class Int8Products:
    """Items and queries rounded to 8 bits, summed exactly in 32: with VNNI four times as fast as float32.

    With x = x' + e and q = q' + f, where ' is the rounded vector: |<q, x> - <q', x'>| <= |f| |x'| + |q| |e|, for the
    lengths of the actual errors, which are measured.
    """

    def __init__(self, vectors: Floats) -> None:
        self.scale = float(np.abs(vectors).max()) / INT8_MAX or 1.0
        self.error = self.length = 0.0
        self.items = torch.empty((0, vectors.shape[1]), dtype=torch.int8)
        self.append(vectors)

    def of(self, queries: Floats) -> tuple[Block, torch.Tensor]:
        scale = np.abs(queries).max(axis=1, keepdims=True).astype(np.float64) / INT8_MAX
        scale[scale == 0] = 1.0
        rounded = _round(queries, scale)
        short_by = _lengths(queries - rounded * scale)
        error = short_by * self.length + _lengths(queries) * (self.error + 4 * FLOAT32_ROUNDING * self.length)
        right = torch.from_numpy(rounded).t().contiguous()
        window = torch.from_numpy(np.ceil(2 * error / (scale[:, 0] * self.scale))).to(torch.int32)
        return lambda first, last: torch._int_mm(self.items[first:last], right), window

    def keep(self, items: torch.Tensor) -> None:
        self.items = self.items[items]

    def append(self, vectors: Floats) -> None:
        rounded = _round(vectors, self.scale)
        self.error = max(self.error, float(_lengths(vectors - rounded * self.scale).max()))
        self.length = max(self.length, float(_lengths(rounded).max()) * self.scale, float(_lengths(vectors).max()))
        self.items = torch.cat([self.items, torch.from_numpy(rounded)])


class FloatProducts:
    """Products in float32 on any device, off by the rounding of d additions in any order at most.

    Raises RuntimeError where the process lets torch round float32 products to a shorter format.
    """

    def __init__(self, vectors: Floats, device: torch.device) -> None:
        self.device = device
        self.length = 0.0
        self.items = torch.empty((0, vectors.shape[1]), device=device)
        self.append(vectors)

    def of(self, queries: Floats) -> tuple[Block, torch.Tensor]:
        if torch.get_float32_matmul_precision() != "highest":
            raise RuntimeError("exact search needs torch.set_float32_matmul_precision('highest'), torch's default")
        right = torch.from_numpy(queries).to(self.device).t().contiguous()
        error = (queries.shape[1] + 4) * FLOAT32_ROUNDING * _lengths(queries) * self.length
        window = torch.from_numpy(2.01 * error).to(self.device, torch.float32)
        return lambda first, last: torch.mm(self.items[first:last], right), window

    def keep(self, items: torch.Tensor) -> None:
        self.items = self.items[items.to(self.device)]

    def append(self, vectors: Floats) -> None:
        self.length = max(self.length, float(_lengths(vectors).max()))
        self.items = torch.cat([self.items, torch.from_numpy(vectors).to(self.device)])


def products(vectors: Floats, device: torch.device) -> Products:
    """The fastest on `device` that still yields exact results: 8 bits where the processor multiplies them natively."""
    if device.type == "cpu" and torch.cpu._is_vnni_supported():
        return Int8Products(vectors)
    return FloatProducts(vectors, device)


def _round(vectors: Floats, scale: float | NDArray[np.float64]) -> NDArray[np.int8]:
    return np.clip(np.rint(vectors / scale), -INT8_MAX, INT8_MAX).astype(np.int8)


def _lengths(vectors: NDArray[Any]) -> NDArray[np.float64]:
    return np.linalg.norm(vectors.astype(np.float64), axis=1)
