import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from r4t.diffusion.schedule import TangentSchedule, log_normal, log_uniform, sigma_grid


@given(st.floats(0.5, 100), st.sampled_from([-1.5, 0.0]))
def test_c41_tangent_schedule_round_trip(sigma_max: float, start: float):
    schedule = TangentSchedule(sigma_max, start=start)
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert torch.allclose(schedule.time(schedule.sigma(t)), t, atol=1e-5)
    assert schedule.sigma(t)[0].item() == pytest.approx(0, abs=1e-9)
    assert schedule.sigma(t)[-1].item() == pytest.approx(sigma_max)
    assert (schedule.sigma(t).diff() > 0).all()


def test_c41_tangent_schedule_derivative_is_the_finite_difference():
    schedule = TangentSchedule(80.0)
    t, step = torch.linspace(0.01, 0.99, 99, dtype=torch.float64), 1e-6
    numeric = (schedule.sigma(t + step) - schedule.sigma(t - step)) / (2 * step)
    assert torch.allclose(schedule.derivative(t), numeric, rtol=1e-6)


def test_c41_tangent_schedule_formula_of_the_paper():
    """At a=0, b=1.5: σ(t) = σ_max·tan(1.5 t) / tan 1.5."""
    schedule = TangentSchedule(80.0, start=0.0)
    assert schedule.sigma(torch.tensor(0.5)).item() == pytest.approx(80 * math.tan(0.75) / math.tan(1.5), rel=1e-5)


def test_c46_grid_is_the_rho_7_grid_of_256_points():
    grid = sigma_grid(256, 80.0, 1e-3)
    assert len(grid) == 256
    assert grid[0].item() == pytest.approx(80.0)
    assert grid[-1].item() == pytest.approx(1e-3)
    i = 100
    expected = (80 ** (1 / 7) + i / 255 * (1e-3 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert grid[i].item() == pytest.approx(expected)
    assert (grid.diff() < 0).all()
    assert sigma_grid(1, 7.0, 1e-3).tolist() == [7.0]


def test_c40_log_uniform_law_is_stratified():
    """The paper's range: one draw in each of the B equal parts of [ln 1e-4, ln 80], in random order."""
    generator = torch.Generator().manual_seed(3)
    batch = 512
    sigma = log_uniform(batch, 1e-4, 80.0, generator)
    position = (sigma.double().log() - math.log(1e-4)) / (math.log(80) - math.log(1e-4))
    counts = torch.histc(position, bins=batch // 4, min=0, max=1)
    assert counts.min() >= 3
    assert counts.max() <= 5
    assert position.min() >= 0
    assert position.max() <= 1
    assert not torch.equal(sigma, sigma.sort().values)
    assert not torch.equal(sigma, log_uniform(batch, 1e-4, 80.0, generator))


def test_c40_log_uniform_is_uniform_over_many_small_batches():
    generator = torch.Generator().manual_seed(0)
    sigma = torch.cat([log_uniform(3, 1e-4, 80.0, generator) for _ in range(4000)])
    counts = torch.histc(sigma.log(), bins=10, min=math.log(1e-4), max=math.log(80))
    assert (counts / counts.sum() - 0.1).abs().max() < 0.01


def test_log_normal_law_has_its_moments_and_range():
    generator = torch.Generator().manual_seed(0)
    sigma = log_normal(20_000, -2.9, 1.2, 1e-4, 7.0, generator)
    assert sigma.log().mean().item() == pytest.approx(-2.9, abs=0.02)
    assert sigma.log().std().item() == pytest.approx(1.2, abs=0.02)
    wide = log_normal(1000, 0.0, 5.0, 1e-2, 1.0, generator)
    assert wide.min() >= 0.0099
    assert wide.max() <= 1.0001


@pytest.mark.parametrize("law", [partial(log_uniform, 16, 1e-4, 80.0), partial(log_normal, 16, -2.9, 1.2, 1e-4, 80.0)])
def test_levels_are_drawn_from_the_given_generator_alone(law: Callable[[torch.Generator], Tensor]):
    one = law(torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    torch.rand(7)
    assert torch.equal(law(torch.Generator().manual_seed(5)), one)
    assert not torch.equal(law(torch.Generator().manual_seed(6)), one)


def test_no_quantile_is_infinite():
    """A grid that starts at 0 gives the least level, not the exponential of minus infinity's neighbour, NaN."""
    levels = torch.cat([log_normal(1, 0.0, 1.0, 1e-2, 10.0, torch.Generator().manual_seed(s)) for s in range(200)])
    assert torch.isfinite(levels).all()
