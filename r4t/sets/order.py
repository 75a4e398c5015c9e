"""Random orders computed place by place: an epoch's order and a set's row order cost no memory and no set-up.

Every function is vectorised, and a value depends on its own arguments alone, never on its neighbours in the call. So
the order is the same for every batch size, every number of ranks and after every resume.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from r4t.types import Ints

Words = NDArray[np.uint64]

ROUNDS, ROUNDS_OF_FEW = 6, 16
_FEW = 64  # to a smaller base, six rounds leave a bias that a count over many epochs shows
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_EPOCH, _ROWS = np.uint64(0xD1B54A32D192ED03), np.uint64(0x8CB92BA72F3D8DD7)
_MOST = 1 << 62


def epoch_order(places: Ints, n: int, seed: int, epochs: Ints) -> Ints:
    """[B] which of n elements stands at each place, 0 <= place < n, of its epoch [B] in that epoch's random order.

    Of one epoch, the n places hold every element once. The order is a Feistel network over pairs of digits to the
    base ceil(sqrt(n)), keyed by the seed and the epoch; what falls outside of 0 ... n - 1 walks on along its cycle
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"), which is rare as the domain is little larger.
    """
    if not 0 < n < _MOST:
        raise ValueError(f"an order needs 1 to 2**62 elements, not {n}")
    base = math.isqrt(n - 1) + 1
    keys = _key(seed, epochs, _EPOCH)
    order = _network(places.astype(np.uint64), base, keys)
    while (outside := np.flatnonzero(order >= n)).size:
        order[outside] = _network(order[outside], base, keys[outside])
    return order.astype(np.int64)


def row_order(elements: Ints, width: int, seed: int, epochs: Ints) -> Ints:
    """[B, width] a random order of 0 ... width - 1 for each element [B] in its epoch [B]."""
    bits = np.uint64(max((width - 1).bit_length(), 1))
    columns = np.arange(width, dtype=np.uint64)
    own = _mixed(_key(seed, epochs, _ROWS) + elements.astype(np.uint64))
    numbers = _mixed(own[:, None] + (columns + np.uint64(1)) * _GOLDEN)
    # The low bits of each random number are its column, so that sorting the numbers sorts the columns with them.
    tagged = np.sort(((numbers >> bits) << bits) | columns, axis=1)
    return (tagged & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def _network(values: Words, base: int, keys: Words) -> Words:
    side = np.uint64(base)
    left, right = values // side, values % side
    for turn in range(ROUNDS if base >= _FEW else ROUNDS_OF_FEW):
        digit = ((_mixed(keys + right * _GOLDEN + np.uint64(turn)) >> np.uint64(32)) * side) >> np.uint64(32)
        moved = left + digit
        left, right = right, np.where(moved >= side, moved - side, moved)
    return np.asarray(left * side + right, dtype=np.uint64)


def _key(seed: int, epochs: Ints, purpose: np.uint64) -> Words:
    start = np.full(1, seed & (2**64 - 1), dtype=np.uint64) ^ purpose
    return _mixed(_mixed(start) + epochs.astype(np.uint64) * _GOLDEN)


def _mixed(words: Words) -> Words:
    """The finaliser of SplitMix64: a bijection of 64-bit words whose output looks random."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)), dtype=np.uint64)
