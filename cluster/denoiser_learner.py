"""What learners of networks that draw sets share: a DeepSpeed rank, averaged weights, checkpoints and validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cluster.checkpoint import load_state, save_state
from cluster.devices import torch_device
from cluster.launch import start_deepspeed
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.config import Config, Sampler, Training
from r4t.diffusion.checkpoint import save_denoiser
from r4t.diffusion.denoiser import SetDenoiser
from r4t.diffusion.ema import EMA
from r4t.diffusion.training import learning_rate
from r4t.errors import UserError
from r4t.evaluation.held_out import HeldOutSets
from r4t.full_disk import full_disk_named
from r4t.lineage import read_json, write_json
from r4t.sets.reader import TargetSets
from r4t.types import Floats

WEIGHTS, AVERAGES, PROGRESS = "model.safetensors", "ema.safetensors", "progress.json"


class DenoiserLearner(ABC):
    """One rank. Calls marked *collective* must be made on every rank, in the same order.

    Up to ZeRO stage 2 every rank holds all weights: even the paper's 54M parameters fit everywhere.
    """

    section: str
    """Section of the configuration that the settings stand in."""
    training: TargetSets
    held_out: TargetSets

    def __init__(self, rank: int, world: int, config: Config, settings: Training, prepare_folder: Path) -> None:
        if settings.batch % world:
            raise UserError(
                f"{self.section}.batch = {settings.batch} does not divide into {self.section}.ranks = {world} equal"
                " parts: change one of them"
            )
        torch.manual_seed(config.seed)
        torch.set_num_threads(settings.threads)
        self.rank, self.world, self.config, self.settings = rank, world, config, settings
        self.device = torch_device(config)
        self.prepare_folder = prepare_folder
        self.watch: HeldOutSets | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """Only for the rank that watches queries and whoever names them: the vectors it holds are its own copy."""
        objective = self.config.objective
        return load_dataset(self.prepare_folder, (*objective.columns, objective.category_column))

    def start(self, denoiser: SetDenoiser, loss: nn.Module) -> None:
        """*Collective.* Puts `loss`, which holds `denoiser`, under DeepSpeed, and chooses the queries to watch."""
        self.denoiser = denoiser
        self.ema = EMA(denoiser, self.settings.ema)
        optimizer = torch.optim.AdamW(denoiser.parameters(), lr=self.settings.lr, weight_decay=0.0)
        self.engine, _, _, _ = start_deepspeed(self.config).initialize(
            model=loss, optimizer=optimizer, config=_deepspeed_config(self.settings, self.world)
        )
        if self.settings.validate_queries and self.rank == 0:
            rows = np.unique(self.held_out.query)[: self.settings.validate_queries].astype(np.int64)
            self.watch = HeldOutSets(self.dataset, self.config, rows)

    @abstractmethod
    def inputs(self, step: int) -> tuple[Tensor, ...]:
        """What the loss takes at a step, on the device. A function of the step alone."""

    @abstractmethod
    def drawn_queries(self, step: int) -> Floats:
        """[B, d] vectors of the queries behind the losses of a step."""

    @abstractmethod
    def losses(self) -> dict[str, float]:
        """Losses of the averaged weights on the held-out sets, `held_out_loss` among them."""

    @abstractmethod
    def sampler(self) -> Sampler:
        """How the finished network draws sets."""

    def describe(self) -> dict[str, Any]:
        """What is being trained, on what."""
        return {
            "parameters": sum(p.numel() for p in self.denoiser.parameters()),
            "sigma_data": self.denoiser.config.sigma_data,
            "training_sets": len(self.training),
            "held_out_sets": len(self.held_out),
        }

    def train(self, start: int, stop: int) -> dict[str, float]:
        """*Collective.* Takes steps `start ... stop`. Returns means over them and the last learning rate.

        Raises UserError when a loss or gradient stopped being a number; names the step and queries of its batch.
        """
        self.engine.train()
        losses: list[Tensor] = []
        norms: list[Any] = []
        lr = 0.0
        for step in range(start, stop):
            lr = learning_rate(self.settings, step)
            for group in self.engine.optimizer.param_groups:
                group["lr"] = lr
            inputs = self.inputs(step)
            torch.manual_seed((self.config.seed * 1_000_003 + step) * 64 + self.rank)  # dropout, also after a resume
            loss = self.engine(*inputs)
            self.engine.backward(loss.mean())
            self.engine.step()
            self.ema.update(self.denoiser.parameters())
            losses.append(loss.detach())
            norms.append(self.engine.get_global_grad_norm())
        self._check(start, torch.stack(losses), torch.tensor([0.0 if norm is None else float(norm) for norm in norms]))
        return {"loss": float(torch.stack(losses).mean()), "lr": lr}

    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights on held-out sets, and what they retrieve for held-out queries."""
        averaged = self.averaged()
        watched = self.watch.score(averaged, self.sampler()) if self.watch else {}
        return self.losses() | watched

    def averaged(self) -> SetDenoiser:
        """A copy of the network with the EMA weights."""
        copy = SetDenoiser(self.denoiser.config).to(self.device).eval()
        copy.load_state_dict(self.ema.averages())
        return copy

    def save(self, folder: Path, step: int) -> None:
        """Every rank writes its part of the optimiser's state, rank 0 also what all hold."""
        save_state(
            folder, self.engine.module, self.engine.optimizer, zero_stage=self.settings.zero_stage, rank=self.rank
        )
        if self.rank == 0:
            with full_disk_named(folder):
                save_file(self.denoiser.state_dict(), folder / WEIGHTS)
                save_file(self.ema.state_dict(), folder / AVERAGES)
            write_json(folder / PROGRESS, {"step": step, "ema_updates": self.ema.updates})

    def load(self, folder: Path) -> int:
        """*Collective.* Restores a saved state. Returns the number of steps already taken."""
        progress = read_json(folder / PROGRESS)
        self.denoiser.load_state_dict(load_file(folder / WEIGHTS, device=str(self.device)))
        self.ema.load_state_dict(load_file(folder / AVERAGES, device=str(self.device)), progress["ema_updates"])
        load_state(
            folder, self.engine.module, self.engine.optimizer, zero_stage=self.settings.zero_stage, rank=self.rank
        )
        return int(progress["step"])

    def export(self, folder: Path) -> None:
        """Rank 0 writes the network as a retriever: EMA weights and configuration."""
        if self.rank == 0:
            save_denoiser(folder, self.averaged(), self.sampler())

    def _check(self, start: int, losses: Tensor, norms: Tensor) -> None:
        """losses: [steps, B]; norms: [steps]."""
        fine = losses.isfinite().all(dim=1).cpu() & norms.isfinite()
        if fine.all():
            return
        first = int((~fine).nonzero()[0])
        broken = (~losses[first].isfinite()).nonzero().flatten().tolist() or list(range(losses.shape[1]))
        vectors = self.drawn_queries(start + first)
        named = [self._query_text(vectors[i]) for i in broken[:3]]
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        settings = self.settings
        raise UserError(
            f"{self.section}: the loss or its gradient is no finite number at step {start + first} (rank {self.rank}),"
            f" in the batch with the queries {', '.join(map(repr, named))}{more}. The last good"
            f" checkpoint is kept. Lower {self.section}.lr ({settings.lr:g}) or {self.section}.grad_clip"
            f" ({settings.grad_clip:g}), or set {self.section}.dtype=float32"
        )

    def _query_text(self, vector: Floats) -> str:
        row = int(np.flatnonzero((self.dataset.query_vectors == vector).all(axis=1))[0])
        return self.dataset.queries[row].text


def _deepspeed_config(settings: Training, world: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": settings.batch // world,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.grad_clip,
        "zero_optimization": {"stage": settings.zero_stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
