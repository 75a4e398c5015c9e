"""The student: what it is asked for, that its batches are a function of the step, and that both losses train it."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusion_fixtures import random_denoiser, small_targets
from pydantic import ValidationError

from r4t.config import Distill, Sampler
from r4t.diffusion.distill import (
    StudentBatches,
    StudentLoss,
    generator,
    level_of,
    levels,
    student_batch,
    student_sampler,
    teacher_endpoints,
)
from r4t.diffusion.matching import set_distance
from r4t.diffusion.sampler import SetSampler
from r4t.diffusion.schedule import sigma_grid
from r4t.diffusion.solvers import gaussian

TOP = 5.0


@pytest.mark.parametrize("guidance", [0.0, 0.6])
def test_endpoints_are_the_teachers_own_samples(guidance: float) -> None:
    teacher, queries = random_denoiser(), torch.randn(3, 8)
    solver = Sampler(name="dpmpp_2m", steps=6, guidance=guidance)
    expected = SetSampler(teacher, solver).sample(queries, torch.Generator().manual_seed(4)).sets
    start = TOP * gaussian(torch.empty(3, 4, 8), torch.Generator().manual_seed(4))
    assert torch.allclose(teacher_endpoints(teacher, solver, start, TOP, queries), expected, atol=1e-4)


def test_levels_are_those_its_samplers_visit() -> None:
    settings = Distill(calls=(1, 2, 4), sigma_end=0.2)
    visited = {round(float(s), 6) for calls in (1, 2, 4) for s in sigma_grid(calls, TOP, 0.2)}
    assert {round(level, 6) for level in levels(settings, TOP)} == visited
    for calls in settings.calls:
        sampler = SetSampler(random_denoiser(), student_sampler(settings, calls))
        assert {round(float(sigma), 6) for sigma in sampler.sigmas} <= visited
        assert sampler.nfe == calls  # guidance costs nothing any more


def test_every_other_step_is_at_the_highest_level_and_the_rest_take_turns() -> None:
    found = levels(Distill(calls=(4,)), TOP)
    drawn = [level_of(step, found) for step in range(60)]
    assert drawn.count(found[0]) == 30
    assert all(drawn.count(level) == 10 for level in found[1:])
    assert {level_of(step, [7.0]) for step in range(5)} == {7.0}


def test_first_call_sees_pure_noise_and_later_ones_the_set() -> None:
    sets, queries = torch.full((400, 4, 8), 3.0), torch.randn(400, 8)
    settings, solver = Distill(endpoints=0, sets=1), Sampler(guidance=0)
    for sigma, mean in ((TOP, 0.0), (0.5, 3.0)):
        batch = student_batch(random_denoiser(), settings, solver, sets, queries, sigma, generator(0, 0, 0))
        assert batch.noisy.mean().item() == pytest.approx(mean, abs=0.05 * sigma)
        assert batch.noisy.std().item() == pytest.approx(sigma, rel=0.02)
        assert torch.equal(batch.queries, queries.repeat(2, 1))
        assert not torch.equal(batch.noisy[:400], batch.noisy[400:])
        assert batch.endpoints.abs().max() == 0  # a teacher without weight is not asked


def test_batches_are_a_function_of_the_step_and_repeat_with_the_pool() -> None:
    settings = Distill(batch=4, pool_steps=3, teacher_steps=2, endpoints=1)
    made = [StudentBatches(small_targets(), random_denoiser(), settings, Sampler(steps=2), seed=1) for _ in (0, 1)]
    one = [made[0](step) for step in range(6)]
    for step in (5, 1):  # in another order, as after a resume
        for a, b in zip(one[step].to(torch.device("cpu")), made[1](step).to(torch.device("cpu")), strict=True):
            assert torch.equal(a, b)
    assert one[0] is one[3]
    assert not torch.equal(one[0].noisy, one[1].noisy)
    free = StudentBatches(
        small_targets(), random_denoiser(), Distill(batch=4, teacher_steps=2), Sampler(steps=2), seed=1
    )
    assert not torch.equal(free(0).noisy, free(3).noisy)


def test_draws_repel_each_other_at_the_first_call_alone() -> None:
    student = random_denoiser()
    loss = StudentLoss(student, Distill(endpoints=0, sets=2), TOP, torch.float32)
    noisy, queries, sets = torch.randn(4, 4, 8), torch.randn(4, 8), torch.randn(2, 4, 8)
    for level in (TOP, 0.5):
        sigma = torch.full((4,), level)
        drawn = student.denoise(noisy, sigma, queries)
        reach = (set_distance(drawn[:2], sets) + set_distance(drawn[2:], sets)) / 2
        apart = set_distance(drawn[:2], drawn[2:]) / 2 if level == TOP else 0
        assert torch.allclose(loss(noisy, sigma, queries, sets, torch.zeros(4, 4, 8)), 2 * (reach - apart))


@pytest.mark.parametrize(("endpoints", "sets"), [(1.0, 0.0), (0.0, 1.0)])
def test_training_brings_the_loss_down(endpoints: float, sets: float) -> None:
    teacher = random_denoiser()
    settings = Distill(batch=12, endpoints=endpoints, sets=sets, pool_steps=1, teacher_steps=4)
    batch = StudentBatches(small_targets(), teacher, settings, Sampler(steps=4, guidance=0.3), seed=0)(0)
    student = copy.deepcopy(teacher).train()
    loss = StudentLoss(student, settings, TOP, torch.float32)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    seen = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(*batch.to(torch.device("cpu"))).mean()
        value.backward()
        optimizer.step()
        seen.append(float(value.detach()))
    assert seen[-1] < 0.7 * seen[0]


@pytest.mark.parametrize("wrong", [{"endpoints": 0, "sets": 0}, {"calls": [0]}])
def test_a_student_with_nothing_to_learn_from_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Distill(**wrong)
