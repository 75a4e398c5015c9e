import itertools

import pytest
import torch
from diffusion_fixtures import random_denoiser
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.diffusion.ema import EMA
from r4t.diffusion.loss import (
    denoising_loss,
    denoising_loss_in_data_space,
    drop_condition,
    matched_denoising_loss,
    network_target,
)
from r4t.diffusion.precondition import loss_weight


@settings(max_examples=30)
@given(st.floats(1e-4, 80.0), st.integers(0, 1000))
def test_c38_both_forms_of_eq_9_agree(sigma: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    denoiser = random_denoiser().double()
    sets = 0.35 * torch.randn(5, 4, 8, generator=generator, dtype=torch.float64)
    noise = torch.randn(5, 4, 8, generator=generator, dtype=torch.float64)
    queries = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    levels = torch.full((5,), sigma, dtype=torch.float64)
    data = denoising_loss_in_data_space(denoiser, sets, queries, levels, noise)
    network = denoising_loss(denoiser, denoiser.config.sigma_data, sets, queries, levels, noise)
    assert torch.allclose(data, network.double(), rtol=1e-4)


def test_c38_network_target_is_stable_at_tiny_noise_in_float32():
    generator = torch.Generator().manual_seed(0)
    sets = 0.088 * torch.randn(2, 4, 8, generator=generator)
    noise = torch.randn(2, 4, 8, generator=generator)
    sigma = torch.full((2, 1, 1), 1e-4)
    exact = network_target(sets.double(), noise.double(), sigma.double(), 0.088)
    assert torch.allclose(network_target(sets, noise, sigma, 0.088).double(), exact, rtol=1e-5, atol=1e-6)
    assert torch.allclose(exact, -noise.double(), atol=0.01)  # at vanishing σ the network is asked for -ε


def test_c42_condition_is_dropped_to_zero_at_the_given_rate():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(20_000, 6, generator=generator)
    dropped = drop_condition(queries, 0.1, generator)
    null = (dropped == 0).all(dim=1)
    assert null.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(dropped[~null], queries[~null])
    assert torch.equal(drop_condition(queries, 0.0, generator), queries)
    one, two = (drop_condition(queries, 0.5, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)


def test_matched_loss_is_that_of_the_rows_in_the_order_nearest_to_the_denoised_ones():
    generator = torch.Generator().manual_seed(0)
    denoiser = random_denoiser().double()
    sets = 0.35 * torch.randn(5, 4, 8, generator=generator, dtype=torch.float64)
    noise = torch.randn(5, 4, 8, generator=generator, dtype=torch.float64)
    queries = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    for level in (0.1, 1.0, 5.0):
        sigma = torch.full((5,), level, dtype=torch.float64)
        clean = denoiser.denoise(sets + level * noise, sigma, queries)
        orders = [sets[:, list(order)] for order in itertools.permutations(range(4))]
        least = torch.stack([(clean - one).square().mean(dim=(1, 2)) for one in orders]).min(dim=0).values
        expected = loss_weight(sigma, 0.35) * least
        found = matched_denoising_loss(denoiser, 0.35, sets, queries, sigma, noise)
        assert torch.allclose(found.double(), expected, rtol=1e-3)


def test_c44_ema_is_the_bias_corrected_average():
    model = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(model, 0.9)
    values = [1.0, 3.0, -2.0]
    for value in values:
        ema.update([torch.tensor([[value]])])
    weights = [0.9**2, 0.9, 1.0]
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert ema.averages()["weight"].item() == pytest.approx(expected)

    restored = EMA(model, 0.9)
    restored.load_state_dict(ema.state_dict(), ema.updates)
    for average in (ema, restored):
        average.update([torch.tensor([[5.0]])])
    assert torch.equal(restored.averages()["weight"], ema.averages()["weight"])
