"""The folder of what may be deleted at any time: vectors and answers that were worked out before."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`$R4T_CACHE/kind`, else `~/.cache/r4t/kind`. It need not exist."""
    return Path(os.environ.get("R4T_CACHE") or "~/.cache/r4t").expanduser() / kind
