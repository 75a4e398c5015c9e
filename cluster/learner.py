"""The policy learner: a DeepSpeed rank that warm-starts the policy and trains it with Soft-GRPO."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import pad

from cluster.adapters import add_adapters, trainable
from cluster.checkpoint import load_state, save_state
from cluster.devices import torch_device, torch_dtype
from cluster.launch import start_deepspeed
from cluster.zero import BUCKET_BYTES, deepspeed_config, full_weights, weight_digests
from r4t.batch import TokenBatch
from r4t.config import Config
from r4t.full_disk import full_disk_named
from r4t.grpo import importance_weights, next_token_logprobs, soft_grpo_loss
from r4t.lean_imports import lean_imports
from r4t.micro_batches import split_tokens
from r4t.types import Floats, Ints
from r4t.update_stats import UpdateStats


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
        self.rank, self.world, self.config = rank, world, config
        self.device = torch_device(config)
        self.deepspeed = start_deepspeed(config)
        self.engine: Any = None
        self.sender: Any = None
        self.sent, self.moved = -1, True  # the version sent last, and whether the weights changed since

    def begin(self, model_dir: Path, phase: Phase) -> int:
        """*Collective.* Loads a Hugging Face directory under a fresh optimiser. Returns how many parameters train."""
        with lean_imports():
            from transformers import AutoModelForCausalLM  # here: the driver imports this file too, and would wait
            from transformers.utils import logging

        logging.disable_progress_bar()
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True)
        if self.config.policy.lora.rank:
            add_adapters(model, self.config.policy.lora, self.config.seed)
        if self.config.learner.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        trained = [parameter for _, parameter in trainable(model)]
        parameters = sum(parameter.numel() for parameter in trained)
        optimizer = torch.optim.AdamW(trained, lr=phase.lr, betas=phase.betas, weight_decay=phase.weight_decay)
        self.engine, _, _, _ = self.deepspeed.initialize(
            model=model, optimizer=optimizer, config=deepspeed_config(self.config, phase.grad_clip)
        )
        return parameters

    def supervise(self, corpus: TokenBatch, start: int, stop: int, lrs: list[float]) -> float:
        """*Collective.* Warm-start steps `start ... stop`: cross-entropy of the answers. Returns the mean loss."""
        self.engine.train()
        losses = []
        for step, lr in zip(range(start, stop), lrs, strict=True):
            rng = np.random.default_rng([self.config.seed, step])
            chosen = rng.integers(0, len(corpus.lengths), size=self.config.warm_start.batch)
            scale = self.world / int(corpus.mask[chosen].sum())
            parts = self._share(corpus, chosen)
            total = 0.0
            for i, part in enumerate(parts):
                loss = -(self._logprobs(part, temperature=1.0) * self._to(part.mask)).sum() * scale
                self._step(loss, lr, boundary=i == len(parts) - 1)
                total += float(loss.detach())
            losses.append(total)
        return float(np.mean(losses))

    def update(self, batch: TokenBatch, step: int, lr: float) -> UpdateStats:
        """*Collective.* Takes `updates_per_batch` optimiser steps (Eq. 8) against the policy of before the first.

        The loss is averaged over the tokens of all ranks, so the gradient depends neither on their number nor on
        `learner.micro_tokens`. Returns this rank's statistics, for `merge_ranks`.
        """
        started = time.perf_counter()
        self.moved = True
        order = np.random.default_rng([self.config.seed, step, 7]).permutation(len(batch.lengths))
        chunks = np.array_split(order, self.config.rl.updates_per_batch)
        shares = [self._share(batch, chunk) for chunk in chunks]
        before: list[list[torch.Tensor | None]] = [[None] * len(shares[0])]  # nothing has moved: see `_loss`
        before += [[self._old(part) for part in share] for share in shares[1:]]
        stats = UpdateStats()
        self.engine.train()
        for chunk, share, old in zip(chunks, shares, before, strict=True):
            scale = self.world / max(int(batch.mask[chunk].sum()), 1)
            for i, (part, part_old) in enumerate(zip(share, old, strict=True)):
                self._step(self._loss(part, part_old, stats) * scale, lr, boundary=i == len(share) - 1)
            norm = self.engine.get_global_grad_norm()
            if norm is not None:
                stats.add_peaks(grad_norm=float(norm))
        stats.seconds = time.perf_counter() - started
        return stats

    def logprobs(self, batch: TokenBatch) -> Floats:
        """*Collective.* [S, T-1] see `_logprobs`, at `rl.temperature`."""
        return self._old(batch).cpu().numpy()

    def export(self, path: Path, bucket_bytes: int = BUCKET_BYTES) -> None:
        """*Collective.* Rank 0 writes the whole weights to `path` (safetensors, Hugging Face naming)."""
        weights = full_weights(self.engine.module, self._stage, keep=self.rank == 0, bucket_bytes=bucket_bytes)
        if self.rank == 0:
            with full_disk_named(path):
                save_file(weights, path, metadata={"format": "pt"})

    def open_transfer(self, kind: str, rollouts: list[Any]) -> None:
        """*Collective.* Meets the rollout workers for GPU weight transfers (`nccl` or `ipc`)."""
        from cluster.weights_device import DeviceSender, EngineClient, LearnerSource

        client = EngineClient(rollouts, self.config.cluster.call_timeout, self.config.rollout.tensor_parallel)
        self.sender = DeviceSender(kind, self.rank, LearnerSource(self.engine.module, self._stage), client)

    def send_weights(self, version: int) -> int:
        """*Collective.* Sends the weights to the rollout workers met before. Returns the bytes.

        Raises RuntimeError for a version sent before, once an update has changed the weights.
        """
        if version == self.sent and self.moved:
            raise RuntimeError(
                f"weights {version} are needed, but the learner has moved on: resume from the checkpoint"
            )
        self.sent, self.moved = version, False
        return self.sender.send(version)

    def weight_digest(self) -> dict[str, str]:
        """*Collective.* Hash of every parameter as a rollout engine must hold it; empty on ranks other than 0."""
        dtype = torch_dtype(self.config.rollout.dtype)
        return weight_digests(self.engine.module, self._stage, dtype, keep=self.rank == 0)

    def save(self, folder: Path) -> None:
        """*Collective.* Writes this rank's part of a checkpoint, which any number of ranks can load."""
        save_state(folder, self.engine.module, self.engine.optimizer, zero_stage=self._stage, rank=self.rank)

    def load(self, folder: Path) -> None:
        """*Collective.* Restores a checkpoint into the policy that `begin` loaded: trained weights and moments."""
        load_state(folder, self.engine.module, self.engine.optimizer, zero_stage=self._stage, rank=self.rank)

    @property
    def _stage(self) -> int:
        return self.config.learner.zero_stage

    def _share(self, batch: TokenBatch, rows: Ints) -> Sequence[TokenBatch]:
        """This rank's micro-batches of the sequences `rows`."""
        cap = self.config.learner.micro_tokens
        mine = split_tokens(rows, batch.lengths, ranks=self.world, cap=cap)[self.rank]
        return [batch.take(piece) if len(piece) else batch.filler() for piece in mine]

    def _old(self, part: TokenBatch) -> torch.Tensor:
        self.engine.eval()
        with torch.no_grad():
            return self._logprobs(part, self.config.rl.temperature)

    def _loss(self, part: TokenBatch, old: torch.Tensor | None, stats: UpdateStats) -> torch.Tensor:
        """Eq. 8, summed over the trained tokens of a micro-batch. `old` None: the old policy is the present one."""
        rl = self.config.rl
        mask, sampled = self._to(part.mask), self._to(part.engine_logprobs)
        logprobs = self._logprobs(part, rl.temperature)
        if old is None:
            old = logprobs.detach()
        parts = soft_grpo_loss(
            logprobs,
            old,
            self._to(part.advantages),
            clip=rl.clip,
            beta_policy_old=rl.beta_policy_old,
            beta_old_policy=rl.beta_old_policy,
            importance=importance_weights(old, sampled, rl.importance_cap),
        )
        stats.observe(parts, old, sampled, mask, cap=rl.importance_cap)
        return (parts.total * mask).sum()

    def _logprobs(self, part: TokenBatch, temperature: float) -> torch.Tensor:
        """[S, T-1] log-probability of each next token under the sampling law at `temperature`.

        Columns before the first answer are 0: no logits are computed where every sequence still reads its prompt.
        """
        tokens, attention = self._to(part.tokens), self._to(part.attention)
        first = int(part.mask.any(axis=0).argmax())
        logits = self.engine(
            input_ids=tokens, attention_mask=attention, use_cache=False, logits_to_keep=tokens.shape[1] - first
        ).logits
        return pad(next_token_logprobs(logits, tokens[:, first:], temperature), (first, 0))

    def _step(self, loss: torch.Tensor, lr: float, *, boundary: bool) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        self.engine.set_gradient_accumulation_boundary(boundary)
        self.engine.backward(loss)
        self.engine.step()

    def _to(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)
