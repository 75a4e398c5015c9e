"""The trained network arranged for sampling: the numbers of `SetDenoiser.network`, with less work in every call.

- The noise levels are known: their FiLM is computed once and goes into the layer norm itself.
- Cross-attention reads one or two tokens, so its softmax is a gate. With Δ the register token minus the query token,

      out = W_o (v + sigmoid(q·Δk / √h) Δv),   q = W_q x

  and W_q and W_o belong to what depends on the query alone: per head one vector that reads x and one that is added.
  Two products of hidden x hidden for each row, layer and call become two of hidden x heads. With one token the gate
  is 1 and a constant is added. All of it, in every layer, is one affine map of the query.
- Guided and unguided calls are one batch, which parts only after the first self-attention: until then no row has
  seen a query.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r4t.diffusion.denoiser import Block, DenoiserConfig, SetDenoiser


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

    What is computed here is of the weights as they are now: after they change, make a new one.
    sigmas: [N] the noise levels, named by their place in every call. Dropout is off. compiled: calls go through
    `torch.compile`, which takes about a minute for every new batch size and needs a C++ compiler on CPU.
    """

    query_weight: Tensor
    query_bias: Tensor

    def __init__(
        self, denoiser: SetDenoiser, sigmas: Tensor, dtype: torch.dtype | None = None, compiled: bool = False
    ) -> None:
        super().__init__()
        weights = denoiser.positions
        self.dtype = dtype or weights.dtype
        with torch.no_grad():
            films = [denoiser.modulation(sigma[None]) for sigma in sigmas.to(weights)]
            weight, bias = _query_map(denoiser)
        self._films = [
            [(scale.flatten().to(self.dtype), shift.flatten().to(self.dtype)) for scale, shift in level]
            for level in films
        ]
        self.register_buffer("query_weight", weight.to(self.dtype), persistent=False)
        self.register_buffer("query_bias", bias.to(self.dtype), persistent=False)
        held = denoiser if self.dtype == weights.dtype else copy.deepcopy(denoiser).to(self.dtype)
        self.denoiser = held.eval()
        self._body = torch.compile(self._answer, dynamic=False) if compiled else self._answer

    def context(self, queries: Tensor, guided: bool = False) -> list[Context]:
        """[B, d] query vectors -> what every layer adds of them; guided: followed by B times that of no query."""
        flat = F.linear(queries.to(self.dtype), self.query_weight, self.query_bias)
        if guided:
            flat = torch.cat([flat, self.query_bias.expand_as(flat)])  # no query is the zero vector
        layers = flat.unflatten(1, (len(self.denoiser.blocks), -1)).unbind(1)
        return [_parted(layer, self.denoiser.config) for layer in layers]

    def forward(self, scaled: Tensor, level: int, context: list[Context], copies: int = 1) -> Tensor:
        """[B, L, d] inputs scaled by c_in -> [copies · B, L, d]: the answers to the first B contexts, then the rest."""
        return self._body(scaled.to(self.dtype), self._films[level], context, copies)

    def _answer(
        self, scaled: Tensor, films: list[tuple[Tensor, Tensor]], context: list[Context], copies: int
    ) -> Tensor:
        net = self.denoiser
        x = net.rows_in(scaled) + net.positions
        for place, (block, film, given) in enumerate(zip(_blocks(net), films, context, strict=True)):
            x = x + _self_attention(block, x, *film)
            if place == 0 and copies > 1:
                x = x.repeat(copies, 1, 1)
            x = _cross_attention(block, x, given)
            x = x + block.mlp_out(F.gelu(block.mlp_in(block.norm_mlp(x))))
        return net.rows_out(net.norm_out(x))


def _query_map(denoiser: SetDenoiser) -> tuple[Tensor, Tensor]:
    """The affine map from a query to every layer's context, flattened: weight [layers · width, d], bias."""
    dim = denoiser.config.dim
    zero_first = torch.eye(dim + 1, dim).roll(1, dims=0)  # the zero vector, then each unit vector
    unit = zero_first.to(denoiser.positions)[:, None]
    if denoiser.register is not None:
        unit = torch.cat([unit, denoiser.register.expand(dim + 1, 1, -1)], dim=1)
    flat = torch.cat([_flat_context(block, unit) for block in _blocks(denoiser)], dim=1)
    return (flat[1:] - flat[0]).t().contiguous(), flat[0]


def _flat_context(block: Block, tokens: Tensor) -> Tensor:
    """tokens: [B, 1 or 2, d], the query's and perhaps the register's -> the parts of a `Context`, side by side."""
    keys, values = block.keys_values(tokens)  # [B, heads, tokens, hidden / heads]
    base = block.cross_out(values[:, :, 0].flatten(1))
    if tokens.shape[1] == 1:
        return base
    heads, width = keys.shape[1], keys.shape[3]
    key = (keys[:, :, 1] - keys[:, :, 0]) * width**-0.5
    value = values[:, :, 1] - values[:, :, 0]
    read = torch.einsum("bhw,hwx->bxh", key, block.cross_q.weight.unflatten(0, (heads, width)))
    bias = torch.einsum("bhw,hw->bh", key, block.cross_q.bias.unflatten(0, (heads, width)))
    given = torch.einsum("bhw,xhw->bhx", value, block.cross_out.weight.unflatten(1, (heads, width)))
    return torch.cat([base, read.flatten(1), bias, given.flatten(1)], dim=1)


def _parted(flat: Tensor, config: DenoiserConfig) -> Context:
    """[B, width] of `_flat_context` as views of its parts."""
    if not config.register_token:
        return Context(flat[:, None])
    hidden, heads = config.hidden, config.heads
    base, read, bias, given = flat.split([hidden, hidden * heads, heads, heads * hidden], dim=1)
    return Context(
        base[:, None], read.unflatten(1, (hidden, heads)), bias[:, None], given.unflatten(1, (heads, hidden))
    )


def _blocks(denoiser: SetDenoiser) -> list[Block]:
    return cast(list[Block], list(denoiser.blocks))


def _self_attention(block: Block, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    normed = F.layer_norm(x, block.norm_self.normalized_shape, scale, shift)
    q, k, v = block.self_qkv(normed).unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
    return block.self_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _cross_attention(block: Block, x: Tensor, context: Context) -> Tensor:
    base, read, bias, given = context
    if read is None or bias is None or given is None:
        return x + base
    gates = torch.sigmoid(torch.baddbmm(bias, block.norm_cross(x), read))
    return torch.baddbmm(x + base, gates, given)
