"""Files that are whole or absent, and manifests that say where every stage's output came from."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from r4t.errors import UserError
from r4t.full_disk import full_disk_named

MANIFEST = "manifest.json"
TEMPORARY = ".partial-"
PROBES, SCRATCH = ".r4t-doctor-", "r4t-weights-"  # beginnings of other names that do not outlive their process
BLANK = "0" * 64
_SEAL_AT_THE_END = re.compile(rb'"seal": "([0-9a-f]{64})"\n}\n\Z')
CODE_FOLDERS = ("r4t", "cluster", "jobs")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; a clean exit syncs it and renames it onto `path`.

    Readers see the old file or the whole new one, also after a crash or a power cut. Missing parent folders are made.
    On an exception the temporary file goes and `path` stays as it was; a full disk raises UserError.
    """
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{TEMPORARY}{path.name}-", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with full_disk_named(path):
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
            temporary.replace(path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`; a clean exit puts it in the place of whatever stood there."""
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{path.name}-", dir=path.parent))
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            temporary.chmod(0o777 & ~_umask())
            if path.exists():
                retired = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}old-", dir=path.parent))
                path.replace(retired)
                temporary.replace(path)
                shutil.rmtree(retired)
            else:
                temporary.replace(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN and infinity are refused: JSON has no such numbers."""
    text = to_json(value)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n")


def to_json(value: Any) -> str:
    """Indented JSON; arrays, NumPy numbers and paths become lists, numbers and strings. Raises ValueError for NaN."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)


def read_json(path: Path) -> Any:
    """Reads a JSON file. Raises UserError when it is not JSON."""
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # a wrong byte may be no UTF-8 either
        raise UserError(f"{path} is not valid JSON ({error}): delete its folder and run the stage again") from None


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None) -> None:
    """Writes named arrays as a safetensors file, atomically."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(contiguous, str(temporary), metadata=metadata)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Reads every array of a safetensors file. Raises UserError when the file is damaged."""
    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run the stage again") from None


def read_rows(path: Path, name: str, first: int, last: int) -> NDArray[Any]:
    """Rows `first` ... `last - 1` of one array of a safetensors file; no other is read. Errors as `read_tensors`."""
    try:
        with safe_open(str(path), "numpy") as file:
            return file.get_slice(name)[first:last]
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run the stage again") from None


def count_rows(path: Path, name: str) -> int:
    """Rows of one array of a safetensors file, from its header. Errors as `read_tensors`."""
    try:
        with safe_open(str(path), "numpy") as file:
            return int(file.get_slice(name).get_shape()[0])
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run the stage again") from None


def write_manifest(
    folder: Path,
    *,
    stage: str,
    config: dict[str, Any],
    inputs: Mapping[str, Path],
    files: list[str],
    metrics: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Closes a stage: `manifest.json` is its last write, so a folder that has one is complete.

    `inputs` maps a name to an input stage's folder, recorded as the hash of that folder's manifest; `files` are the
    stage's outputs relative to `folder`. Returns the manifest. Raises FileNotFoundError when a file or an input's
    manifest is missing.
    """
    manifest = {
        "schema": 2,
        "stage": stage,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_version(),
        "config": config,
        "inputs": {
            name: {
                "folder": os.path.relpath(source.resolve(), folder.resolve()),
                "manifest": file_hash(source / MANIFEST),
            }
            for name, source in inputs.items()
        },
        "files": {
            name: {"sha256": file_hash(folder / name), "bytes": (folder / name).stat().st_size}
            for name in sorted(set(files))
        },
        "metrics": metrics,
        **(extra or {}),
    }
    return write_sealed(folder / MANIFEST, manifest)


def write_sealed(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    """Writes `value` with a last key `seal`: the SHA-256 of the file in which the seal stands as zeros. Atomically.

    Returns what was written.
    """
    blank = to_json(value | {"seal": BLANK}) + "\n"
    sealed = value | {"seal": hashlib.sha256(blank.encode()).hexdigest()}
    write_json(path, sealed)
    return sealed


def is_sealed(path: Path) -> bool:
    """Whether a file is, byte for byte, what `write_sealed` wrote."""
    content = path.read_bytes()
    end = _SEAL_AT_THE_END.search(content)
    if end is None:
        return False
    blank = content[: end.start(1)] + BLANK.encode() + content[end.end(1) :]
    return hashlib.sha256(blank).hexdigest().encode() == end[1]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest, or None where the stage has not finished."""
    path = folder / MANIFEST
    return read_json(path) if path.is_file() else None


def is_finished(folder: Path) -> bool:
    """True once the stage's manifest is written."""
    return (folder / MANIFEST).is_file()


def clear_partial(folder: Path) -> None:
    """Removes temporary files that a killed process left in `folder` and below it."""
    for path in sorted(folder.rglob(f"{TEMPORARY}*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@functools.cache
def code_version() -> str:
    """Hash of every Python file of the packages: the same wherever and however the same code is installed."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for folder in CODE_FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
