"""What the encoders behind `encoder.path` share: whole, safe files and one hash over all of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from r4t.errors import UserError
from r4t.lineage import file_hash

WEIGHTS = ".safetensors"
PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
READ = {".json", ".jinja", ".model", ".parquet", ".txt", WEIGHTS}  # what a loader may read; not cards, not pictures


def require_folder(path: Path, what: str) -> None:
    """Raises UserError unless `path` is a folder."""
    if not path.is_dir():
        raise UserError(f"no folder at {path}: encoder.path must be {what}")


def require_safetensors(folder: Path) -> None:
    """Raises UserError unless `folder` holds weights in safetensors. Pickles beside them are never read."""
    if any(folder.glob(f"*{WEIGHTS}")):
        return
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise pickled(folder / pickles[0])
    raise UserError(f"{folder} has no {WEIGHTS} weights: save the model there in safetensors (encoder.path)")


def pickled(path: Path) -> UserError:
    """The error for weights in a format that can run code when it is read."""
    return UserError(
        f"{path} is a pickle, which can run code when it is read: convert to safetensors"
        " (safetensors.torch.save_file) and point encoder.path there"
    )


def content_hash(path: Path) -> str:
    """SHA-256 over a file, or over the names and bytes of all files of a folder that a model may be read from."""
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.suffix in READ and file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_hash(file)}\0".encode())
    return digest.hexdigest()
