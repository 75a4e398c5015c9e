"""The compiled retriever: a diffusion model draws all directions of a set at once, with no language model."""

from __future__ import annotations

import numpy as np
import torch

from r4t.catalog.index import Index
from r4t.diffusion.sampler import SetSampler
from r4t.methods.base import QueryBatch
from r4t.retriever.spread import spread_rows
from r4t.sets.decode import keep_rows
from r4t.types import RetrievedSets

CHUNK = 256  # queries whose rows are drawn together


class Diffusion:
    """R4T-Diffusion, or the same compiled from the untrained policy: draw L rows, search each, keep k of them.

    spread: between alignment and diversity, as in `r4t.retriever.spread`; 1 is as trained.
    """

    def __init__(self, name: str, sampler: SetSampler, index: Index, k: int, n: int, spread: float = 1.0) -> None:
        if sampler.denoiser.config.rows < k:
            raise ValueError(f"the retriever draws {sampler.denoiser.config.rows} rows, fewer than fanout.k = {k}")
        self.name, self.sampler, self.index, self.k, self.n, self.spread = name, sampler, index, k, n, spread

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets:
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.from_numpy(np.ascontiguousarray(queries.vectors))
        drawn = [self.sampler.sample(part, generator).sets.float().cpu().numpy() for part in vectors.split(CHUNK)]
        rows = np.concatenate(drawn)  # [B, L, d]
        rows /= np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
        if self.spread != 1:
            rows = spread_rows(rows, queries.vectors, self.spread)
        _, items = self.index.search(rows.reshape(-1, rows.shape[-1]), self.n)
        items = items.reshape(*rows.shape[:2], self.n)
        kept = keep_rows(items[:, :, 0], self.k)
        return RetrievedSets(
            items=np.take_along_axis(items, kept[:, :, None], axis=1),
            directions=np.take_along_axis(rows, kept[:, :, None], axis=1),
        )
