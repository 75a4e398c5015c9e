"""Exponential moving average of the weights, bias-corrected, so that it is unbiased from the first step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class EMA:
    """After t updates the average is Σ (1-β) β^(t-i) θ_i / (1 - β^t). Kept in float32 beside the model."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.names = [name for name, _ in model.named_parameters()]
        self.sums = [torch.zeros_like(p, dtype=torch.float32) for p in model.parameters()]

    @torch.no_grad()
    def update(self, parameters: Iterable[Tensor]) -> None:
        self.updates += 1
        torch._foreach_lerp_(self.sums, [p.detach().float() for p in parameters], 1 - self.decay)

    def averages(self) -> dict[str, Tensor]:
        """Name -> averaged parameter. Needs at least one update."""
        correction = 1 - self.decay**self.updates
        return {name: total / correction for name, total in zip(self.names, self.sums, strict=True)}

    def state_dict(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.sums, strict=True))

    def load_state_dict(self, state: dict[str, Tensor], updates: int) -> None:
        self.sums, self.updates = [state[name].clone() for name in self.names], updates
