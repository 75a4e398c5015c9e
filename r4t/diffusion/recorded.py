"""A sampler recorded as one graph of an accelerator: a replay costs one launch, however many calls the solver makes."""

from __future__ import annotations

import torch
from torch import Tensor

from r4t.diffusion.sampler import SetSampler
from r4t.errors import UserError

WARM_UP = 3  # runs before the recording, in which libraries allocate what may not be allocated while recording


class RecordedSampler:
    """`SetSampler.solve` for batches of one size. Raises UserError on a device that records no graphs, as the CPU."""

    def __init__(self, sampler: SetSampler, batch: int) -> None:
        weights, config = sampler.denoiser.positions, sampler.denoiser.config
        if weights.device.type == "cpu":
            raise UserError("the CPU records no graphs: leave graphs off, or give the device of an accelerator")
        self._queries = torch.zeros(batch, config.dim, device=weights.device, dtype=weights.dtype)
        self._noise = self._queries.new_zeros(sampler.draws, batch, config.rows, config.dim)
        self._graph = torch.accelerator.Graph()
        stream = torch.Stream(device=weights.device)
        with torch.no_grad(), stream:
            for _ in range(WARM_UP):
                sampler.solve(self._queries, self._noise)
            torch.accelerator.synchronize()
            with self._graph:
                self._rows = sampler.solve(self._queries, self._noise)

    def solve(self, queries: Tensor, noise: Tensor) -> Tensor:
        """As `SetSampler.solve`; the rows are a tensor of the caller's own."""
        self._queries.copy_(queries)
        self._noise.copy_(noise)
        self.replay()
        return self._rows.clone()

    def replay(self) -> None:
        """Draws again from the queries and the noise given last."""
        self._graph.replay()
