"""Versions of an export that differ, and what each of them must answer: whether a reload mixes two can then be seen."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from r4t.lineage import atomic_folder, read_manifest, write_manifest
from r4t.retriever import R4TRetriever
from r4t.retriever.engines import EngineName
from r4t.retriever.files import ITEMS, ONNX, ONNX_INT8
from r4t.serving.lineage import lineage_of

LEFT_OUT = 7  # one item of so many
TOLERANCE = 5e-6  # of a score: alone and in a batch, sums round otherwise; answers have six digits
Sets = list[list[tuple[str, float]]]
"""Per query the ids and scores of its set, in order."""


def variant(folder: Path, target: Path, tag: str, *, weights: bool = False) -> Path:
    """An export like `folder` in `target`: other items, their ids with the tag; with `weights` another network too."""
    made = read_manifest(folder) or {}
    names = [name for name in made["files"] if name != ONNX_INT8]
    number = sum(tag.encode())
    with atomic_folder(target) as temporary:
        for name in names:
            shutil.copyfile(folder / name, temporary / name)
        _other_items(temporary / ITEMS, tag, number)
        if weights:
            _other_weights(temporary, number)
        extra: dict[str, Any] = {name: made[name] for name in ("lineage", "encoder") if name in made}
        write_manifest(
            temporary, stage="export", config=made["config"], inputs={}, files=names, metrics={}, extra=extra
        )
    return target


def variants(folder: Path, parent: Path, count: int) -> list[Path]:
    """In turn, other items of the same network and other items of another network."""
    return [variant(folder, parent / f"v{place}", f"@v{place}", weights=place % 2 == 1) for place in range(count)]


def put(source: Path, live: Path) -> None:
    """Replaces what is served as an export does, in one step."""
    with atomic_folder(live) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)


def answers_of(
    folders: Sequence[Path], texts: Sequence[str], k: int, engine: EngineName = "onnx", seed: int = 0
) -> dict[str, Sets]:
    """By the lineage of each folder, what its retriever finds for the texts."""
    answers = {}
    for folder in folders:
        retriever = R4TRetriever.from_pretrained(folder, engine=engine, threads=1)
        found = retriever.retrieve(list(texts), k, seed=seed)
        answers[lineage_of([folder])] = [[(item.item_id, item.score) for item in its.items] for its in found]
    return answers


def matches(answer: Mapping[str, Any], known: Mapping[str, Sets], places: Sequence[int]) -> bool:
    """Whether a response is, whole, what the version that it names must answer. places: of its queries."""
    wanted = known.get(answer["lineage"])
    if wanted is None or len(answer["sets"]) != len(places):
        return False
    return all(
        [item["item_id"] for item in its["items"]] == [item_id for item_id, _ in wanted[place]]
        and np.allclose([item["score"] for item in its["items"]], [score for _, score in wanted[place]], 0, TOLERANCE)
        for its, place in zip(answer["sets"], places, strict=True)
    )


def _other_items(path: Path, tag: str, number: int) -> None:
    table = pq.read_table(path)
    rows = np.arange(len(table))
    kept = table.take(rows[rows % LEFT_OUT != number % LEFT_OUT])
    ids = pa.array([f"{item_id}{tag}" for item_id in kept["item_id"].to_pylist()])
    pq.write_table(kept.set_column(kept.schema.get_field_index("item_id"), "item_id", ids), path, compression="zstd")


def _other_weights(folder: Path, seed: int) -> None:
    import torch

    from r4t.diffusion.checkpoint import load_denoiser, load_sampler_settings, save_denoiser
    from r4t.diffusion.export import export_onnx
    from r4t.diffusion.sampler import SetSampler

    denoiser, settings = load_denoiser(folder), load_sampler_settings(folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1 * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator))
    save_denoiser(folder, denoiser, settings)
    if (folder / ONNX).exists():
        export_onnx(SetSampler(denoiser, settings), folder / ONNX)
