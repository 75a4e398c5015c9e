from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sets_fixtures import DIM, ROWS, K, columns, invalid, record, small_dataset, unit, write

from r4t.lineage import write_manifest
from r4t.sets import read_shard, shard_problem, write_shard
from r4t.sets.answers import STATUSES
from r4t.sets.store import read_columns, read_lineage, shard_files, subqueries_name
from r4t.sets.tensors import tensor_table
from r4t.verify import verify

LINEAGE = {"policy": "abc"}


def test_c31_shard_keeps_every_answer_with_its_reward_and_terms(tmp_path: Path):
    records = [record(0, 0), invalid(0, 1), record(1, 0)]
    shard = read_shard(write(tmp_path, 0, records))
    assert shard.valid.tolist() == [True, False, True]
    assert shard.query.tolist() == [0, 0, 1]
    assert shard.sample.tolist() == [0, 1, 0]
    assert np.allclose(shard.reward, [r.reward for r in records])
    assert set(shard.terms) == {"diversity", "alignment"}
    assert np.isnan(shard.terms["diversity"][1])
    assert shard.terms["alignment"][2] == pytest.approx(records[2].terms["alignment"])
    assert shard.rows[0].tolist() == list(records[0].rows)
    assert (shard.rows[1] == -1).all()
    assert shard.texts == ("red soup", "warm bread", "green tea")
    assert shard.vectors is None


def test_c31_schema(tmp_path: Path):
    schema = pq.read_schema(write(tmp_path, 0, [record(0, 0)]))
    columns = {"query_id", "query", "sample", "valid", "status", "rows", "subqueries", "reward", "policy_version"}
    assert columns | {"term.diversity", "term.alignment"} == set(schema.names)
    assert schema.field("rows").type.list_size == ROWS
    assert schema.field("subqueries").type.list_size == K


def test_plain_columns_are_readable_with_pyarrow_alone(tmp_path: Path):
    """Arrow's own types, and every value and null as written."""
    path = write(tmp_path, 0, [record(0, 0), invalid(0, 1)])
    with pq.ParquetFile(path) as file:
        first, second = file.read().to_pylist()
    assert (first["query_id"], first["valid"], first["status"]) == ("q0", True, "ok")
    assert first["rows"] == list(record(0, 0).rows)
    assert (second["status"], second["term.alignment"], second["reward"]) == ("no_block", None, -1.0)
    assert read_columns(path, ["sample", "valid"])["sample"].tolist() == [0, 1]
    shard = read_shard(path)
    assert [STATUSES[code] for code in shard.status] == ["ok", "no_block"]
    assert (shard.query_id, shard.policy_version.tolist()) == (("q0", "q0"), [7, 7])


def test_c32_sets_are_stored_by_ids(tmp_path: Path):
    """Far below the L x d float32 of the vectors: 4.1 of the paper sheet counts 4 bytes a row."""
    records = [record(q, s) for q in range(6) for s in range(200)]
    path = write(tmp_path, 0, records)
    assert path.stat().st_size < 1200 * ROWS * DIM * 4 / 2


def test_vectors_are_kept_in_half_precision(tmp_path: Path):
    vectors = unit(np.random.default_rng(1), 3, DIM)
    shard = read_shard(write(tmp_path, 0, [record(0, 0, rows=(0, 1, 2, 0))], vectors))
    assert shard.vectors is not None
    assert np.array_equal(shard.vectors, vectors.astype(np.float16).astype(np.float32))


def test_the_same_shard_is_the_same_bytes(tmp_path: Path):
    one, two = (write(tmp_path / name, 0, [record(0, 0), record(1, 1)]) for name in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_lineage_travels_in_the_schema(tmp_path: Path):
    path = write(tmp_path, 0, [record(0, 0)], temperature=0.9)
    assert read_lineage(path) == {"policy": "abc", "temperature": 0.9}


def test_c32_whole_shard_has_no_problem(tmp_path: Path):
    assert shard_problem(write(tmp_path, 0, [record(0, 0), invalid(1, 0)]), LINEAGE) is None
    assert shard_problem(tmp_path / "shard-00001.parquet", LINEAGE) == "missing"


@pytest.mark.parametrize("part", ["shard", "subqueries", "tensors"])
@pytest.mark.parametrize("damage", ["truncate", "remove", "flip"])
def test_c32_damaged_shards_are_found(tmp_path: Path, part: str, damage: str):
    dataset = small_dataset()
    shard = columns([record(q, 0) for q in range(5)])
    path = tmp_path / "shard-00000.parquet"
    tensors = tensor_table(shard, dataset.query_vectors, dataset.item_vectors)
    write_shard(path, shard, lineage=LINEAGE, tensors=tensors)
    assert shard_problem(path, LINEAGE) is None
    write_manifest(tmp_path, stage="sets", config={}, inputs={}, files=[f.name for f in shard_files(path)], metrics={})
    assert verify(tmp_path) == []
    target = path if part == "shard" else tmp_path / f"shard-00000.{part}.parquet"
    content = bytearray(target.read_bytes())
    if damage == "remove":
        target.unlink()
    elif damage == "truncate":
        target.write_bytes(content[: len(content) // 2])
    else:
        content[30] ^= 0xFF
        target.write_bytes(content)
    assert shard_problem(path, LINEAGE) is not None
    (problem,) = verify(tmp_path)
    assert problem.startswith(str(target))


def test_c32_shards_of_other_inputs_are_not_taken_for_these(tmp_path: Path):
    path = write(tmp_path, 0, [record(0, 0)])
    assert shard_problem(path, {"policy": "another"}) == "made from other inputs"


def test_c32_parts_of_two_shards_are_not_mixed(tmp_path: Path):
    path = write(tmp_path / "a", 0, [record(0, 0)])
    other = write(tmp_path / "b", 0, [record(0, 1)])
    (other.parent / subqueries_name(other.name)).replace(path.parent / subqueries_name(path.name))
    assert shard_problem(path, LINEAGE) == "its content does not match its digest"
