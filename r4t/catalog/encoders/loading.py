"""An encoder by its name."""

from __future__ import annotations

from pathlib import Path

from r4t.catalog.encoders.base import Encoder
from r4t.config.data import PACKAGED_ENCODERS, PATH_ENCODERS
from r4t.errors import UserError, did_you_mean

ENCODERS = (*PACKAGED_ENCODERS, *PATH_ENCODERS)


def load_encoder(name: str, dim: int | None = None, path: Path | None = None, model: str | None = None) -> Encoder:
    """The encoder of that name, cut to `dim` columns (None: all of them).

    `path` holds the files of those in `PATH_ENCODERS`, `model` names the architecture of an open_clip checkpoint.
    Raises UserError for an unknown name, a width it does not have, a package that is not installed, unusable files.
    """
    if name not in ENCODERS:
        raise UserError(f"unknown encoder '{name}'{did_you_mean(name, ENCODERS)}: use one of {', '.join(ENCODERS)}")
    if name == "wordllama":
        from r4t.catalog.encoders.wordllama import WordLlamaEncoder

        return WordLlamaEncoder(dim)
    if name == "minilm":
        from r4t.catalog.encoders.minilm import MiniLMEncoder

        return MiniLMEncoder(dim)
    if path is None:
        raise UserError(
            f"encoder '{name}' has no files: set encoder.path, or use one of {', '.join(PACKAGED_ENCODERS)}"
        )
    return _from_path(name, dim, path, model)


def _from_path(name: str, dim: int | None, path: Path, model: str | None) -> Encoder:
    if name == "sentence_transformers":
        from r4t.catalog.encoders.sentence import SentenceTransformersEncoder

        return SentenceTransformersEncoder(path, dim)
    if name == "precomputed":
        from r4t.catalog.encoders.precomputed import PrecomputedEncoder

        return PrecomputedEncoder(path, dim)
    if model is None:
        raise UserError("encoder 'open_clip' needs encoder.model, the architecture of its weights, such as ViT-B-32")
    from r4t.catalog.encoders.clip import OpenClipEncoder

    return OpenClipEncoder(path, model, dim)
