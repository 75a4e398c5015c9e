"""Draws sets from a trained denoiser: guidance, noise grid and solver put together for speed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from r4t.diffusion import precondition
from r4t.diffusion.denoiser import SetDenoiser
from r4t.diffusion.inference import InferenceNetwork
from r4t.diffusion.noise import Supplied, draws
from r4t.diffusion.schedule import sigma_grid
from r4t.diffusion.solvers import SOLVERS, Denoise, gaussian

if TYPE_CHECKING:  # so that sampling needs torch alone
    from r4t.config import Sampler


@dataclass(frozen=True, slots=True)
class Samples:
    sets: Tensor
    """[B, L, d] generated rows, of about unit norm."""
    nfe: int
    """Network evaluations per set. A guided step counts two: with and without the query."""


class SetSampler:
    """Sampler bound to one denoiser and one setting. What does not depend on the query is computed here, once.

    dtype: of the network; rows and noise levels stay in the denoiser's. compiled: see `InferenceNetwork`.
    """

    def __init__(
        self, denoiser: SetDenoiser, settings: Sampler, *, dtype: torch.dtype | None = None, compiled: bool = False
    ) -> None:
        self.denoiser = denoiser.eval()
        self.guidance = settings.guidance
        self.solver = SOLVERS[settings.name]
        top = settings.sigma_max or denoiser.config.sigma_max
        self.sigmas = sigma_grid(settings.steps, top, settings.sigma_end, settings.rho)
        calls = 2 * settings.steps - 1 if settings.name == "heun" else settings.steps
        self.nfe = calls * (2 if self.guidance else 1)
        self.network = InferenceNetwork(denoiser, self.sigmas, dtype, compiled)
        data = denoiser.config.sigma_data
        coefficients = (precondition.c_in(self.sigmas, data), precondition.c_skip(self.sigmas, data))
        self._coefficients = torch.stack([*coefficients, precondition.c_out(self.sigmas, data)], dim=1).tolist()

    @torch.inference_mode()
    def sample(self, queries: Tensor, generator: torch.Generator) -> Samples:
        """Query vectors [B, d] -> one set each. The same generator state gives the same sets."""
        queries = queries.to(self.denoiser.positions)
        config = self.denoiser.config
        x = gaussian(queries.new_empty(len(queries), config.rows, config.dim), generator) * float(self.sigmas[0])
        return Samples(self.solver(self._denoise_for(queries), x, self.sigmas, generator), self.nfe)

    @functools.cached_property
    def draws(self) -> int:
        """Noise tensors that one set takes: its start, and one for every step of a stochastic solver."""
        x, generator = torch.zeros(1, 1, 1), torch.Generator()
        return 1 + draws(lambda: self.solver(lambda x, _: x, x, self.sigmas, generator))

    def solve(self, queries: Tensor, noise: Tensor) -> Tensor:
        """Query vectors [B, d] and standard normal noise [draws, B, L, d] -> sets [B, L, d], a function of both."""
        start, denoise = noise[0] * float(self.sigmas[0]), self._denoise_for(queries)
        if self.draws == 1:
            return self.solver(denoise, start, self.sigmas, torch.Generator())
        with Supplied(iter(noise[1:])):
            return self.solver(denoise, start, self.sigmas, torch.Generator())

    def _denoise_for(self, queries: Tensor) -> Denoise:
        """The denoiser of these queries, guided as (1 + w)·D(x; σ, z) - w·D(x; σ, 0) in one stacked batch."""
        w = self.guidance
        context = self.network.context(queries, guided=bool(w))

        def denoise(x: Tensor, i: int) -> Tensor:
            c_in, c_skip, c_out = self._coefficients[i]
            output = self.network(c_in * x, i, context, 2 if w else 1).to(x.dtype)
            if w:
                with_query, without = output.unflatten(0, (2, -1)).unbind()
                output = torch.lerp(without, with_query, 1 + w)
            return c_skip * x + c_out * output

        return denoise
