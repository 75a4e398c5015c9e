"""`r4t export`: the retriever of a run as a folder of its own, which needs nothing of the run."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.policies import RETRIEVER_OF, product
from jobs.retrieve import config_of
from r4t.catalog.dataset import load_dataset
from r4t.catalog.encoders.reduction import REDUCTION
from r4t.config import Config
from r4t.diffusion.checkpoint import CONFIG, WEIGHTS, load_denoiser, load_sampler_settings
from r4t.diffusion.export import check_packages, export_onnx, quantise
from r4t.diffusion.sampler import SetSampler
from r4t.errors import UserError
from r4t.lineage import (
    MANIFEST,
    atomic_folder,
    atomic_path,
    file_hash,
    is_finished,
    read_json,
    read_manifest,
    write_manifest,
)
from r4t.retriever import files as f
from r4t.retriever.card import card, measured
from r4t.storage.push import Claim, push, read_index
from r4t.storage.snapshot import Hashes
from r4t.storage.store import Store

EXAMPLES = 8
STAGES = ("prepare", "folm", "sets", "retriever", "evaluate")


def export_to_store(run_folder: Path, url: str, **options: Any) -> dict[str, Any]:
    """As `export`, to a folder of an object store that `r4t pull` fetches. Raises StoreError too."""
    store = Store(url)
    there = read_index(store)
    if there is not None and "config.yaml" in there.files:
        raise UserError(f"{store.url} holds a run, which an export would replace: give another address")
    with tempfile.TemporaryDirectory() as folder:
        made = export(run_folder, Path(folder) / "export", **options)
        push(Path(folder) / "export", store, Claim(), Hashes())
    return made | {"folder": store.url}


def export(
    run_folder: Path,
    target: Path | str,
    *,
    part: str | None = None,
    items: bool = True,
    onnx: bool = False,
    int8: bool = False,
) -> dict[str, Any]:
    """Writes `target`, whole or not at all, in the place of an older export there. Returns what was measured doing it.

    part: which retriever, as a folder of the run; None: the student where there is one. int8 implies onnx. Raises
    UserError for a run without that retriever, a target that holds something else, and packages that are missing.
    """
    config = config_of(run_folder)
    part = part or RETRIEVER_OF[product(run_folder)]
    source, prepare = run_folder / part, run_folder / "prepare"
    if not is_finished(source):
        raise UserError(f"{source} holds no finished retriever: run `r4t run CONFIG --stage retriever` first")
    target = Path(target)
    _check_target(target)
    if onnx or int8:
        check_packages()
    dataset = load_dataset(prepare, pq.read_schema(prepare / "items.parquet").names)
    denoiser = load_denoiser(source, dataset.item_vectors.shape[1])
    sampler = SetSampler(denoiser, load_sampler_settings(source))
    held_out = [query.text for query in dataset.queries if query.split == config.evaluate.split]
    description = replace(_describe(config, run_folder, source, sampler), examples=held_out[:EXAMPLES])
    names = [CONFIG, WEIGHTS, f.DESCRIPTION, f.CARD]
    measures: dict[str, Any] = {}
    with atomic_folder(target) as folder:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(source / name, folder / name)
        if config.encoder.reduce == "pca":
            shutil.copyfile(prepare / REDUCTION, folder / REDUCTION)
            names.append(REDUCTION)
        if items:
            vectors, columns = dataset.item_vectors, dataset.facts
            f.write_items(folder, dataset.item_ids, dataset.item_names, dataset.item_texts, vectors, columns)
            names.append(f.ITEMS)
        if onnx or int8:
            measures["onnx_difference"] = export_onnx(sampler, folder / f.ONNX)
            names.append(f.ONNX)
        if int8:
            mean, least = quantise(folder / f.ONNX, folder / f.ONNX_INT8)
            measures |= {"int8_cosine_mean": mean, "int8_cosine_min": least}
            names.append(f.ONNX_INT8)
        description = replace(description, metrics={**description.metrics, **measures})
        f.write_description(folder, description)
        _write_card(folder, description, names)
        write_manifest(
            folder,
            stage="export",
            config=config.model_dump(mode="json"),
            inputs={},  # the folder stands alone; where it came from is its lineage
            files=names,
            metrics=measures,
            extra={"lineage": description.lineage, "encoder": description.encoder},
        )
    return {"folder": str(target), "files": [*names, MANIFEST], **measures}


def _describe(config: Config, run_folder: Path, source: Path, sampler: SetSampler) -> f.Description:
    found = run_folder / "evaluate" / "metrics.json"
    made = read_manifest(run_folder / "prepare") or {}
    part = source.relative_to(run_folder).as_posix()
    method = next((name for name, folder in RETRIEVER_OF.items() if folder == part), None)
    return f.Description(
        name=config.name,
        rows=sampler.denoiser.config.rows,
        dim=sampler.denoiser.config.dim,
        k=config.fanout.k,
        calls=sampler.nfe,
        encoder=made["encoder"],
        lineage=_lineage(run_folder, source),
        metrics=measured(read_json(found), method) if found.is_file() and method else {},
    )


def _lineage(run_folder: Path, source: Path) -> dict[str, Any]:
    """Per finished stage, and for the retriever that is exported, the hash of its manifest and of its inputs'."""
    folders = {name: run_folder / name for name in STAGES} | {source.relative_to(run_folder).as_posix(): source}
    return {
        name: {
            "manifest": file_hash(folder / MANIFEST),
            "inputs": {key: given["manifest"] for key, given in made["inputs"].items()},
            **{key: made.get(key, "") for key in ("code", "finished")},
        }
        for name, folder in folders.items()
        if (made := read_manifest(folder)) is not None
    }


def _check_target(target: Path) -> None:
    if target.is_dir() and any(target.iterdir()) and not (target / f.DESCRIPTION).is_file():
        raise UserError(f"{target} holds something else than an exported retriever: give a new directory")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file: give a directory")


def _write_card(folder: Path, description: f.Description, names: list[str]) -> None:
    stored = read_json(folder / CONFIG)
    with atomic_path(folder / f.CARD) as temporary:
        temporary.write_text(card(description, stored["denoiser"], stored["sampler"], names))
