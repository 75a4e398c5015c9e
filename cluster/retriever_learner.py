"""The retriever's learner: a DeepSpeed rank that trains the set denoiser on stored sets (paper section 2.5, Eq. 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cluster.checkpoint import load_state, save_state
from cluster.devices import torch_device, torch_dtype
from cluster.launch import start_deepspeed
from r4t.config import Config
from r4t.diffusion.checkpoint import save_denoiser
from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser
from r4t.diffusion.ema import EMA
from r4t.diffusion.training import (
    DenoisingLoss,
    check_sigma_data,
    learning_rate,
    measured_sigma_data,
    noisy_batch,
    validation_loss,
)
from r4t.errors import UserError
from r4t.lineage import read_json, write_json
from r4t.sets.tables import open_tables
from r4t.sets.targets import check_rows

WEIGHTS, AVERAGES, PROGRESS = "model.safetensors", "ema.safetensors", "progress.json"


class RetrieverLearner:
    """One rank. Calls marked *collective* must be made on every rank, in the same order.

    ZeRO stage 0: even the paper's 54M parameters fit everywhere, and every rank then holds the whole state.
    """

    def __init__(self, rank: int, world: int, config: Config, prepare_folder: Path, sets_folder: Path) -> None:
        settings = config.retriever
        if settings.batch % world:
            raise UserError(
                f"retriever.batch = {settings.batch} does not divide into retriever.ranks = {world} equal parts"
            )
        check_rows(settings.rows, config.fanout.k)
        torch.manual_seed(config.seed)
        torch.set_num_threads(settings.threads)
        self.rank, self.world, self.config, self.settings = rank, world, config, settings
        self.device = torch_device(config)
        tables = open_tables(sets_folder, prepare_folder, config)
        self.training, self.held_out, self.removed = tables.training, tables.held_out, tables.targets.removed
        dim = tables.targets.table.shape[1]
        given = settings.sigma_data
        sigma_data = measured_sigma_data(tables.targets) if given is None else check_sigma_data(given, dim)
        self.denoiser = SetDenoiser(DenoiserConfig.of(settings, dim, sigma_data)).to(self.device)
        self.ema = EMA(self.denoiser, settings.ema)
        optimizer = torch.optim.AdamW(self.denoiser.parameters(), lr=settings.lr, weight_decay=0.0)
        self.engine, _, _, _ = start_deepspeed(config).initialize(
            model=DenoisingLoss(self.denoiser, torch_dtype(settings.dtype)),
            optimizer=optimizer,
            config=_deepspeed_config(config, world),
        )

    def describe(self) -> dict[str, Any]:
        """What is being trained, on what."""
        return {
            "parameters": sum(p.numel() for p in self.denoiser.parameters()),
            "sigma_data": self.denoiser.config.sigma_data,
            "training_sets": len(self.training),
            "held_out_sets": len(self.held_out),
            "removed_sets": dict(self.removed),
        }

    def train(self, start: int, stop: int) -> dict[str, float]:
        """*Collective.* Takes steps `start ... stop`. Returns means over them and the last learning rate."""
        self.engine.train()
        losses, lr = [], 0.0
        for step in range(start, stop):
            batch = noisy_batch(
                self.training, self.settings, step=step, seed=self.config.seed, rank=self.rank, world=self.world
            )
            lr = learning_rate(self.settings, step)
            for group in self.engine.optimizer.param_groups:
                group["lr"] = lr
            torch.manual_seed((self.config.seed * 1_000_003 + step) * 64 + self.rank)  # dropout, also after a resume
            loss = self.engine(*batch.to(self.device)).mean()
            self.engine.backward(loss)
            self.engine.step()
            self.ema.update(self.denoiser.parameters())
            losses.append(loss.detach())
        return {"loss": float(torch.stack(losses).mean()), "lr": lr}

    def validate(self) -> float:
        """Loss of the averaged weights on the held-out queries."""
        return validation_loss(self.averaged(), self.held_out, seed=self.config.seed)

    def averaged(self) -> SetDenoiser:
        """A copy of the network with the EMA weights."""
        copy = SetDenoiser(self.denoiser.config).to(self.device).eval()
        copy.load_state_dict(self.ema.averages())
        return copy

    def save(self, folder: Path, step: int) -> None:
        """Rank 0 writes everything a resumed run needs; the other ranks hold the same and write nothing."""
        if self.rank:
            return
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.denoiser.state_dict(), folder / WEIGHTS)
        save_file(self.ema.state_dict(), folder / AVERAGES)
        save_state(folder, self.engine.module, self.engine.optimizer, zero_stage=0, rank=0)
        write_json(folder / PROGRESS, {"step": step, "ema_updates": self.ema.updates})

    def load(self, folder: Path) -> int:
        """*Collective.* Restores a saved state. Returns the number of steps already taken."""
        progress = read_json(folder / PROGRESS)
        self.denoiser.load_state_dict(load_file(folder / WEIGHTS, device=str(self.device)))
        self.ema.load_state_dict(load_file(folder / AVERAGES, device=str(self.device)), progress["ema_updates"])
        load_state(folder, self.engine.module, self.engine.optimizer, zero_stage=0, rank=0)
        return int(progress["step"])

    def export(self, folder: Path) -> None:
        """Rank 0 writes the finished retriever: EMA weights and configuration."""
        if self.rank == 0:
            save_denoiser(folder, self.averaged(), self.settings.sampler)


def _deepspeed_config(config: Config, world: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": config.retriever.batch // world,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.retriever.grad_clip,
        "zero_optimization": {"stage": 0},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
