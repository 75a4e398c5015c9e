"""A student of the trained retriever: every call of it lands on a clean set, the first from pure noise.

Two losses, weighed by the configuration:

    endpoints   the student's set against the one at the end of the teacher's guided ODE from the same noise, which
                folds the solver's steps and the guidance into the weights (multistep consistency distillation)
    sets        the energy score  E d(X, T) - E d(X, X') / 2  of the student's sets X, X' of a query against its
                training set T, with d the distance of optimally matched rows: it is least where the student draws
                sets as the training sets are drawn, so that the student may pass its teacher. A later call is given
                T with little noise and answers one set: for it the score is d(X, T)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from r4t.config import Distill, Sampler
from r4t.diffusion import precondition
from r4t.diffusion.denoiser import SetDenoiser
from r4t.diffusion.matching import set_distance
from r4t.diffusion.schedule import sigma_grid
from r4t.diffusion.solvers import SOLVERS
from r4t.sets.reader import TargetSets

DRAWS = 2  # of every query, for the energy score


@dataclass(frozen=True, slots=True)
class StudentBatch:
    """B queries, two draws of each: all first draws, then all second ones."""

    noisy: Tensor
    """[2B, L, d] sets at noise level `sigma`."""
    sigma: Tensor
    """[2B] one level throughout."""
    queries: Tensor
    """[2B, d]"""
    sets: Tensor
    """[B, L, d] a training set of each query."""
    endpoints: Tensor
    """[2B, L, d] where the teacher carries `noisy`; zeros where that loss has no weight."""

    def to(self, device: torch.device) -> tuple[Tensor, ...]:
        return tuple(t.to(device) for t in (self.noisy, self.sigma, self.queries, self.sets, self.endpoints))


class StudentLoss(nn.Module):
    """The student with both losses on top, so that the engine that trains it returns a loss per query."""

    def __init__(self, student: SetDenoiser, settings: Distill, top: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.student, self.settings, self.top, self.dtype = student, settings, top, dtype

    def forward(self, noisy: Tensor, sigma: Tensor, queries: Tensor, sets: Tensor, endpoints: Tensor) -> Tensor:
        """[B]"""
        with torch.autocast(noisy.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32):
            drawn = self.student.denoise(noisy, sigma, queries).float()
        batch, data = len(sets), self.student.config.sigma_data
        weights = self.settings
        loss = drawn.new_zeros(batch)
        if weights.endpoints:
            scale = precondition.loss_weight(sigma, data)[:, None, None]
            gaps = (scale * (drawn - endpoints).square()).mean(dim=(1, 2))
            loss = loss + weights.endpoints * gaps.view(DRAWS, batch).mean(dim=0)
        if weights.sets:
            first = float(sigma[0]) > 0.999 * self.top
            loss = loss + weights.sets * (energy_score if first else mean_distance)(drawn[:batch], drawn[batch:], sets)
        return loss


def energy_score(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """[B] energy score of two draws [B, L, d] against a target [B, L, d]; rows in any order."""
    return mean_distance(first, second, target) - set_distance(first, second) / 2


def mean_distance(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """[B] distance of two draws [B, L, d] from a target [B, L, d], averaged."""
    return (set_distance(first, target) + set_distance(second, target)) / 2


def student_sampler(settings: Distill, calls: int) -> Sampler:
    """How a student draws a set in that many network calls."""
    return Sampler(name="consistency", steps=calls, guidance=0.0, sigma_end=settings.sigma_end)


def levels(settings: Distill, top: float) -> list[float]:
    """Every noise level that a student with the wanted numbers of calls meets, highest first."""
    grids = [sigma_grid(calls, top, settings.sigma_end, Sampler().rho).tolist() for calls in settings.calls]
    return sorted({round(level, 9) for grid in grids for level in grid}, reverse=True)


def level_of(step: int, levels: list[float]) -> float:
    """The level of a step: the highest, which decides most, at every other one; the rest take turns."""
    if len(levels) == 1 or step % 2 == 0:
        return levels[0]
    return levels[1 + step // 2 % (len(levels) - 1)]


@torch.no_grad()
def teacher_endpoints(teacher: SetDenoiser, solver: Sampler, x: Tensor, sigma: float, queries: Tensor) -> Tensor:
    """Noisy sets [B, L, d] at level `sigma` and queries [B, d] -> the sets [B, L, d] at the end of the guided ODE."""
    sigmas = sigma_grid(solver.steps, sigma, solver.sigma_end, solver.rho)
    w, batch = solver.guidance, len(x)
    both = torch.cat([queries, torch.zeros_like(queries)]) if w else queries

    def denoise(x: Tensor, i: int) -> Tensor:
        noisy = x.repeat(2, 1, 1) if w else x
        clean = teacher.denoise(noisy, noisy.new_full((len(noisy),), float(sigmas[i])), both)
        return torch.lerp(clean[batch:], clean[:batch], 1 + w) if w else clean

    return SOLVERS[solver.name](denoise, x, sigmas, torch.Generator())


class StudentBatches:
    """The batch of a rank at a step, a function of the step alone; the teacher's answers are kept for the next time.

    With `pool_steps` the stream of batches starts again after so many steps, and costs the teacher nothing then.
    """

    def __init__(
        self, targets: TargetSets, teacher: SetDenoiser, settings: Distill, solver: Sampler, *, seed: int,
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        self.targets, self.teacher, self.settings, self.solver = targets, teacher, settings, solver
        self.seed, self.rank, self.world = seed, rank, world
        self.levels = levels(settings, teacher.config.sigma_max)
        self._kept: dict[int, StudentBatch] = {}

    def __call__(self, step: int) -> StudentBatch:
        pool = self.settings.pool_steps
        slot = step % pool if pool else step
        if slot in self._kept:
            return self._kept[slot]
        batch = self._make(slot)
        if pool:
            self._kept[slot] = batch
        return batch

    def _make(self, slot: int) -> StudentBatch:
        size = self.settings.batch // self.world
        drawn = self.targets.draw(slot, batch=size, seed=self.seed, rank=self.rank, world=self.world)
        sets, queries = (torch.from_numpy(array) for array in drawn)
        return student_batch(
            self.teacher, self.settings, self.solver, sets, queries, level_of(slot, self.levels),
            generator(self.seed, slot, self.rank),
        )  # fmt: skip


def student_batch(
    teacher: SetDenoiser, settings: Distill, solver: Sampler, sets: Tensor, queries: Tensor, sigma: float,
    noise: torch.Generator,
) -> StudentBatch:  # fmt: skip
    """Noises training sets [B, L, d] of queries [B, d] to `sigma`, twice, and asks the teacher where that ends.

    At the highest level the noise alone is the input, as when sets are drawn.
    """
    queries = queries.repeat(DRAWS, 1)
    noisy = sigma * torch.randn((DRAWS * len(sets), *sets.shape[1:]), generator=noise)
    if sigma < 0.999 * teacher.config.sigma_max:
        noisy = noisy + sets.repeat(DRAWS, 1, 1)
    endpoints = torch.zeros_like(noisy)
    if settings.endpoints:
        device = teacher.positions.device
        endpoints = teacher_endpoints(teacher, solver, noisy.to(device), sigma, queries.to(device)).cpu()
    return StudentBatch(noisy, noisy.new_full((len(noisy),), sigma), queries, sets, endpoints)


def generator(seed: int, step: int, rank: int) -> torch.Generator:
    """Random numbers of one rank at one step."""
    state = np.random.SeedSequence([seed, step, rank, 5]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
