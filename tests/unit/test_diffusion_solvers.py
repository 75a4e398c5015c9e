"""Solvers against an exact denoiser: for Gaussian data of standard deviation s, D(x; σ) = s²·x / (s² + σ²)."""

import pytest
import torch
from torch import Tensor

from r4t.diffusion.schedule import sigma_grid
from r4t.diffusion.solvers import SOLVERS, dpmpp_2m, euler_maruyama, heun, ode_euler

STD = 0.088


class Oracle:
    """Counts its calls."""

    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas, self.calls = sigmas, 0

    def __call__(self, x: Tensor, i: int) -> Tensor:
        self.calls += 1
        return x * (STD**2 / (STD**2 + float(self.sigmas[i]) ** 2))


def solve(name: str, points: int, sigma_max: float, samples: int = 40_000) -> tuple[Tensor, int]:
    generator = torch.Generator().manual_seed(0)
    sigmas = sigma_grid(points, sigma_max, 1e-3)
    oracle = Oracle(sigmas)
    start = float(sigmas[0]) * torch.randn(samples, generator=generator, dtype=torch.float64)
    return SOLVERS[name](oracle, start, sigmas, generator), oracle.calls


@pytest.mark.parametrize("sigma_max", [80.0, 7.04])
def test_c46_euler_maruyama_recovers_the_gaussian_within_2_percent_at_256_points(sigma_max: float):
    result, calls = solve("euler_maruyama", 256, sigma_max)
    assert result.std().item() == pytest.approx(STD, rel=0.02)
    assert abs(result.mean().item()) < 0.001
    assert calls == 256


@pytest.mark.parametrize(("points", "low", "high"), [(128, 0.0890, 0.0910), (64, 0.0905, 0.0935), (32, 0.0935, 0.0995)])
def test_c46_euler_maruyama_over_disperses_as_the_paper_sheet_computes(points: int, low: float, high: float):
    for sigma_max in (80.0, 7.04):
        result, _ = solve("euler_maruyama", points, sigma_max)
        assert low < result.std().item() < high


@pytest.mark.parametrize(("name", "points"), [("heun", 32), ("dpmpp_2m", 32), ("ode_euler", 400)])
def test_c47_ode_solvers_recover_the_gaussian(name: str, points: int):
    result, calls = solve(name, points, 7.04)
    assert result.std().item() == pytest.approx(STD, rel=0.02)
    assert calls == (2 * points - 1 if name == "heun" else points)


def test_c47_higher_order_needs_fewer_calls():
    errors = {}
    for name, points in (("ode_euler", 16), ("dpmpp_2m", 16), ("heun", 16)):
        result, _ = solve(name, points, 7.04)
        errors[name] = abs(result.std().item() - STD)
    assert errors["dpmpp_2m"] < errors["ode_euler"] / 2
    assert errors["heun"] < errors["ode_euler"] / 2


def test_ode_solvers_use_no_noise_and_the_sde_does():
    sigmas = sigma_grid(8, 7.0, 1e-3)
    start = 7 * torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for solver, deterministic in ((ode_euler, True), (heun, True), (dpmpp_2m, True), (euler_maruyama, False)):
        one, two = (solver(Oracle(sigmas), start, sigmas, torch.Generator().manual_seed(s)) for s in (1, 2))
        assert torch.equal(one, two) is deterministic


def test_one_point_is_one_denoising_call():
    sigmas = sigma_grid(1, 7.0, 1e-3)
    x = torch.ones(3, dtype=torch.float64)
    for solver in SOLVERS.values():
        oracle = Oracle(sigmas)
        assert torch.equal(solver(oracle, x, sigmas, torch.Generator()), oracle(x, 0))
        assert oracle.calls == 2
