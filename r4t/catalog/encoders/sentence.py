"""Any sentence-transformers directory: Transformer and Pooling, then perhaps Dense and Normalize."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from r4t.catalog.encoders.base import Encoder, checked_dim
from r4t.catalog.encoders.files import content_hash, require_folder, require_safetensors
from r4t.errors import UserError
from r4t.lineage import read_json
from r4t.types import Floats

MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
WITH_WEIGHTS = ("Transformer", "Dense")


class SentenceTransformersEncoder(Encoder):
    """A model directory read by the library that wrote it: on the CPU, in float32, from safetensors, offline.

    Raises UserError for another layout, other modules than the four above, or weights that are pickles.
    """

    name = "sentence_transformers"
    batch = 64

    def __init__(self, path: Path, dim: int | None) -> None:
        _check(path)
        self._model = _load(path)
        self._model.eval().requires_grad_(False)
        self.dim = checked_dim(self.name, dim, int(self._model.get_embedding_dimension()))
        self.content = content_hash(path)

    def _embed(self, texts: list[str]) -> Floats:
        vectors = self._model.encode(texts, batch_size=self.batch, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors[:, : self.dim], dtype=np.float32)

    def _state(self) -> list[bytes]:
        return [str(self.content).encode()]


def _load(path: Path) -> Any:
    if importlib.util.find_spec("sentence_transformers") is None:
        raise UserError(
            "encoder.name 'sentence_transformers' needs the package: pip install sentence-transformers==6.2.0"
        )
    # Imported here because it takes seconds, and no other encoder needs it.
    import torch
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(
            str(path),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    except Exception as error:  # whatever the files make the library trip over, it is the files that need a fix
        raise UserError(
            f"sentence-transformers cannot read {path} ({type(error).__name__}: {error}):"
            " save the model there again with SentenceTransformer.save_pretrained (encoder.path)"
        ) from error


def _check(path: Path) -> None:
    require_folder(path, "a sentence-transformers directory")
    if not (path / "modules.json").is_file():
        raise UserError(
            f"{path} has no modules.json: encoder.path must be a directory that SentenceTransformer.save_pretrained"
            " wrote"
        )
    for kind, folder in _modules(path):
        if kind in WITH_WEIGHTS:
            require_safetensors(folder)


def _modules(path: Path) -> Iterable[tuple[str, Path]]:
    for module in read_json(path / "modules.json"):
        package, _, kind = str(module["type"]).rpartition(".")
        # A module is named by where its class is imported from, so any other name could load any code.
        if not package.startswith("sentence_transformers.") or kind not in MODULES:
            raise UserError(
                f"{path} has a module {module['type']}: encoder 'sentence_transformers' reads {', '.join(MODULES)}"
                " only; choose another model for encoder.path"
            )
        yield kind, path / module["path"]
