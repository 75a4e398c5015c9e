"""The retriever's learner: a DeepSpeed rank that trains the set denoiser on stored sets (paper section 2.5, Eq. 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from cluster.denoiser_learner import DenoiserLearner
from cluster.devices import torch_dtype
from r4t.config import Config, Sampler
from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser
from r4t.diffusion.training import (
    DenoisingLoss,
    check_sigma_data,
    first_rows,
    measured_sigma_data,
    noisy_batch,
    validation_losses,
)
from r4t.sets.tables import open_tables
from r4t.sets.targets import check_rows
from r4t.types import Floats


class RetrieverLearner(DenoiserLearner):
    section = "retriever"

    def __init__(self, rank: int, world: int, config: Config, prepare_folder: Path, sets_folder: Path) -> None:
        settings = config.retriever
        check_rows(settings.rows, config.fanout.k)
        super().__init__(rank, world, config, settings, prepare_folder)
        self.own = settings
        tables = open_tables(sets_folder, prepare_folder, config)
        targets, self.removed = first_rows(tables.targets, settings.rows), tables.targets.removed
        self.training, self.held_out = (first_rows(t, settings.rows) for t in (tables.training, tables.held_out))
        dim = targets.table.shape[1]
        given = settings.sigma_data
        sigma_data = measured_sigma_data(targets) if given is None else check_sigma_data(given, dim)
        denoiser = SetDenoiser(DenoiserConfig.of(settings, dim, sigma_data)).to(self.device)
        self.start(denoiser, DenoisingLoss(denoiser, torch_dtype(settings.dtype), settings.matching == "output"))

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"removed_sets": dict(self.removed)}

    def inputs(self, step: int) -> tuple[Tensor, ...]:
        batch = noisy_batch(self.training, self.own, step=step, seed=self.config.seed, rank=self.rank, world=self.world)
        return batch.to(self.device)

    def drawn_queries(self, step: int) -> Floats:
        batch = self.own.batch // self.world
        return self.training.draw(step, batch=batch, seed=self.config.seed, rank=self.rank, world=self.world)[1]

    def losses(self) -> dict[str, float]:
        return validation_losses(self.averaged(), self.held_out, seed=self.config.seed)

    def sampler(self) -> Sampler:
        return self.own.sampler
