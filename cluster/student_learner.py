"""The student's learner: a DeepSpeed rank that distils a finished retriever into one that needs few network calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.denoiser_learner import DenoiserLearner
from cluster.devices import torch_dtype
from r4t.config import Config, Sampler
from r4t.diffusion.checkpoint import load_denoiser, load_sampler_settings
from r4t.diffusion.distill import StudentBatches, StudentLoss, generator, student_batch, student_sampler
from r4t.diffusion.training import first_rows
from r4t.sets.tables import open_tables
from r4t.types import Floats

HELD_OUT = 128  # sets at most of the validation loss


class StudentLearner(DenoiserLearner):
    section = "distill"

    def __init__(
        self, rank: int, world: int, config: Config, prepare_folder: Path, sets_folder: Path, teacher_folder: Path
    ) -> None:
        settings = config.distill
        super().__init__(rank, world, config, settings, prepare_folder)
        self.own = settings
        tables = open_tables(sets_folder, prepare_folder, config)
        dim = tables.targets.table.shape[1]
        self.teacher = load_denoiser(teacher_folder, dim).to(self.device).requires_grad_(requires_grad=False)
        rows = self.teacher.config.rows
        self.training, self.held_out = (first_rows(t, rows) for t in (tables.training, tables.held_out))
        student = load_denoiser(teacher_folder, dim).to(self.device)  # starts as its teacher
        given = settings.guidance
        self.guidance = load_sampler_settings(teacher_folder).guidance if given is None else given
        self.solver = Sampler(name="dpmpp_2m", steps=settings.teacher_steps, guidance=self.guidance)
        self.batches = StudentBatches(
            self.training, self.teacher, settings, self.solver, seed=config.seed, rank=rank, world=world
        )
        top, dtype = self.teacher.config.sigma_max, torch_dtype(settings.dtype)
        self.start(student, StudentLoss(student, settings, top, dtype))
        self._fixed: tuple[Tensor, ...] | None = None

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"calls": list(self.own.calls), "guidance": self.guidance}

    def inputs(self, step: int) -> tuple[Tensor, ...]:
        return self.batches(step).to(self.device)

    def drawn_queries(self, step: int) -> Floats:
        return self.batches(step).queries[: self.own.batch // self.world].numpy()

    @torch.no_grad()
    def losses(self) -> dict[str, float]:
        """The training loss of the first call, on held-out sets and noise that never change."""
        if self._fixed is None:
            sets, queries = (
                torch.from_numpy(a) for a in self.held_out.gather(np.arange(HELD_OUT) % len(self.held_out))
            )
            noise, top = generator(self.config.seed, 0, 10**6), self.teacher.config.sigma_max
            self._fixed = student_batch(self.teacher, self.own, self.solver, sets, queries, top, noise).to(self.device)
        loss = StudentLoss(self.averaged(), self.own, self.teacher.config.sigma_max, torch.float32)
        return {"held_out_loss": float(loss(*self._fixed).mean())}

    def sampler(self) -> Sampler:
        return student_sampler(self.own, self.own.calls[0])
