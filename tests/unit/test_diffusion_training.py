"""Validation by noise band, and the two ways of putting rows in order in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusion_fixtures import random_denoiser, small_targets

from r4t.config import Retriever
from r4t.diffusion.loss import denoising_loss, matched_denoising_loss
from r4t.diffusion.matching import match_rows
from r4t.diffusion.training import BANDS, first_rows, noisy_batch, validation_losses
from r4t.errors import UserError


def test_validation_loss_is_the_mean_of_its_bands_and_repeats_itself() -> None:
    denoiser, held_out = random_denoiser(), small_targets()
    found = validation_losses(denoiser, held_out, seed=3)
    bands = [value for name, value in found.items() if "/" in name]
    assert len(bands) == BANDS
    assert found["held_out_loss"] == pytest.approx(np.mean(bands), rel=1e-5)  # 12 sets, three in each band
    assert validation_losses(denoiser, held_out, seed=3) == found
    assert validation_losses(denoiser, held_out, seed=4) != found
    edges = [name.split("/")[1].split("-")[0] for name in found if "/" in name]
    assert edges[0] == "0.001"


def test_bands_hold_the_losses_of_their_levels() -> None:
    """Scaling the output of the last layer up at tiny noise only is seen in the lowest band alone."""
    denoiser, held_out = random_denoiser(), small_targets()
    before = validation_losses(denoiser, held_out, seed=0)
    forward = denoiser.forward

    def disturbed(scaled: torch.Tensor, sigma: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return forward(scaled, sigma, queries) + 9 * (sigma < 0.008)[:, None, None]

    denoiser.forward = disturbed  # type: ignore[method-assign]
    after = validation_losses(denoiser, held_out, seed=0)
    changed = [name for name in before if "/" in name and before[name] != after[name]]
    assert changed == [next(name for name in before if "/" in name)]


def test_matched_loss_is_the_least_over_orders_and_ignores_them_under_heavy_noise() -> None:
    denoiser = random_denoiser()
    generator = torch.Generator().manual_seed(0)
    sets = torch.nn.functional.normalize(torch.randn(6, 4, 8, generator=generator), dim=-1)
    noise, queries = torch.randn(6, 4, 8, generator=generator), torch.randn(6, 8, generator=generator)
    for level in (1e-3, 0.3, 5.0):
        sigma = torch.full((6,), level)
        arguments = (denoiser, denoiser.config.sigma_data, sets, queries, sigma, noise)
        plain, matched = denoising_loss(*arguments), matched_denoising_loss(*arguments)
        assert (matched <= plain * (1 + 1e-4)).all()
        if level == 1e-3:
            assert torch.allclose(matched, plain)  # the rows still say which is which
    assert (matched < plain * 0.999).any()


def test_c43_rows_can_follow_their_noise_instead() -> None:
    sets, noise = [], []
    for matching in ("none", "noise"):
        settings = Retriever(batch=8, matching=matching, sigma_min=1e-3, sigma_max=5.0)
        batch = noisy_batch(small_targets(), settings, step=2, seed=1)
        sets.append(batch.sets)
        noise.append(batch.noise)
    assert torch.equal(noise[0], noise[1])
    assert not torch.equal(sets[0], sets[1])
    assert torch.equal(sets[0].sort(dim=1).values, sets[1].sort(dim=1).values)  # the same rows
    assert torch.equal(match_rows(noise[1], sets[1]), torch.arange(4).expand(8, -1))


def test_a_network_of_fewer_rows_leaves_out_the_fillers() -> None:
    given = small_targets()
    assert np.array_equal(first_rows(given, 3).rows, given.rows[:, :3])
    assert first_rows(given, 4).gather(np.arange(2))[0].shape == (2, 4, 8)
    with pytest.raises(UserError, match=r"have 4 rows, retriever\.rows = 5"):
        first_rows(given, 5)
