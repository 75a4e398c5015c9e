"""The set denoiser: a pre-LN transformer over the L rows of a set, conditioned on one query vector (Table 3).

    x += SelfAttention(FiLM(LN(x), noise))     rows see each other, so that a set is generated jointly
    x += CrossAttention(LN(x), query)          keys and values read the raw query vector
    x += MLP(LN(x))

What depends on the query alone (`condition`) or on the noise level alone (`modulation`) is computed apart from the
rest, so that a sampler pays for it once and not at every step.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r4t.diffusion import precondition
from r4t.errors import UserError

if TYPE_CHECKING:
    from r4t.config import Retriever

KeysValues = list[tuple[Tensor, Tensor]]
"""Per layer: keys and values of the context tokens, each [B, heads, tokens, hidden / heads]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserConfig:
    """Everything needed to build the network again."""

    rows: int
    dim: int
    hidden: int
    mlp: int
    layers: int
    heads: int
    dropout: float
    attention_dropout: float
    noise_dim: int
    register_token: bool
    sigma_data: float
    sigma_min: float
    sigma_max: float

    @classmethod
    def of(cls, retriever: Retriever, dim: int, sigma_data: float) -> DenoiserConfig:
        """Raises UserError for widths that do not divide."""
        if retriever.hidden % retriever.heads:
            raise UserError(
                f"retriever.hidden = {retriever.hidden} is not a multiple of retriever.heads = {retriever.heads}:"
                " change one of them"
            )
        if retriever.noise_dim % 2:
            raise UserError(f"retriever.noise_dim = {retriever.noise_dim} is odd: it holds sines and cosines in pairs")
        given = retriever.model_dump()
        names = set(cls.__slots__) - {"dim", "sigma_data"}
        return cls(dim=dim, sigma_data=sigma_data, **{name: given[name] for name in names})

    def to_json(self) -> dict[str, float]:
        return asdict(self)


class NoiseEmbedding(nn.Module):
    """Fourier features of c_noise, then a two-layer network: [N] -> [N, width]."""

    frequencies: Tensor

    def __init__(self, width: int, max_frequency: float = 2e4) -> None:
        super().__init__()
        frequencies = torch.logspace(0, math.log10(max_frequency), width // 2)
        self.register_buffer("frequencies", math.pi * frequencies, persistent=False)
        self.net = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, noise: Tensor) -> Tensor:
        angles = noise[:, None] * self.frequencies
        return self.net(torch.cat([angles.sin(), angles.cos()], dim=-1))


class Block(nn.Module):
    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.heads = config.heads
        self.attention_dropout = config.attention_dropout
        self.norm_self, self.norm_cross, self.norm_mlp = (nn.LayerNorm(hidden) for _ in range(3))
        self.film = nn.Linear(config.noise_dim, 2 * hidden)
        self.self_qkv, self.self_out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.cross_q, self.cross_out = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.cross_kv = nn.Linear(config.dim, 2 * hidden)
        self.mlp_in, self.mlp_out = nn.Linear(hidden, config.mlp), nn.Linear(config.mlp, hidden)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def modulation(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """FiLM folded into the layer norm's own affine map: [N, noise_dim] -> scale, shift, each [N, 1, hidden]."""
        scale, shift = self.film(F.silu(noise))[:, None].chunk(2, dim=-1)
        return self.norm_self.weight * (1 + scale), self.norm_self.bias * (1 + scale) + shift

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """[B, tokens, dim] -> keys, values, each [B, heads, tokens, hidden / heads]."""
        keys, values = self.cross_kv(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return keys, values

    def forward(self, x: Tensor, modulation: tuple[Tensor, Tensor], keys_values: tuple[Tensor, Tensor]) -> Tensor:
        scale, shift = modulation
        normed = torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), scale)
        q, k, v = self.self_qkv(normed).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.dropout(self.self_out(self._attend(q, k, v)))
        q = self.cross_q(self.norm_cross(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        x = x + self.dropout(self.cross_out(self._attend(q, *keys_values)))
        return x + self.dropout(self.mlp_out(self.dropout(F.gelu(self.mlp_in(self.norm_mlp(x))))))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        p = self.attention_dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p).transpose(1, 2).flatten(2)


class SetDenoiser(nn.Module):
    """D(x; σ, z) of Eq. 9 over sets of L rows of width d."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.noise = NoiseEmbedding(config.noise_dim)
        self.rows_in = nn.Linear(config.dim, config.hidden)
        self.positions = nn.Parameter(0.02 * torch.randn(config.rows, config.hidden))
        self.register = nn.Parameter(torch.randn(config.dim) / math.sqrt(config.dim)) if config.register_token else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(config.hidden)
        self.rows_out = nn.Linear(config.hidden, config.dim)
        nn.init.zeros_(self.rows_out.weight)  # the untrained denoiser is D = c_skip·x
        nn.init.zeros_(self.rows_out.bias)

    def condition(self, queries: Tensor) -> KeysValues:
        """[B, d] query vectors (zeros mean "no query") -> the context of every layer."""
        context = queries[:, None]
        if self.register is not None:
            context = torch.cat([context, self.register.expand(len(queries), 1, -1)], dim=1)
        return [block.keys_values(context) for block in self._blocks()]

    def modulation(self, sigma: Tensor) -> list[tuple[Tensor, Tensor]]:
        """[N] noise levels -> scale and shift of every layer, each [N, 1, hidden]."""
        noise = self.noise(precondition.c_noise(sigma))
        return [block.modulation(noise) for block in self._blocks()]

    def network(self, scaled: Tensor, modulation: list[tuple[Tensor, Tensor]], context: KeysValues) -> Tensor:
        """F(c_in·x, σ, z): [B, L, d] -> [B, L, d]."""
        x = self.rows_in(scaled) + self.positions
        for block, film, keys_values in zip(self._blocks(), modulation, context, strict=True):
            x = block(x, film, keys_values)
        return self.rows_out(self.norm_out(x))

    def forward(self, scaled: Tensor, sigma: Tensor, queries: Tensor) -> Tensor:
        """F for training: inputs already scaled by c_in [B, L, d], one σ per example [B], queries [B, d]."""
        return self.network(scaled, self.modulation(sigma), self.condition(queries))

    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    def denoise(self, x: Tensor, sigma: Tensor, queries: Tensor) -> Tensor:
        """D(x; σ, z): noisy sets [B, L, d], σ [B], queries [B, d] -> clean sets [B, L, d]."""
        s, data = sigma[:, None, None], self.config.sigma_data
        output = self(precondition.c_in(s, data) * x, sigma, queries)
        return precondition.c_skip(s, data) * x + precondition.c_out(s, data) * output
