"""Validation by noise band, and the two ways of putting rows in order in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusion_fixtures import random_denoiser, small_targets

from r4t.config import Retriever
from r4t.diffusion.loss import denoising_loss, matched_denoising_loss
from r4t.diffusion.matching import match_rows
from r4t.diffusion.schedule import log_normal, log_uniform
from r4t.diffusion.training import (
    BANDS,
    DenoisingLoss,
    check_sigma_data,
    first_rows,
    measured_sigma_data,
    noisy_batch,
    training_sigmas,
    validation_losses,
)
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


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_levels_follow_the_law_of_the_settings() -> None:
    uniform = Retriever(sigma_law="log_uniform", sigma_min=1e-3, sigma_max=5.0)
    assert torch.equal(training_sigmas(uniform, 64, seeded(0)), log_uniform(64, 1e-3, 5.0, seeded(0)))
    settings = {"sigma_log_mean": -2.0, "sigma_log_std": 0.7, "sigma_min": 1e-3, "sigma_max": 5.0}
    normal = Retriever(sigma_law="log_normal", **settings)  # type: ignore[arg-type]
    assert torch.equal(training_sigmas(normal, 64, seeded(0)), log_normal(64, -2.0, 0.7, 1e-3, 5.0, seeded(0)))


def test_a_batch_is_the_step_s_sets_with_levels_and_noise_of_their_own() -> None:
    targets, settings = small_targets(), Retriever(batch=8, p_drop=0.0, sigma_min=1e-3, sigma_max=5.0)
    batch = noisy_batch(targets, settings, step=2, seed=1)
    sets, queries = targets.draw(2, batch=8, seed=1, rank=0, world=1)
    assert np.array_equal(batch.sets, sets)
    assert np.array_equal(batch.queries, queries)
    assert batch.sigma.shape == (8,)
    assert batch.sigma.min() >= 1e-3
    assert batch.sigma.max() <= 5.0
    assert (noisy_batch(targets, settings.model_copy(update={"p_drop": 1.0}), step=2, seed=1).queries == 0).all()


def test_a_batch_depends_on_step_seed_and_rank_alone() -> None:
    targets, settings = small_targets(), Retriever(batch=8, p_drop=0.5, sigma_min=1e-3, sigma_max=5.0)

    def parts(**changes: int) -> list[torch.Tensor]:
        batch = noisy_batch(targets, settings, **{"step": 2, "seed": 1, "rank": 0, "world": 2} | changes)
        return [*batch.to(torch.device("cpu"))]

    first = parts()
    torch.manual_seed(99)
    assert all(torch.equal(one, two) for one, two in zip(first, parts(), strict=True))
    assert len(first[0]) == 4, "each of two ranks draws half of the batch"
    for change in ({"step": 3}, {"seed": 2}, {"rank": 1}):
        other = parts(**change)
        assert not any(torch.equal(first[place], other[place]) for place in (0, 2, 3)), change


def test_both_losses_are_those_of_the_denoiser_in_the_asked_precision() -> None:
    denoiser = random_denoiser()
    given = noisy_batch(small_targets(), Retriever(batch=8, sigma_min=1e-3, sigma_max=5.0), step=0, seed=0)
    parts = given.to(torch.device("cpu"))
    plain = DenoisingLoss(denoiser, torch.float32)(*parts)
    sets, queries, sigma, noise = parts
    data = denoiser.config.sigma_data
    assert torch.equal(plain, denoising_loss(denoiser, data, sets, queries, sigma, noise))
    matched = DenoisingLoss(denoiser, torch.float32, matched=True)(*parts)
    assert torch.equal(matched, matched_denoising_loss(denoiser, data, sets, queries, sigma, noise))
    assert not torch.equal(matched, plain)
    short = DenoisingLoss(denoiser, torch.bfloat16)(*parts)
    assert not torch.equal(short, plain)
    assert torch.allclose(short, plain, rtol=0.1, atol=0.1)


def test_sigma_data_is_measured_over_the_rows_as_often_as_they_are_used() -> None:
    targets = small_targets()
    assert measured_sigma_data(targets) == pytest.approx(8**-0.5, rel=1e-5)
    scale = np.where(np.arange(20) == targets.rows[0, 0], 1.3, 1.0)[:, None]
    uneven = replace(targets, table=(targets.table * scale).astype(np.float32))
    used = uneven.table[uneven.rows.ravel()].astype(np.float64)
    assert measured_sigma_data(uneven) == pytest.approx(np.sqrt(np.mean(used**2)), rel=1e-5)
    with pytest.raises(UserError, match=r"sigma_data is 0\.7071 but unit vectors of width 8 have 0\.3536"):
        measured_sigma_data(replace(targets, table=2 * targets.table))


@pytest.mark.parametrize(("factor", "fits"), [(1.049, True), (0.951, True), (1.051, False), (0.949, False)])
def test_sigma_data_may_be_five_percent_off(factor: float, fits: bool) -> None:
    value = factor * 8**-0.5
    if fits:
        assert check_sigma_data(value, 8) == value
    else:
        with pytest.raises(UserError, match="not of unit length"):
            check_sigma_data(value, 8)


def test_a_network_of_fewer_rows_leaves_out_the_fillers() -> None:
    given = small_targets()
    assert np.array_equal(first_rows(given, 3).rows, given.rows[:, :3])
    assert first_rows(given, 4).gather(np.arange(2))[0].shape == (2, 4, 8)
    with pytest.raises(UserError, match=r"have 4 rows, retriever\.rows = 5"):
        first_rows(given, 5)
