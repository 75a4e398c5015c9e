"""The encoder of an exported retriever, as its description and its projection say."""

from __future__ import annotations

from pathlib import Path

from r4t.catalog.encoders import Encoder, load_encoder
from r4t.catalog.encoders.reduction import REDUCTION, ReducedEncoder, load_projection
from r4t.config.data import PATH_ENCODERS
from r4t.errors import UserError
from r4t.retriever.files import Description, checked


def open_encoder(folder: Path, description: Description, path: Path | None) -> Encoder:
    """Raises UserError where the encoder's files are needed and not given, or are not those of the run."""
    record = description.encoder
    if path is None and record["name"] in PATH_ENCODERS:
        raise UserError(
            f"the encoder '{record['name']}' is not part of {folder}: give from_pretrained its files as encoder_path,"
            " or give vectors instead of texts"
        )
    reduced = record["reduce"] == "pca"
    encoder = load_encoder(record["name"], None if reduced else description.dim, path, record["model"])
    if reduced:
        checked(folder, REDUCTION)
        encoder = ReducedEncoder(encoder, load_projection(folder, encoder.dim))
    if encoder.fingerprint() != record["fingerprint"]:
        raise UserError(
            f"the encoder here (hash {encoder.fingerprint()[:12]}) is not the one the retriever was trained with"
            f" ({record['fingerprint'][:12]}): install the same version, or give the files of the run as encoder_path"
        )
    return encoder
