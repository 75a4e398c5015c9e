"""The folder of an exported retriever: everything that serving needs, and nothing of the run that made it.

config.json, model.safetensors   the network and its sampler (r4t.diffusion.checkpoint)
retriever.json                   widths, encoder, lineage, measured quality
reduction.safetensors            the encoder's projection, where encoder.reduce is pca
items.parquet                    item_id, name, text, vector, the catalogue's further columns; optional
model.onnx, model.int8.onnx      the whole sampler as one graph; optional
README.md, manifest.json         model card; hashes of all of the above, for `r4t verify`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from r4t.errors import UserError
from r4t.lineage import MANIFEST, atomic_path, file_hash, read_json, read_manifest, write_json
from r4t.types import Floats

DESCRIPTION, ITEMS, CARD = "retriever.json", "items.parquet", "README.md"
ONNX, ONNX_INT8 = "model.onnx", "model.int8.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """`retriever.json`."""

    name: str
    rows: int
    """L"""
    dim: int
    """d"""
    k: int
    """Items of a set in the run's evaluation."""
    calls: int
    """Network evaluations per set of the stored sampler, guidance included."""
    encoder: dict[str, Any]
    """What the run's prepare manifest says of it; `fingerprint` is its hash."""
    lineage: dict[str, Any]
    """Per stage of the run the hash of its manifest, its code version and when it finished."""
    metrics: dict[str, Any]
    """Measured on the run's held-out queries; empty where the run was not evaluated."""
    examples: list[str] = field(default_factory=list)
    """A few of those queries."""


def write_description(folder: Path, description: Description) -> None:
    fields = {name: getattr(description, name) for name in Description.__slots__}
    write_json(folder / DESCRIPTION, {"schema": 1, **fields})


def read_description(folder: Path) -> Description:
    """Raises UserError for a folder that is no exported retriever."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(
            f"no exported retriever in {folder} ({DESCRIPTION} is missing): write one with `r4t export RUN DIR`"
        )
    stored = read_json(path)
    try:
        known = [name for name in Description.__slots__ if name != "examples" or name in stored]  # older exports
        found = Description(**{name: stored[name] for name in known})
        found.encoder["fingerprint"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not a retriever's description ({error}): export it again") from None
    return found


def checked(folder: Path, name: str) -> Path:
    """The path of a file of weights, items or a graph, which is as it was written: readers of such files trust them.

    Raises UserError for a file that is missing or altered.
    """
    path = folder / name
    recorded = (read_manifest(folder) or {}).get("files", {}).get(name)
    if recorded is None or not path.is_file():
        raise UserError(f"{path} is missing: export the retriever again, with it (`r4t export --help`)")
    if file_hash(path) != recorded["sha256"]:
        raise UserError(f"{path} is damaged (it is not the file that {MANIFEST} describes): export the retriever again")
    return path


def write_items(
    folder: Path,
    item_ids: list[str],
    names: list[str],
    texts: list[str],
    vectors: Floats,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """One table that any vector store can import; vectors [N, d] as lists of fixed size. columns: further ones."""
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    own = {"item_id": item_ids, "name": names, "text": texts, "vector": lists}
    table = pa.table({**own, **{name: values for name, values in (columns or {}).items() if name not in own}})
    with atomic_path(folder / ITEMS) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_items(folder: Path) -> tuple[list[str], list[str], Floats] | None:
    """Ids, names and vectors [N, d]; None where the retriever was exported without items."""
    if not (folder / ITEMS).is_file():
        return None
    table = pq.read_table(checked(folder, ITEMS), columns=["item_id", "name", "vector"])
    column = table["vector"].combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
    return table["item_id"].to_pylist(), table["name"].to_pylist(), vectors


def read_columns(folder: Path) -> dict[str, list[Any]]:
    """What else the items have: `text`, and the catalogue's own columns. Call `read_items` first, which checks."""
    known = pq.read_schema(folder / ITEMS).names
    wanted = [name for name in known if name not in ("item_id", "name", "vector")]
    return dict(pq.read_table(folder / ITEMS, columns=wanted).to_pydict())
