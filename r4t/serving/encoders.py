"""Which encoders a server can run."""

from __future__ import annotations

from pathlib import Path

from r4t.config.data import PATH_ENCODERS
from r4t.errors import UserError
from r4t.retriever.files import read_description


def check_encoder(folder: Path, path: Path | None) -> None:
    """Raises UserError where the encoder of an exported folder cannot encode what people ask, or its files are missing.

    Whether the files are those of the retriever shows when they are loaded.
    """
    name = read_description(folder).encoder["name"]
    if name == "precomputed":
        raise UserError(
            f"{folder} has the encoder 'precomputed', which knows the texts of its table alone, and people ask others:"
            " use the folder from Python, with vectors instead of texts (R4TRetriever.retrieve), or train it with an"
            " encoder that reads any text and keep your items' vectors with data.item_vectors or data.columns.vector"
        )
    if name not in PATH_ENCODERS:
        return
    if path is None:
        raise UserError(
            f"the encoder '{name}' is not part of {folder}: give its files with --set serve.encoder_path=PATH, or serve"
            " the run, which knows them"
        )
    if not path.exists():
        raise UserError(
            f"nothing at {path}, where the files of the encoder '{name}' should be: give them with"
            " --set serve.encoder_path=PATH"
        )
