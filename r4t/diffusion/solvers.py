"""Solvers that carry pure noise to a clean set (paper section 2.5), as functions of the denoiser alone.

Each takes `denoise(x, i)`, the denoiser at grid point i, an initial x = σ_0·ε and the grid σ_0 > ... > σ_{N-1}, and
ends with a denoising call at the last grid point. All but Heun call the denoiser N times; Heun calls it 2N - 1 times.
The ordinary differential equations leave `generator` unused: only their start is random. The exponential solvers
integrate the linear part of the reverse SDE exactly, so that no schedule enters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from r4t.diffusion.schedule import TangentSchedule

Denoise = Callable[[Tensor, int], Tensor]


class Solver(Protocol):
    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Tensor: ...


def euler_maruyama(denoise: Denoise, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Tensor:
    """Reverse SDE, discretised in the time of the tangent schedule: the paper's sampler with N = 256."""
    schedule = TangentSchedule(float(sigmas[0]))
    times = schedule.time(sigmas)
    rates = schedule.derivative(times)
    for i in range(len(sigmas) - 1):
        sigma, rate, dt = float(sigmas[i]), float(rates[i]), float(times[i + 1] - times[i])
        drift = 2 * rate / sigma * (x - denoise(x, i))
        x = x + dt * drift + math.sqrt(2 * rate * sigma * abs(dt)) * gaussian(x, generator)
    return denoise(x, len(sigmas) - 1)


def ode_euler(denoise: Denoise, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Probability-flow ODE dx/dσ = (x - D)/σ, first order."""
    for i in range(len(sigmas) - 1):
        ratio = float(sigmas[i + 1] / sigmas[i])
        x = torch.lerp(denoise(x, i), x, ratio)
    return denoise(x, len(sigmas) - 1)


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Probability-flow ODE, second order: every step is corrected with the slope at its end."""
    for i in range(len(sigmas) - 1):
        here, there = float(sigmas[i]), float(sigmas[i + 1])
        slope = (x - denoise(x, i)) / here
        guess = x + (there - here) * slope
        x = x + (there - here) / 2 * (slope + (guess - denoise(guess, i + 1)) / there)
    return denoise(x, len(sigmas) - 1)


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """DPM-Solver++(2M): second order in ln σ at one call a step, by extrapolating from the previous call."""
    steps = (sigmas[:-1] / sigmas[1:]).log().tolist()
    previous: Tensor | None = None
    for i, step in enumerate(steps):
        current = denoise(x, i)
        ahead = current
        if previous is not None:
            ahead = current + (current - previous) * (step / (2 * steps[i - 1]))
        x = torch.lerp(ahead, x, math.exp(-step))
        previous = current
    return denoise(x, len(sigmas) - 1)


def exponential_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Tensor:
    """Reverse SDE, first order: exact where D is constant over a step (paper sheet section 5.8)."""
    return _exponential(denoise, x, sigmas, generator, order=1)


def sde_dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Tensor:
    """SDE-DPM-Solver++(2M): the same with D extrapolated to the middle of a step from the previous call."""
    return _exponential(denoise, x, sigmas, generator, order=2)


def consistency(denoise: Denoise, x: Tensor, sigmas: Tensor, generator: torch.Generator) -> Tensor:
    """For a distilled student, whose every call lands on a clean set: noise that set again and call once more."""
    clean = denoise(x, 0)
    for i in range(1, len(sigmas)):
        clean = denoise(clean + float(sigmas[i]) * gaussian(x, generator), i)
    return clean


def _exponential(denoise: Denoise, x: Tensor, sigmas: Tensor, generator: torch.Generator, order: int) -> Tensor:
    steps = (sigmas[:-1] / sigmas[1:]).log().tolist()
    previous: Tensor | None = None
    for i, step in enumerate(steps):
        current = denoise(x, i)
        ahead = current
        if order == 2 and previous is not None:
            ahead = current + (current - previous) * (step / (2 * steps[i - 1]))
        kept = math.exp(-2 * step)  # (σ_{i+1} / σ_i)²
        x = torch.lerp(ahead, x, kept) + float(sigmas[i + 1]) * math.sqrt(1 - kept) * gaussian(x, generator)
        previous = current
    return denoise(x, len(sigmas) - 1)


def gaussian(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise in the shape and on the device of `like`, drawn where the generator lives."""
    noise = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device)


SOLVERS: dict[str, Solver] = {
    "euler_maruyama": euler_maruyama,
    "ode_euler": ode_euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "exponential_sde": exponential_sde,
    "sde_dpmpp_2m": sde_dpmpp_2m,
    "consistency": consistency,
}
