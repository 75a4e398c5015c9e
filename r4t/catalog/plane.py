"""The plane on which a catalogue is drawn: its two directions of largest variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from r4t.types import Floats


@dataclass(frozen=True, slots=True)
class Plane:
    """Principal components, fitted once and applied to anything of the same space."""

    mean: Floats
    """[d]"""
    axes: Floats
    """[2, d] orthonormal; each axis's largest entry is positive, so that the picture is always the same."""
    shares: Floats
    """[2] of the variance."""

    def project(self, vectors: Floats) -> Floats:
        """[..., d] -> coordinates [..., 2]."""
        return np.asarray((vectors - self.mean) @ self.axes.T, dtype=np.float32)


def fit_plane(vectors: Floats) -> Plane:
    """The plane of [n, d] vectors, d at least 2."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    variances, directions = np.linalg.eigh(centred.T @ centred)
    axes = directions[:, :-3:-1].T
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
    shares = np.clip(variances[:-3:-1], 0, None) / max(float(variances.sum()), 1e-12)
    return Plane(mean.astype(np.float32), (axes * signs[:, None]).astype(np.float32), shares.astype(np.float32))
