"""Solvers against an exact denoiser: for Gaussian data of standard deviation s, D(x; σ) = s²·x / (s² + σ²)."""

import pytest
import torch
from torch import Tensor

from r4t.diffusion import solvers
from r4t.diffusion.schedule import sigma_grid
from r4t.diffusion.solvers import (
    SOLVERS,
    dpmpp_2m,
    euler_maruyama,
    exponential_sde,
    gaussian,
    heun,
    ode_euler,
    sde_dpmpp_2m,
)

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


@pytest.fixture
def exact_std(monkeypatch: pytest.MonkeyPatch):
    """Standard deviation of a solver's result without sampling: the oracle is linear, so the result is a sum of the
    start and every step's noise, and the solver is run on the vector of their coefficients."""

    def of(name: str, points: int, sigma_max: float) -> float:
        sigmas = sigma_grid(points, sigma_max, 1e-3)
        fresh = iter(torch.eye(points, dtype=torch.float64)[1:])
        start = float(sigmas[0]) * torch.eye(points, dtype=torch.float64)[0]
        with monkeypatch.context() as patch:
            patch.setattr(solvers, "gaussian", lambda *_: next(fresh))
            return float(SOLVERS[name](Oracle(sigmas), start, sigmas, torch.Generator()).norm())

    return of


@pytest.mark.parametrize(("points", "low", "high"), [(256, 0.085, 0.0865), (128, 0.0825, 0.085), (32, 0.069, 0.0765)])
def test_c46_exponential_sde_is_biased_low_as_the_paper_sheet_computes(exact_std, points: int, low: float, high: float):
    for sigma_max in (80.0, 7.04):
        assert low <= exact_std("exponential_sde", points, sigma_max) <= high


def test_c46_exact_and_sampled_deviation_agree(exact_std):
    for name in ("euler_maruyama", "sde_dpmpp_2m"):
        sampled, _ = solve(name, 64, 7.04, samples=100_000)
        assert exact_std(name, 64, 7.04) == pytest.approx(sampled.std().item(), rel=0.01)


@pytest.mark.parametrize(
    ("name", "order"), [("exponential_sde", 1), ("sde_dpmpp_2m", 2), ("ode_euler", 1), ("dpmpp_2m", 2)]
)
def test_c47_error_falls_with_the_solvers_order(exact_std, name: str, order: int):
    """Four times the points: a quarter of the error at first order, a sixteenth at second. Against the exact solution
    of either equation from σ_0·ε down to the last point, and the denoising call there."""
    top, last = 7.04, STD**2 + 1e-3**2
    start = STD**2 + top**2
    variance = last - (last / start) ** 2 * STD**2 if "sde" in name else last / start * top**2
    truth = variance**0.5 * STD**2 / last
    coarse, fine = (abs(exact_std(name, points, top) / truth - 1) for points in (64, 256))
    assert coarse / fine == pytest.approx(4**order, rel=0.25)


def test_c47_second_order_sde_is_within_2_percent_at_64_points(exact_std):
    for sigma_max in (80.0, 7.04):
        assert exact_std("sde_dpmpp_2m", 64, sigma_max) == pytest.approx(STD, rel=0.02)
        assert exact_std("exponential_sde", 64, sigma_max) < 0.95 * STD


def test_ode_solvers_use_no_noise_and_the_sde_does():
    sigmas = sigma_grid(8, 7.0, 1e-3)
    start = 7 * torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    random = (euler_maruyama, exponential_sde, sde_dpmpp_2m)
    for solver, deterministic in [(s, True) for s in (ode_euler, heun, dpmpp_2m)] + [(s, False) for s in random]:
        one, two = (solver(Oracle(sigmas), start, sigmas, torch.Generator().manual_seed(s)) for s in (1, 2))
        assert torch.equal(one, two) is deterministic


@pytest.mark.parametrize("name", SOLVERS)
def test_every_call_is_at_its_grid_point_and_the_last_one_is_the_answer(name: str):
    sigmas = sigma_grid(4, 7.0, 1e-3)
    seen: list[int] = []

    def denoise(x: Tensor, i: int) -> Tensor:
        seen.append(i)
        return torch.full_like(x, float(len(seen)))

    result = SOLVERS[name](denoise, torch.ones(3, dtype=torch.float64), sigmas, torch.Generator().manual_seed(0))
    assert seen == ([0, 1, 1, 2, 2, 3, 3] if name == "heun" else [0, 1, 2, 3])
    assert result.tolist() == [float(len(seen))] * 3


def test_noise_has_the_type_of_the_rows():
    for dtype in (torch.float32, torch.float64):
        assert gaussian(torch.ones(2, 3, dtype=dtype), torch.Generator()).dtype is dtype


def test_one_point_is_one_denoising_call():
    sigmas = sigma_grid(1, 7.0, 1e-3)
    x = torch.ones(3, dtype=torch.float64)
    for solver in SOLVERS.values():
        oracle = Oracle(sigmas)
        assert torch.equal(solver(oracle, x, sigmas, torch.Generator()), oracle(x, 0))
        assert oracle.calls == 2


def test_consistency_noises_every_clean_set_to_the_next_level():
    """With a student that always lands on the same set, the calls see it plus noise of the grid's levels."""
    sigmas = torch.tensor([7.0, 0.5, 0.1], dtype=torch.float64)
    seen: list[Tensor] = []

    def student(x: Tensor, i: int) -> Tensor:
        assert i == len(seen)
        seen.append(x)
        return torch.full_like(x, 3.0)

    x = 7 * torch.randn(50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = SOLVERS["consistency"](student, x, sigmas, torch.Generator().manual_seed(1))
    assert torch.equal(result, torch.full_like(x, 3.0))
    assert torch.equal(seen[0], x)
    for level, noisy in zip((0.5, 0.1), seen[1:], strict=True):
        assert noisy.mean().item() == pytest.approx(3.0, abs=0.02)
        assert noisy.std().item() == pytest.approx(level, rel=0.02)
