"""Names of what is served: exported folders, and the language model of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from r4t.errors import UserError
from r4t.lineage import MANIFEST, file_hash


def lineage_of(folders: Sequence[Path]) -> str:
    """Names the exact files of exported folders. Raises UserError where one is missing."""
    missing = [folder for folder in folders if not (folder / MANIFEST).is_file()]
    if missing:
        raise UserError(f"no exported retriever in {missing[0]}: write one with `r4t export RUN DIR`")
    hashes = [file_hash(folder / MANIFEST) for folder in folders]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]


def with_writer(exported: str, writer: str) -> str:
    """Lineage of a version of the exported folders and a language model."""
    return hashlib.sha256(f"{exported} {writer}".encode()).hexdigest()[:16]


def policy_lineage(run: Path) -> str:
    """Names the exact policy of a run. Raises UserError where the folder is no run or has none."""
    if not (run / "config.yaml").is_file():
        raise UserError(
            f"{run} is no run, so it holds no language model for r4t_folm: give the run that the retriever was exported"
            " from, or serve without --folm (serve.folm=false)"
        )
    folm = run / "folm"
    if not ((folm / MANIFEST).is_file() and (folm / "policy" / "model.safetensors").is_file()):
        raise UserError(f"{run} holds no trained language model for r4t_folm: run `r4t run CONFIG --stage folm` first")
    return file_hash(folm / MANIFEST)
