"""Noise levels: the tangent schedule (time to σ), the sampler's grid, and the laws σ is drawn from in training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TangentSchedule:
    """σ(t) for t in [0, 1], a stretch of the tangent rescaled to σ(0) = 0 and σ(1) = `sigma_max` (Table 3, "tangent").

    Only the time discretisation of the reverse SDE depends on it; the forward process is variance exploding either way.
    """

    sigma_max: float
    start: float = -1.5
    end: float = 1.5

    def sigma(self, t: Tensor) -> Tensor:
        low, high = math.tan(self.start), math.tan(self.end)
        return self.sigma_max * (torch.tan(self.start + (self.end - self.start) * t) - low) / (high - low)

    def time(self, sigma: Tensor) -> Tensor:
        low, high = math.tan(self.start), math.tan(self.end)
        return (torch.atan(low + sigma / self.sigma_max * (high - low)) - self.start) / (self.end - self.start)

    def derivative(self, t: Tensor) -> Tensor:
        """dσ/dt."""
        low, high = math.tan(self.start), math.tan(self.end)
        cosine = torch.cos(self.start + (self.end - self.start) * t)
        return self.sigma_max * (self.end - self.start) / (cosine**2 * (high - low))


def sigma_grid(points: int, sigma_max: float, sigma_end: float, rho: float = 7.0) -> Tensor:
    """Decreasing noise levels `[points]` (float64) from `sigma_max` to `sigma_end`, evenly spaced in σ^(1/ρ).

    A single point is `sigma_max` alone: the sampler then denoises pure noise in one call.
    """
    if points == 1:
        return torch.tensor([sigma_max], dtype=torch.float64)
    i = torch.arange(points, dtype=torch.float64) / (points - 1)
    return (sigma_max ** (1 / rho) + i * (sigma_end ** (1 / rho) - sigma_max ** (1 / rho))) ** rho


def log_uniform(batch: int, sigma_min: float, sigma_max: float, generator: torch.Generator) -> Tensor:
    """`[batch]` noise levels, log-uniform on [sigma_min, sigma_max], stratified: a uniform grid at a random offset."""
    low, high = math.log(sigma_min), math.log(sigma_max)
    return torch.exp(low + (high - low) * _stratified(batch, generator))


def log_normal(
    batch: int, mean: float, std: float, sigma_min: float, sigma_max: float, generator: torch.Generator
) -> Tensor:
    """`[batch]` noise levels with ln σ ~ N(mean, std²), stratified and clipped to [sigma_min, sigma_max]."""
    eps = torch.finfo(torch.float32).eps
    quantiles = _stratified(batch, generator).clamp(eps, 1 - eps)
    return torch.exp(mean + std * torch.special.ndtri(quantiles)).clamp(sigma_min, sigma_max)


def _stratified(batch: int, generator: torch.Generator) -> Tensor:
    offset = torch.rand((), generator=generator)
    grid = (torch.arange(batch) / batch + offset) % 1
    return grid[torch.randperm(batch, generator=generator)]
