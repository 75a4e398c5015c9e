"""The denoising loss (Eq. 9), in the space of the network's output, where every noise level has weight one."""

from __future__ import annotations

import torch
from torch import Tensor

from r4t.diffusion import precondition
from r4t.diffusion.denoiser import SetDenoiser
from r4t.diffusion.matching import in_order, match_rows


def network_target(sets: Tensor, noise: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """What F must output: (Z - c_skip·x) / c_out with x = Z + σ·ε, written without the cancellation at small σ.

    sets, noise: [B, L, d]; sigma: [B, 1, 1].
    """
    return (sigma * sets - sigma_data**2 * noise) / (sigma_data * (sigma**2 + sigma_data**2).sqrt())


def denoising_loss(
    model: torch.nn.Module, sigma_data: float, sets: Tensor, queries: Tensor, sigma: Tensor, noise: Tensor
) -> Tensor:
    """Per-example loss [B]: λ(σ)·mean (D - Z)², computed as the mean square error of F in float32.

    model: a SetDenoiser, or an engine around one; sets, noise: [B, L, d]; queries: [B, d]; sigma: [B].
    """
    s = sigma[:, None, None]
    output = model(precondition.c_in(s, sigma_data) * (sets + s * noise), sigma, queries)
    return (output.float() - network_target(sets, noise, s, sigma_data)).square().mean(dim=(1, 2))


def matched_denoising_loss(
    model: torch.nn.Module, sigma_data: float, sets: Tensor, queries: Tensor, sigma: Tensor, noise: Tensor
) -> Tensor:
    """The same [B], with the rows of each clean set in the order nearest to the network's own denoised rows.

    Forgives an order that the noise has hidden, so that high levels no longer ask for the mean of all rows. An
    ablation: the least loss is no longer at the mean of the clean sets, and with it the link to the reverse SDE goes.
    """
    s = sigma[:, None, None]
    noisy = sets + s * noise
    output = model(precondition.c_in(s, sigma_data) * noisy, sigma, queries).float()
    clean = precondition.c_skip(s, sigma_data) * noisy + precondition.c_out(s, sigma_data) * output
    moved = (in_order(sets, match_rows(clean, sets)) - sets) / precondition.c_out(s, sigma_data)
    return (output - network_target(sets, noise, s, sigma_data) - moved).square().mean(dim=(1, 2))


def denoising_loss_in_data_space(
    model: SetDenoiser, sets: Tensor, queries: Tensor, sigma: Tensor, noise: Tensor
) -> Tensor:
    """Eq. 9 as printed, per example [B]. Loses all precision at small σ below float64; kept as the definition."""
    s = sigma[:, None, None]
    error = model.denoise(sets + s * noise, sigma, queries) - sets
    return precondition.loss_weight(sigma, model.config.sigma_data) * error.square().mean(dim=(1, 2))


def drop_condition(queries: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Replaces whole query vectors of [B, d] by the null condition, zeros, each with the given probability."""
    kept = torch.rand(len(queries), generator=generator) >= probability
    return queries * kept[:, None].to(queries)
