"""The encoder that a configuration and a prepare folder describe together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r4t.catalog.encoders.base import Encoder
from r4t.catalog.encoders.loading import load_encoder
from r4t.catalog.encoders.reduction import ReducedEncoder, load_projection
from r4t.config import Config
from r4t.config import Encoder as Settings
from r4t.errors import UserError
from r4t.lineage import read_manifest


def base_encoder(settings: Settings) -> Encoder:
    """The configured encoder before a projection: cut to `dim`, or with every column where pca comes after it."""
    dim = None if settings.reduce == "pca" else settings.dim
    return load_encoder(settings.name, dim, settings.path, settings.model)


def run_encoder(config: Config, prepare_folder: Path) -> Encoder:
    """The encoder of a run's shared space: what made the vectors in `prepare_folder`, its projection included.

    Raises UserError when the stage has not run, or when the encoder is not the one it was run with.
    """
    recorded = (read_manifest(prepare_folder) or {}).get("encoder")
    if recorded is None:
        raise UserError(
            f"{prepare_folder} does not say which encoder made it: run `r4t run CONFIG --stage prepare` first"
        )
    encoder = base_encoder(config.encoder)
    if config.encoder.reduce == "pca":
        encoder = ReducedEncoder(encoder, load_projection(prepare_folder, encoder.dim))
    if encoder.fingerprint() != recorded["fingerprint"]:
        raise UserError(
            f"the vectors in {prepare_folder} are of another encoder ({_describe(recorded)}) than this configuration's"
            f" ({_describe(encoder_record(encoder, config.encoder))}): restore its files (encoder.path) and keys, or"
            " give the run a new directory with --run-dir"
        )
    return encoder


def word_encoder(config: Config, prepare_folder: Path) -> Encoder:
    """The run's encoder for single words: with the columns too that `encoder.dim` cuts off, where it cuts."""
    encoder = run_encoder(config, prepare_folder)
    if config.encoder.reduce == "pca":
        return encoder
    return load_encoder(config.encoder.name, None, config.encoder.path, config.encoder.model)


def encoder_record(encoder: Encoder, settings: Settings) -> dict[str, Any]:
    """What the prepare manifest says of the encoder. `fingerprint` covers all the rest."""
    return {
        "name": encoder.name,
        "model": settings.model,
        "content": encoder.content,
        "dim": encoder.dim,
        "reduce": settings.reduce,
        "fingerprint": encoder.fingerprint(),
    }


def _describe(record: dict[str, Any]) -> str:
    return f"{record['name']}, {record['dim']} columns, fingerprint {record['fingerprint'][:12]}"
