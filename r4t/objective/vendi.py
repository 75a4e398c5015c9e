"""Vendi Scores of many sets at once: the effective number of different rows (Friedman & Dieng; paper Eq. 2)."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from r4t.types import Floats

VendiNorm = Literal["by_k", "minus1_over_kminus1", "raw"]
VendiKernel = Literal["cosine", "gaussian"]
Kernel = NDArray[np.float64]
SHARED_FROM = 128
"""Sets below which handing them to threads costs more than it gains."""


def vendi(x: Floats, order: float = 1.0, kernel: VendiKernel = "cosine") -> Floats:
    """Vendi Score [...] of rows `x` [..., k, d] of unit length, in [1, k].

    With the eigenvalues l of K / k: `exp(-sum l ln l)` at order 1, `(sum l^q) ^ (1 / (1 - q))` at order q, `1 / max l`
    at infinity. `gaussian` is `exp(-|x - y|^2)`, never negative.
    """
    return shared(lambda part: of_kernel(similarity(part, kernel), order), x)


def vendi_without(x: Floats, order: float = 1.0, kernel: VendiKernel = "cosine") -> Floats:
    """[..., k]: Vendi Score of the k-1 other rows, for each row of `x` [..., k, d]. Needs k >= 2."""
    k = x.shape[-2]
    if k < 2:
        raise ValueError("leave-one-out diversity needs at least two rows")
    others = np.stack([np.delete(np.arange(k), i) for i in range(k)])  # [k, k-1]

    def score(part: Floats) -> Floats:
        whole = similarity(part, kernel)
        return of_kernel(whole[..., others[:, :, None], others[:, None, :]], order)

    return shared(score, x)


def normalise_vendi(score: Floats, k: int, how: VendiNorm) -> Floats:
    """Rescales a Vendi Score of k rows: `by_k` to (0, 1], `minus1_over_kminus1` to [0, 1], `raw` leaves [1, k]."""
    if how == "by_k":
        return np.asarray(score / k, dtype=np.float32)
    if how == "minus1_over_kminus1":
        return np.asarray((score - 1.0) / max(k - 1, 1), dtype=np.float32)
    return score


def similarity(x: Floats, kernel: VendiKernel) -> Kernel:
    """[..., k, k] similarities of unit rows, 1 with themselves, in float64."""
    wide = np.asarray(x, dtype=np.float64)
    cosine = np.matmul(wide, np.swapaxes(wide, -1, -2))
    return cosine if kernel == "cosine" else np.exp(2.0 * np.minimum(cosine, 1.0) - 2.0)


def of_kernel(kernel: NDArray[Any], order: float) -> Floats:
    """Vendi Score [...] of a similarity matrix [..., k, k]."""
    values = np.clip(np.linalg.eigvalsh(kernel / kernel.shape[-1]), 0.0, None)
    if order == 1.0:
        score = np.exp(-np.sum(values * np.log(np.where(values > 1e-12, values, 1.0)), axis=-1))
    elif np.isinf(order):
        score = 1.0 / values.max(axis=-1)
    else:
        score = np.sum(np.where(values > 1e-12, values, 0.0) ** order, axis=-1) ** (1.0 / (1.0 - order))
    return np.asarray(score, dtype=np.float32)


def shared(work: Callable[[Floats], Floats], x: Floats) -> Floats:
    """`work` on sets [..., k, d] of any number, whose results start with the same axes.

    BLAS and LAPACK take one small matrix after another, and NumPy lets go of the interpreter's lock meanwhile: every
    one of torch's threads gets a share of the sets.
    """
    sets = x.shape[:-2]
    if np.prod(sets) < SHARED_FROM or (threads := _threads()) < 2:
        return work(x)
    parts = list(_workers(threads).map(work, np.array_split(x.reshape(-1, *x.shape[-2:]), threads)))
    return np.concatenate(parts).reshape(*sets, *parts[0].shape[1:])


def _threads() -> int:
    import torch  # a server of few sets at a time needs none

    return torch.get_num_threads()


@lru_cache(maxsize=1)
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="vendi")


os.register_at_fork(after_in_child=_workers.cache_clear)  # a child has none of its parent's threads
