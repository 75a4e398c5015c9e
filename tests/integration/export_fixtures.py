"""A run small enough to export in a second: a prepared catalogue and a retriever that nobody trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from jobs import prepare
from jobs.run import Run, save_config
from r4t.config import parse_config
from r4t.diffusion.checkpoint import save_denoiser
from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser
from r4t.lineage import write_manifest

FOODS = ("beef", "salmon", "apple", "leek", "rice", "mint")
NAMES = [f"{how} {what}" for how in ("grilled", "baked", "raw", "dried") for what in FOODS]
DIM, ROWS, K = 16, 6, 5


def made_run(
    folder: Path,
    reduce: str = "truncate",
    dim: int = DIM,
    encoder: dict[str, Any] | None = None,
    **columns: list[Any],
) -> Path:
    """A run with a prepared catalogue and a retriever that nobody trained. encoder: further keys of that section;
    columns: further ones of the items."""
    folder.mkdir()
    pq.write_table(pa.table({"item_id": NAMES, "text": NAMES, **columns}), folder / "items.parquet")
    sampler = {"steps": 3, "guidance": 0.5}
    settings = {
        "data": {"kind": "table", "items": str(folder / "items.parquet"), "n_queries": 60},
        "encoder": {"dim": dim, "reduce": reduce} | (encoder or {}),
        "fanout": {"k": K},
        "retriever": {"rows": ROWS, "hidden": 16, "mlp": 16, "heads": 2, "layers": 2, "sampler": sampler},
    }
    config = parse_config(settings)
    save_config(folder, config)
    run = Run(folder, config)
    prepare.main(config, run)
    run.close()
    torch.manual_seed(0)
    denoiser = SetDenoiser(DenoiserConfig.of(config.retriever, dim, dim**-0.5))
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    save_denoiser(folder / "retriever", denoiser, config.retriever.sampler)
    write_manifest(
        folder / "retriever",
        stage="retriever",
        config=settings,
        inputs={"prepare": folder / "prepare"},
        files=["config.json", "model.safetensors"],
        metrics={},
    )
    return folder
