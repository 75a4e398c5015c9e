"""Draws sets from a trained denoiser: guidance, noise grid and solver put together for speed at one query."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r4t.config import Sampler
from r4t.diffusion import precondition
from r4t.diffusion.denoiser import SetDenoiser
from r4t.diffusion.schedule import sigma_grid
from r4t.diffusion.solvers import SOLVERS, Denoise, gaussian


@dataclass(frozen=True, slots=True)
class Samples:
    sets: Tensor
    """[B, L, d] generated rows, of about unit norm."""
    nfe: int
    """Network evaluations per set. A guided step counts two: with and without the query."""


class SetSampler:
    """Sampler bound to one denoiser and one setting. What does not depend on the query is computed here, once."""

    def __init__(self, denoiser: SetDenoiser, settings: Sampler) -> None:
        self.denoiser = denoiser.eval()
        self.guidance = settings.guidance
        self.solver = SOLVERS[settings.name]
        top = settings.sigma_max or denoiser.config.sigma_max
        self.sigmas = sigma_grid(settings.steps, top, settings.sigma_end, settings.rho)
        calls = 2 * settings.steps - 1 if settings.name == "heun" else settings.steps
        self.nfe = calls * (2 if self.guidance else 1)
        with torch.inference_mode():
            grid = self.sigmas.to(denoiser.positions)
            self._films = [denoiser.modulation(sigma[None]) for sigma in grid]
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

    def _denoise_for(self, queries: Tensor) -> Denoise:
        """The denoiser of these queries, guided as (1 + w)·D(x; σ, z) - w·D(x; σ, 0) in one stacked batch."""
        w, batch = self.guidance, len(queries)
        context = self.denoiser.condition(torch.cat([queries, torch.zeros_like(queries)]) if w else queries)

        def denoise(x: Tensor, i: int) -> Tensor:
            c_in, c_skip, c_out = self._coefficients[i]
            scaled = c_in * x
            if not w:
                return c_skip * x + c_out * self.denoiser.network(scaled, self._films[i], context)
            output = self.denoiser.network(scaled.repeat(2, 1, 1), self._films[i], context)
            return c_skip * x + c_out * torch.lerp(output[batch:], output[:batch], 1 + w)

        return denoise
