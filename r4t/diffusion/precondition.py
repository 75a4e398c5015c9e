"""EDM preconditioning (paper section 2.5, "Loss weighting"): `D(x; σ, z) = c_skip·x + c_out·F(c_in·x, c_noise, z)`.

All coefficients are elementwise functions of the noise level σ, in the shape of `sigma`.
"""

from __future__ import annotations

import math

from torch import Tensor


def c_skip(sigma: Tensor, sigma_data: float) -> Tensor:
    return sigma_data**2 / (sigma**2 + sigma_data**2)


def c_out(sigma: Tensor, sigma_data: float) -> Tensor:
    return sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()


def c_in(sigma: Tensor, sigma_data: float) -> Tensor:
    return 1 / (sigma**2 + sigma_data**2).sqrt()


def c_noise(sigma: Tensor) -> Tensor:
    return sigma.log() / 4


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """λ(σ) of Eq. 9. Equals 1 / c_out², so that the network F is regressed with unit weight at every σ."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def expected_sigma_data(dim: int) -> float:
    """Root mean square coordinate of unit vectors of width `dim` (0.088 at 128, Table 3)."""
    return 1 / math.sqrt(dim)
