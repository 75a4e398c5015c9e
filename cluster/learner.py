"""The policy learner: a DeepSpeed rank that warm-starts the policy and trains it with Soft-GRPO."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from cluster.checkpoint import full_weights, gathered, load_rank, save_rank
from cluster.devices import torch_device, torch_dtype
from cluster.launch import start_deepspeed
from r4t.batch import TokenBatch
from r4t.config import Config
from r4t.grpo import importance_weights, soft_grpo_loss
from r4t.types import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """The optimiser of one phase (warm start or reinforcement learning)."""

    lr: float
    betas: tuple[float, float]
    weight_decay: float = 0.0
    grad_clip: float = 1.0


class PolicyLearner:
    """One rank. Calls marked *collective* must be made on every rank, in the same order."""

    def __init__(self, rank: int, world: int, config: Config) -> None:
        torch.manual_seed(config.seed)
        transformers_logging.disable_progress_bar()
        self.rank, self.world, self.config = rank, world, config
        self.device = torch_device(config)
        self.deepspeed = start_deepspeed(config)
        self.engine: Any = None

    def begin(self, model_dir: Path, phase: Phase) -> int:
        """*Collective.* Loads a Hugging Face directory under a fresh optimiser. Returns the number of parameters."""
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True)
        parameters = sum(p.numel() for p in model.parameters())
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=phase.lr, betas=phase.betas, weight_decay=phase.weight_decay
        )
        self.engine, _, _, _ = self.deepspeed.initialize(
            model=model, optimizer=optimizer, config=deepspeed_config(self.config, phase.grad_clip)
        )
        return parameters

    def supervise(self, corpus: TokenBatch, start: int, stop: int, lrs: list[float]) -> float:
        """*Collective.* Warm-start steps `start ... stop`: cross-entropy of the answers. Returns the mean loss."""
        self.engine.train()
        batch = self.config.warm_start.batch
        losses = []
        for step, lr in zip(range(start, stop), lrs, strict=True):
            rng = np.random.default_rng([self.config.seed, step])
            chosen = rng.integers(0, len(corpus.lengths), size=batch)
            tokens = int(corpus.mask[chosen].sum())
            part = corpus.take(chosen[self.rank :: self.world])
            logprobs = self._logprobs(part, temperature=1.0)
            mask = torch.from_numpy(part.mask).to(self.device)
            loss = -(logprobs * mask).sum() * (self.world / tokens)
            self._step(loss, lr, boundary=True)
            losses.append(float(loss.detach()))
        return float(np.mean(losses))

    def update(self, batch: TokenBatch, step: int, lr: float) -> dict[str, float]:
        """*Collective.* Recomputes the old log-probabilities, then takes `updates_per_batch` optimiser steps (Eq. 8).

        Returns sums over this rank's tokens (`sum/...`), maxima (`max/...`) and counts, for the driver to merge.
        """
        started = time.perf_counter()
        rl = self.config.rl
        order = np.random.default_rng([self.config.seed, step, 7]).permutation(len(batch.lengths))
        chunks = order.reshape(rl.updates_per_batch, self.world, -1)  # [updates, ranks, sequences]
        old = [[self._old(batch, rows) for rows in self._micro(chunk[self.rank])] for chunk in chunks]
        totals: dict[str, float] = {}
        self.engine.train()
        for chunk, micro_old in zip(chunks, old, strict=True):
            tokens = max(
                int(batch.mask[chunk.ravel()].sum()), 1
            )  # of all ranks: the same gradient on any number of them
            pieces = self._micro(chunk[self.rank])
            for i, (rows, before) in enumerate(zip(pieces, micro_old, strict=True)):
                loss, sums = self._loss(batch.take(rows), before)
                self._step(loss * (self.world / tokens), lr, boundary=i == len(pieces) - 1)
                _merge(totals, sums)
            norm = self.engine.get_global_grad_norm()
            if norm is not None:
                _merge(totals, {"max/grad_norm": float(norm)})
        totals["seconds"] = time.perf_counter() - started
        return totals

    def export(self, path: Path) -> None:
        """*Collective.* Rank 0 writes the whole weights to `path` (safetensors, Hugging Face naming)."""
        weights = full_weights(self.engine.module, self.config.learner.zero_stage, keep=self.rank == 0)
        if self.rank == 0:
            save_file(weights, path, metadata={"format": "pt"})

    def save(self, folder: Path) -> None:
        """*Collective.* Writes this rank's part of a checkpoint."""
        save_rank(folder, self.rank, self.engine.optimizer)

    def load(self, folder: Path, weights: Path) -> None:
        """*Collective.* Restores a checkpoint: the module from `weights`, master weights and moments from `folder`."""
        stage = self.config.learner.zero_stage
        saved = load_file(weights)
        with gathered(self.engine.module, stage, modifier_rank=0), torch.no_grad():
            for name, parameter in self.engine.module.named_parameters():
                if stage < 3 or self.rank == 0:
                    parameter.data.copy_(saved[name])
        load_rank(folder, self.rank, self.engine.optimizer)

    def _micro(self, rows: Ints) -> list[Ints]:
        return np.array_split(rows, math.ceil(len(rows) / self.config.learner.micro_batch))

    def _old(self, batch: TokenBatch, rows: Ints) -> torch.Tensor:
        self.engine.eval()
        with torch.no_grad():
            return self._logprobs(batch.take(rows), self.config.rl.temperature)

    def _loss(self, part: TokenBatch, old: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        rl = self.config.rl
        mask = torch.from_numpy(part.mask).to(self.device)
        engine_logprobs = torch.from_numpy(part.engine_logprobs).to(self.device)
        parts = soft_grpo_loss(
            self._logprobs(part, rl.temperature),
            old,
            torch.from_numpy(part.advantages).to(self.device),
            clip=rl.clip,
            beta_policy_old=rl.beta_policy_old,
            beta_old_policy=rl.beta_old_policy,
            importance=importance_weights(old, engine_logprobs, rl.importance_cap),
        )
        zero = torch.zeros(1, device=self.device)
        mismatch = torch.where(mask, (old - engine_logprobs).abs(), zero)
        ratio = torch.where(mask, parts.ratio.detach(), zero + 1.0)
        sums = {
            "sum/tokens": float(mask.sum()),
            "sum/policy_loss": float((parts.policy.detach() * mask).sum()),
            "sum/kl_policy_old": float((parts.kl_policy_old.detach() * mask).sum()),
            "sum/kl_old_policy": float(((old + parts.kl_old_policy.detach()) * mask).sum()),
            "sum/nll": float((-old * mask).sum()),
            "sum/clipped": float((parts.clipped * mask).sum()),
            "sum/ratio": float((ratio * mask).sum()),
            "max/ratio": float(ratio.max()),
            "max/mismatch": float(mismatch.max()),
            "sum/mismatch": float(mismatch.sum()),
        }
        return (parts.total * mask).sum(), sums

    def _logprobs(self, part: TokenBatch, temperature: float) -> torch.Tensor:
        """[S, T-1] log-probability of each next token under the sampling law at `temperature`."""
        tokens = torch.from_numpy(part.tokens).to(self.device)
        attention = torch.arange(tokens.shape[1], device=self.device) < torch.from_numpy(part.lengths).to(
            self.device
        ).unsqueeze(1)
        logits = self.engine(input_ids=tokens, attention_mask=attention, use_cache=False).logits[:, :-1].float()
        if temperature not in (0.0, 1.0):
            logits = logits / temperature
        return torch.gather(logits.log_softmax(-1), 2, tokens[:, 1:, None]).squeeze(2)

    def _step(self, loss: torch.Tensor, lr: float, *, boundary: bool) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        self.engine.set_gradient_accumulation_boundary(boundary)
        self.engine.backward(loss)
        self.engine.step()


def deepspeed_config(config: Config, grad_clip: float) -> dict[str, Any]:
    """DeepSpeed's own configuration. Micro-batches are ours, so accumulation stays 1 and scales nothing."""
    learner = config.learner
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": grad_clip,
        "zero_optimization": {"stage": learner.zero_stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": torch_dtype(learner.dtype) is torch.bfloat16},
        "steps_per_print": 10**9,
    }


def merge_ranks(results: list[dict[str, float]]) -> dict[str, float]:
    """Averages the `sum/` entries of all ranks over their tokens, keeps the `max/` entries."""
    totals: dict[str, float] = {}
    for result in results:
        _merge(totals, result)
    tokens = max(totals.pop("sum/tokens"), 1.0)
    seconds = max(result["seconds"] for result in results)
    means = {key.removeprefix("sum/"): value / tokens for key, value in totals.items() if key.startswith("sum/")}
    peaks = {f"{key.removeprefix('max/')}_max": value for key, value in totals.items() if key.startswith("max/")}
    return means | peaks | {"tokens": tokens, "seconds": seconds}


def _merge(totals: dict[str, float], new: dict[str, float]) -> None:
    for key, value in new.items():
        old = totals.get(key)
        totals[key] = value if old is None else (max(old, value) if key.startswith("max/") else old + value)
