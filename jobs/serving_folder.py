"""What `r4t serve` serves: an exported folder as it is, or a run's retrievers exported into the run."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from r4t.config import Config, Serve, load_config, parse_config
from r4t.errors import UserError
from r4t.lineage import MANIFEST, file_hash, is_finished, read_manifest
from r4t.retriever.engines import EngineName
from r4t.retriever.files import DESCRIPTION, ONNX, ONNX_INT8, read_description

FOLDER = "serving"
PARTS = ("distill", "retriever")  # as `jobs.policies.PRODUCTS`, which torch comes with
GRAPHS = {"onnx": ONNX, "onnx-int8": ONNX_INT8}


def served_folders(source: Path, engine: EngineName) -> list[Path]:
    """The exported folders of an export or of a run, the main retriever first.

    A run's are made in `RUN/serving` where they are not there yet, or no longer those of the run. Raises UserError for
    a folder that is neither, a run without a retriever, and an export without the graph that `engine` reads.
    """
    if (source / DESCRIPTION).is_file():
        _check_graph(source, engine)
        return [source]
    _check_run(source)
    parts = [part for part in PARTS if is_finished(source / part)]
    if not parts:
        raise UserError(f"{source} holds no finished retriever: run `r4t run CONFIG --stage retriever` first")
    targets = {part: source / FOLDER / part for part in parts}
    if stale := {part: target for part, target in targets.items() if not _is_current(source, target, engine)}:
        # In a process of its own: exporting needs torch, and a server on a graph does without.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(_export, source, stale, engine).result()
    return list(targets.values())


def serve_settings(source: Path, overrides: list[str] | None = None) -> Config:
    """The configuration that a run or an exported folder was made with, `overrides` of section `serve` on top.

    `serve.encoder_path` is absolute, for replicas with other working directories; of a run it is `encoder.path` where
    nothing else is set.
    """
    for override in overrides or []:
        if not override.strip().startswith("serve."):
            raise UserError(f"--set {override!r}: only keys of section 'serve' may be changed when serving")
    if (source / DESCRIPTION).is_file():
        stored: dict[str, Any] = (read_manifest(source) or {}).get("config", {})
        own = None
    else:
        _check_run(source)
        made_with = load_config(source / "config.yaml")
        stored, own = made_with.model_dump(mode="json"), made_with.encoder.path
    config = parse_config(stored, overrides)
    path = config.serve.encoder_path or own
    return config.model_copy(
        update={"serve": config.serve.model_copy(update={"encoder_path": path and path.resolve()})}
    )


def lite_engine(settings: Serve) -> EngineName:
    """The graph that a server without torch reads."""
    return "onnx" if settings.engine == "torch" else settings.engine


def _check_run(source: Path) -> None:
    if not (source / "config.yaml").is_file():
        raise UserError(
            f"{source} is neither a run nor an exported retriever: give the folder that `r4t run` or `r4t export` made"
        )


def _check_graph(folder: Path, engine: str) -> None:
    graph = GRAPHS.get(engine)
    if graph is not None and not (folder / graph).is_file():
        option = "--int8" if engine == "onnx-int8" else "--onnx"
        raise UserError(
            f"{folder} holds no {graph}: write it again with `r4t export RUN {folder} {option}`, or serve with torch"
            " (without --lite)"
        )


def _is_current(run: Path, folder: Path, engine: str) -> bool:
    """Whether an export is of the run as it is now, and has the graph."""
    if not is_finished(folder) or (engine in GRAPHS and not (folder / GRAPHS[engine]).is_file()):
        return False
    made_from = read_description(folder).lineage
    manifests = {name: run / name / MANIFEST for name in made_from}
    return all(path.is_file() and file_hash(path) == made_from[name]["manifest"] for name, path in manifests.items())


def _export(run: Path, targets: dict[str, Path], engine: str) -> None:
    from jobs.export import export

    for part, target in targets.items():
        export(run, target, part=part, onnx=engine in GRAPHS, int8=engine == "onnx-int8")
