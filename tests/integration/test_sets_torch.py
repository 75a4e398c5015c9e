"""A run's sets in somebody else's trainer: real DataLoader workers and launcher environments, and plain Parquet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch
from sets_reading import write_run
from torch.utils.data import DataLoader

from r4t.config import parse_config
from r4t.errors import UserError
from r4t.sets import TorchSets, read_shard, torch_dataset
from r4t.sets.columns import shard_paths

SETS, BATCH = 2 * 41, 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch") / "run"
    write_run(folder, parse_config({}), sets=SETS // 2, items=30, dim=8)
    return folder


def handed_out(dataset: TorchSets, workers: int = 0, **options: object) -> list[list[int]]:
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, **options)  # type: ignore[arg-type]
    return [batch["set"].tolist() for batch in loader]


def test_workers_change_neither_order_nor_content(run: Path):
    alone = handed_out(torch_dataset(run, batch=BATCH, seed=3))
    assert sorted(one for sets in alone for one in sets) == list(range(SETS))
    for workers in (1, 2):
        assert handed_out(torch_dataset(run, batch=BATCH, seed=3), workers) == alone
    spawned = handed_out(torch_dataset(run, batch=BATCH, seed=3), 2, multiprocessing_context="spawn")
    assert spawned == alone


def test_ranks_of_a_launcher_share_out_an_epoch(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    seen: list[int] = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        seen += [one for sets in handed_out(torch_dataset(run, batch=BATCH), 2) for one in sets]
    assert sorted(seen) == list(range(SETS))


def test_batches_are_the_stored_sets(run: Path):
    """Brute force: every row of a batch is found again among the rows that the shards name for that set."""
    dataset = torch_dataset(run, batch=BATCH)
    targets = dataset.stream().targets
    stored = sorted(
        (int(q), tuple(sorted(rows)))
        for path in shard_paths(run / "sets")
        for q, rows in zip(read_shard(path).query, read_shard(path).rows.tolist(), strict=True)
    )
    places = {vector.tobytes(): i for i, vector in enumerate(targets.table)}
    found = []
    for batch in DataLoader(dataset, batch_size=None):
        assert batch["sets"].dtype == batch["queries"].dtype == torch.float32
        for rows, query, vector in zip(batch["sets"], batch["query"], batch["queries"], strict=True):
            found.append((int(query), tuple(sorted(places[row.numpy().tobytes()] for row in rows))))
            assert np.array_equal(vector.numpy(), targets.query_vectors[int(query)])
    assert sorted(found) == stored


def test_epochs_differ_also_for_workers_that_live_on(run: Path):
    dataset = torch_dataset(run, batch=BATCH)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
    passes = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        passes.append([batch["set"].tolist() for batch in loader])
    assert passes[0] == passes[2] != passes[1]
    assert sorted(one for sets in passes[1] for one in sets) == list(range(SETS))


def test_resumes_in_the_middle_of_a_pass(run: Path):
    whole = handed_out(torch_dataset(run, batch=BATCH, epochs=2))
    dataset = torch_dataset(run, batch=BATCH, epochs=2)
    state = json.loads(json.dumps(dataset.state(13)))
    again = torch_dataset(run, batch=BATCH, epochs=2)
    again.resume(state)
    assert handed_out(again, 2) == whole[13:]


def test_an_endless_loader_goes_on(run: Path):
    loader = DataLoader(torch_dataset(run, batch=BATCH, epochs=None), batch_size=None, num_workers=1)
    batches = [batch["set"] for batch, _ in zip(loader, range(25), strict=False)]
    flat = torch.cat(batches)[: 2 * SETS].view(2, SETS)
    assert torch.equal(flat.sort(dim=1).values, torch.arange(SETS).expand(2, SETS))


def test_a_folder_that_is_no_run_is_said(tmp_path: Path):
    with pytest.raises(UserError, match="no run directory"):
        torch_dataset(tmp_path, batch=1)


def test_shards_are_plain_parquet_for_others(run: Path):
    """Readable in one go without R4T: ordinary types, and one schema in every shard."""
    table = ds.dataset([str(path) for path in shard_paths(run / "sets")]).to_table()
    assert len(table) == SETS
    assert table.schema.field("rows").type == pa.list_(pa.int32(), 12)
    mine = np.concatenate([read_shard(path).rows for path in shard_paths(run / "sets")])
    assert table["rows"].to_pylist() == mine.tolist()


def test_hugging_face_datasets_reads_them(run: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets", reason="in the GPU lock only")
    files = [str(path) for path in shard_paths(run / "sets")]
    stream = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path))
    assert sum(1 for _ in stream) == SETS
