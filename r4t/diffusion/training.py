"""One training step of the denoiser, as functions of the step number: a resumed run repeats and skips nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from r4t.config import Retriever, Training
from r4t.diffusion.denoiser import SetDenoiser
from r4t.diffusion.loss import denoising_loss, drop_condition, matched_denoising_loss
from r4t.diffusion.matching import in_order, match_rows
from r4t.diffusion.precondition import expected_sigma_data
from r4t.diffusion.schedule import log_normal, log_uniform
from r4t.errors import UserError
from r4t.sets.reader import TargetSets

SIGMA_DATA_TOLERANCE = 0.05
BLOCK = 1 << 16
BANDS = 4
"""Parts of equal width in ln σ into which the training range is cut to tell validation losses apart."""


@dataclass(frozen=True, slots=True)
class NoisyBatch:
    """What the loss needs: clean sets, conditions (some dropped), one noise level each, and the noise."""

    sets: Tensor
    """[B, L, d]"""
    queries: Tensor
    """[B, d]"""
    sigma: Tensor
    """[B]"""
    noise: Tensor
    """[B, L, d]"""

    def to(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (self.sets.to(device), self.queries.to(device), self.sigma.to(device), self.noise.to(device))


class DenoisingLoss(nn.Module):
    """The denoiser with its loss on top, so that the engine that trains it returns a loss per example."""

    def __init__(self, denoiser: SetDenoiser, dtype: torch.dtype, matched: bool = False) -> None:
        super().__init__()
        self.denoiser, self.dtype = denoiser, dtype
        self.loss = matched_denoising_loss if matched else denoising_loss

    def forward(self, sets: Tensor, queries: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        with torch.autocast(sets.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32):
            return self.loss(self.denoiser, self.denoiser.config.sigma_data, sets, queries, sigma, noise)


def first_rows(targets: TargetSets, rows: int) -> TargetSets:
    """The sets without rows beyond the first `rows` of each: fillers come last. Raises UserError for too many."""
    stored = targets.rows.shape[1]
    if rows > stored:
        raise UserError(
            f"the training sets have {stored} rows, retriever.rows = {rows} wants more: make them again with a new run,"
            f" or set retriever.rows={stored}"
        )
    return replace(targets, rows=targets.rows[:, :rows])


def measured_sigma_data(targets: TargetSets) -> float:
    """Root mean square coordinate of the target rows. Raises UserError unless within 5 % of 1/sqrt(d)."""
    counts = np.zeros(len(targets.table), dtype=np.int64)
    for start in range(0, len(targets), BLOCK):  # in pieces, since the tables may be larger than memory
        np.add.at(counts, targets.rows[start : start + BLOCK].ravel(), 1)
    power = 0.0
    for start in range(0, len(counts), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(counts)))
        squares = np.square(targets.vectors(rows).astype(np.float64)).mean(axis=1)
        power += float(counts[rows] @ squares)
    return check_sigma_data(math.sqrt(power / counts.sum()), targets.table.shape[1])


def check_sigma_data(value: float, dim: int) -> float:
    """Returns `value` if it fits unit vectors of width `dim`, else raises UserError."""
    expected = expected_sigma_data(dim)
    if not abs(value / expected - 1) <= SIGMA_DATA_TOLERANCE:  # NaN is refused too
        raise UserError(
            f"sigma_data is {value:.4f} but unit vectors of width {dim} have {expected:.4f}: the targets are not of"
            " unit length, or retriever.sigma_data is set for another encoder.dim; leave retriever.sigma_data empty"
        )
    return value


def noisy_batch(
    targets: TargetSets, settings: Retriever, *, step: int, seed: int, rank: int = 0, world: int = 1
) -> NoisyBatch:
    """The batch of one rank at one step. A function of its arguments alone."""
    batch = settings.batch // world
    sets, queries = (torch.from_numpy(a) for a in targets.draw(step, batch=batch, seed=seed, rank=rank, world=world))
    generator = _generator(seed, step, rank)
    sigma = training_sigmas(settings, batch, generator)
    queries = drop_condition(queries, settings.p_drop, generator)
    noise = torch.randn(sets.shape, generator=generator)
    if settings.matching == "noise":
        sets = in_order(sets, match_rows(noise, sets))
    return NoisyBatch(sets, queries, sigma, noise)


def training_sigmas(settings: Retriever, batch: int, generator: torch.Generator) -> Tensor:
    """`[batch]` noise levels from the configured law."""
    low, high = settings.sigma_min, settings.sigma_max
    if settings.sigma_law == "log_uniform":
        return log_uniform(batch, low, high, generator)
    return log_normal(batch, settings.sigma_log_mean, settings.sigma_log_std, low, high, generator)


def learning_rate(settings: Training, step: int) -> float:
    """Linear warm-up from 0, then a cosine from `lr` to `final_lr` at the last step."""
    if step < settings.warmup_steps:
        return settings.lr * step / settings.warmup_steps
    span = max(settings.steps - settings.warmup_steps, 1)
    progress = min((step - settings.warmup_steps) / span, 1.0)
    return settings.final_lr + (settings.lr - settings.final_lr) * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def validation_losses(denoiser: SetDenoiser, targets: TargetSets, *, seed: int, most: int = 512) -> dict[str, float]:
    """Mean loss on held-out sets at noise levels and noise that are the same at every call: over all levels, as
    `held_out_loss`, and in each band of them, as `held_out_loss/<lowest>-<highest>`.
    """
    chosen = np.arange(min(len(targets), most))
    sets, queries = (torch.from_numpy(array) for array in targets.gather(chosen))
    config, device = denoiser.config, denoiser.positions.device
    generator = _generator(seed, 0, 10**6)
    levels = torch.linspace(math.log(config.sigma_min), math.log(config.sigma_max), len(chosen)).exp()
    order = torch.randperm(len(chosen), generator=generator)
    sigma = levels[order]
    noise = torch.randn(sets.shape, generator=generator)
    parts = [
        denoising_loss(denoiser, config.sigma_data, *(t.to(device) for t in part))
        for part in zip(sets.split(128), queries.split(128), sigma.split(128), noise.split(128), strict=True)
    ]
    losses = torch.cat(parts).cpu()
    by_level = losses[order.argsort()].tensor_split(BANDS)
    edges = torch.linspace(math.log(config.sigma_min), math.log(config.sigma_max), BANDS + 1).exp().tolist()
    bands = {
        f"held_out_loss/{low:.2g}-{high:.2g}": float(band.mean())
        for low, high, band in zip(edges[:-1], edges[1:], by_level, strict=True)
        if len(band)
    }
    return {"held_out_loss": float(losses.mean())} | bands


def _generator(seed: int, step: int, rank: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, step, rank, 2]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
