"""Random sets over random items, for the tests of the objective."""

from __future__ import annotations

import numpy as np

from r4t.objective.inputs import SetInputs
from r4t.types import Floats


def unit(rng: np.random.Generator, *shape: int) -> Floats:
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def inputs(
    rng: np.random.Generator, batch: int = 3, k: int = 4, n: int = 2, items: int = 30, d: int = 8, wanted: int = 5
) -> SetInputs:
    """Sets that an exact search found, each with `wanted` reference items."""
    vectors, directions = unit(rng, items, d), unit(rng, batch, k, d)
    cosine = directions @ vectors.T
    order = np.argsort(-cosine, axis=-1)[:, :, :n]
    return SetInputs(
        query=unit(rng, batch, d),
        directions=directions,
        items=order,
        top_cosine=np.take_along_axis(cosine, order, axis=-1)[:, :, 0],
        item_vectors=vectors,
        references=[rng.choice(items, size=wanted, replace=False).tolist() for _ in range(batch)],
    )
