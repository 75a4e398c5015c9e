"""A denoiser small enough for unit tests, trained by nobody: its last layer is random, so that every input matters."""

from typing import Any

import numpy as np
import torch

from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser
from r4t.sets import TargetSets


def tiny_config(**changes: Any) -> DenoiserConfig:
    values: dict[str, Any] = {
        "rows": 4,
        "dim": 8,
        "hidden": 16,
        "mlp": 16,
        "layers": 2,
        "heads": 2,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "noise_dim": 8,
        "register_token": True,
        "sigma_data": 0.35,
        "sigma_min": 1e-3,
        "sigma_max": 5.0,
    }
    return DenoiserConfig(**{**values, **changes})


def random_denoiser(**changes: Any) -> SetDenoiser:
    torch.manual_seed(0)
    denoiser = SetDenoiser(tiny_config(**changes)).eval()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return denoiser


def small_targets() -> TargetSets:
    """Twelve sets of four rows for six queries, of the tiny network's width."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(20, 8)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    queries = rng.normal(size=(6, 8)).astype(np.float32)
    rows = np.stack([rng.permutation(20)[:4] for _ in range(12)])
    return TargetSets(query=np.arange(12) % 6, rows=rows, table=table, query_vectors=queries)
