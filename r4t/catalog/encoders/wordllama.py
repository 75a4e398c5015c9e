"""WordLlama: static token vectors, the fastest encoder here."""

from __future__ import annotations

import numpy as np

from r4t.catalog.encoders.base import Encoder, checked_dim
from r4t.catalog.encoders.package import package_folder, plain_tokenizer
from r4t.types import Floats

CHUNK = 256  # texts tokenised at a time: the cache holds their vectors


class WordLlamaEncoder(Encoder):
    """Mean of static token vectors; Matryoshka, so the first `dim` of 256 columns are an encoder of their own."""

    name = "wordllama"
    alone = True

    def __init__(self, dim: int | None) -> None:
        from safetensors.numpy import load_file

        # The package's own loader looks in the wrong folder when offline and reconfigures logging on import.
        folder = package_folder("wordllama", "wordllama")
        table = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
        self.dim = checked_dim(self.name, dim, table.shape[1])
        self._table = np.ascontiguousarray(table[:, : self.dim], dtype=np.float32)
        self._table.flags.writeable = False
        self._tokenizer = plain_tokenizer(folder / "tokenizers" / "l2_supercat_tokenizer_config.json")

    def _embed(self, texts: list[str]) -> Floats:
        parts = [self._embed_chunk(texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]
        return np.concatenate(parts)

    def _embed_chunk(self, texts: list[str]) -> Floats:
        ids = [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        counts = np.array([len(row) for row in ids])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        sums = np.add.reduceat(self._table[np.concatenate(ids).astype(np.int64)], starts, axis=0)
        return np.asarray(sums / counts[:, None], dtype=np.float32)

    def _state(self) -> list[bytes]:
        return [self._tokenizer.to_str().encode(), self._table.tobytes()]
