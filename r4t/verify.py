"""Whether a run directory is as it was recorded: every file, every manifest and every stage's inputs.

A stage's manifest records its outputs, the run's `seal.json` everything else (configuration, log, metrics, checkpoints,
caches) as it stood when the last command on the run ended. Both end with a hash of themselves. This finds damage and
mistakes; who may write the directory can also write new hashes, so keep a manifest's hash elsewhere to find forgery.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from r4t.errors import UserError
from r4t.lineage import MANIFEST, TEMPORARY, file_hash, is_finished, is_sealed, read_json, write_sealed

RUN_SEAL = "seal.json"
FLEETING = (".lock", ".attempt", ".mirror.json")  # rewritten by whoever opens the run, or mirrors it
FOREIGN = "wandb"  # its client writes there after the run has ended, and again when it syncs
_HASH = re.compile(r"[0-9a-f]{64}")


def seal_run(folder: Path) -> None:
    """Records every file of a run directory that no stage's manifest records. The last write of a command."""
    recorded = {path.parent / name for path in folder.rglob(MANIFEST) for name in read_json(path)["files"]}
    files = {
        path.relative_to(folder).as_posix(): {"sha256": file_hash(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and path not in recorded and _lasts(path, folder)
    }
    write_sealed(folder / RUN_SEAL, {"schema": 1, "files": files})


def verify(path: Path) -> list[str]:
    """Problems of a stage folder, or of every stage folder under a run directory; empty when all is as recorded.

    Checks that each recorded file exists with its size and hash, that each record is whole itself, and that each
    input's manifest is still the one that the stage was made from. Raises UserError when there is no manifest anywhere
    under `path`.
    """
    manifests = [path / MANIFEST] if (path / MANIFEST).is_file() else sorted(path.rglob(MANIFEST))
    if not manifests:
        raise UserError(f"no {MANIFEST} in {path} or below it: give a run directory or a finished stage's folder")
    seals = [path / RUN_SEAL] if (path / RUN_SEAL).is_file() else []
    return [problem for record in [*manifests, *seals] for problem in _problems(record)]


def _lasts(path: Path, run: Path) -> bool:
    foreign = path.relative_to(run).parts[0] == FOREIGN
    return not foreign and path.name not in (MANIFEST, RUN_SEAL, *FLEETING) and TEMPORARY not in path.as_posix()


def _problems(record: Path) -> Iterator[str]:
    try:
        content = read_json(record)
    except UserError as error:
        yield str(error)
        return
    if not _well_formed(content, is_seal=record.name == RUN_SEAL):
        yield f"{record}: is no record that R4T wrote"
        return
    if not is_sealed(record) and (content["schema"] != 1 or "seal" in content or record.name == RUN_SEAL):
        yield f"{record}: content changed (it is not what its seal was made of)"
    for name, recorded in content["files"].items():
        if problem := _file_problem(record.parent, name, recorded):
            yield f"{record.parent / name}: {problem}"
    for name, recorded in content.get("inputs", {}).items():
        source = record.parent / recorded["folder"]
        if not is_finished(source):
            yield f"{record.parent}: its input '{name}' ({source.resolve()}) has no {MANIFEST}"
        elif file_hash(source / MANIFEST) != recorded["manifest"]:
            yield f"{record.parent}: its input '{name}' ({source.resolve()}) is not the one it was made from"


def _file_problem(folder: Path, name: str, recorded: dict[str, Any]) -> str:
    pure, path = PurePosixPath(name), folder / name
    if pure.is_absolute() or ".." in pure.parts:
        return "the recorded name leaves its folder, which R4T never writes"
    if any(part.is_symlink() for part in (path, *path.parents[: len(pure.parts) - 1])):
        return "is a link, where a file was written"
    if not path.is_file():
        return "" if any(part.startswith(".") for part in pure.parts) else "missing"  # a cache may be deleted
    if path.stat().st_size != recorded["bytes"]:
        return f"{path.stat().st_size} bytes, {recorded['bytes']} recorded"
    return "" if file_hash(path) == recorded["sha256"] else "content changed (hash differs from the recorded one)"


def _well_formed(content: Any, *, is_seal: bool) -> bool:
    """Whether the parts that `verify` reads have the types that R4T writes."""
    if not isinstance(content, dict) or content.get("schema") not in (1, 2):
        return False
    files, inputs = content.get("files"), content.get("inputs", {} if is_seal else None)
    return (
        isinstance(files, dict)
        and isinstance(inputs, dict)
        and all(_record(one, "sha256") and isinstance(one.get("bytes"), int) for one in files.values())
        and all(_record(one, "manifest") and isinstance(one.get("folder"), str) for one in inputs.values())
        and not any("\0" in text for text in (*files, *(one["folder"] for one in inputs.values())))
    )


def _record(value: Any, key: str) -> bool:
    return isinstance(value, dict) and isinstance(value.get(key), str) and _HASH.fullmatch(value[key]) is not None
