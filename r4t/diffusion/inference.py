"""The trained network arranged for sampling: the numbers of `SetDenoiser.network`, with less work in every call.

- The noise levels are known: their FiLM is computed once and goes into the layer norm itself.
- Cross-attention reads one or two tokens, so its softmax is a gate. With Δ the register token minus the query token,

      out = W_o (v + sigmoid(q·Δk / √h) Δv),   q = W_q x

  and W_q and W_o belong to what depends on the query alone: per head one vector that reads x and one that is added.
  Two products of hidden x hidden for each row, layer and call become two of hidden x heads. With one token the gate
  is 1 and a constant is added.
- Guided and unguided calls are one batch, which parts only after the first self-attention: until then no row has
  seen a query.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r4t.diffusion.denoiser import Block, SetDenoiser


class Context(NamedTuple):
    """What one layer's cross-attention makes of B queries; without a register token only `base`."""

    base: Tensor
    """[B, 1, hidden] what every row is given."""
    read: Tensor | None = None
    """[B, hidden, heads] the gates' weights."""
    bias: Tensor | None = None
    """[B, 1, heads] the gates' biases."""
    given: Tensor | None = None
    """[B, heads, hidden] what an open gate adds."""


class InferenceNetwork(nn.Module):
    """F at fixed noise levels. Shares the weights of `denoiser`, or holds a copy where `dtype` is another than theirs.

    sigmas: [N] the noise levels, named by their place in every call. Dropout is off.
    """

    def __init__(self, denoiser: SetDenoiser, sigmas: Tensor, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        weights = denoiser.positions
        self.dtype = dtype or weights.dtype
        with torch.no_grad():
            films = [denoiser.modulation(sigma[None]) for sigma in sigmas.to(weights)]
        self._films = [[(scale.flatten().to(self.dtype), shift.flatten().to(self.dtype)) for scale, shift in level]
                       for level in films]  # fmt: skip
        held = denoiser if self.dtype == weights.dtype else copy.deepcopy(denoiser).to(self.dtype)
        self.denoiser = held.eval()

    def context(self, queries: Tensor) -> list[Context]:
        """[B, d] query vectors (zeros mean "no query") -> what every layer adds of them."""
        tokens = queries.to(self.dtype)[:, None]
        register = self.denoiser.register
        if register is not None:
            tokens = torch.cat([tokens, register.expand(len(tokens), 1, -1)], dim=1)
        return [_context(block, tokens) for block in self._blocks()]

    def forward(self, scaled: Tensor, level: int, context: list[Context], copies: int = 1) -> Tensor:
        """[B, L, d] inputs scaled by c_in -> [copies · B, L, d]: the answers to the first B contexts, then the rest."""
        net = self.denoiser
        x = net.rows_in(scaled.to(self.dtype)) + net.positions
        for place, (block, film, given) in enumerate(zip(self._blocks(), self._films[level], context, strict=True)):
            x = x + _self_attention(block, x, *film)
            if place == 0 and copies > 1:
                x = x.repeat(copies, 1, 1)
            x = _cross_attention(block, x, given)
            x = x + block.mlp_out(F.gelu(block.mlp_in(block.norm_mlp(x))))
        return net.rows_out(net.norm_out(x))

    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.denoiser.blocks))


def stacked(first: list[Context], second: list[Context]) -> list[Context]:
    """The contexts of B queries followed by those of B more, or by those of one for each of the B."""
    return [
        Context(*(_both(a, b) for a, b in zip(one, two, strict=True))) for one, two in zip(first, second, strict=True)
    ]


def _both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return None
    return torch.cat([first, second.expand_as(first)])


def _context(block: Block, tokens: Tensor) -> Context:
    """tokens: [B, 1 or 2, d], the query's and perhaps the register's."""
    keys, values = block.keys_values(tokens)  # [B, heads, tokens, hidden / heads]
    base = block.cross_out(values[:, :, 0].flatten(1))[:, None]
    if tokens.shape[1] == 1:
        return Context(base)
    heads, width = keys.shape[1], keys.shape[3]
    key = (keys[:, :, 1] - keys[:, :, 0]) * width**-0.5
    value = values[:, :, 1] - values[:, :, 0]
    reading = block.cross_q.weight.unflatten(0, (heads, width))
    read = torch.einsum("bhw,hwx->bxh", key, reading)
    bias = (key * block.cross_q.bias.view(heads, width)).sum(dim=-1)[:, None]
    given = torch.einsum("bhw,xhw->bhx", value, block.cross_out.weight.unflatten(1, (heads, width)))
    return Context(base, read.contiguous(), bias, given.contiguous())


def _self_attention(block: Block, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    normed = F.layer_norm(x, x.shape[-1:], scale, shift)
    q, k, v = block.self_qkv(normed).unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
    return block.self_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _cross_attention(block: Block, x: Tensor, context: Context) -> Tensor:
    base, read, bias, given = context
    if read is None or bias is None or given is None:
        return x + base
    gates = torch.sigmoid(torch.baddbmm(bias, block.norm_cross(x), read))
    return torch.baddbmm(x + base, gates, given)
