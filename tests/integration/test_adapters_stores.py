"""Other stores: sets from Qdrant are those of the retriever's own index, and the SQL for pgvector says the same."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from export_fixtures import DIM, NAMES
from support import needed

from r4t.adapters import pgvector, qdrant
from r4t.adapters.items import StoredItems, stored_items
from r4t.errors import UserError
from r4t.retriever import R4TRetriever

QUERIES = ["light leek lunch", "grilled something", "mint"]


@pytest.fixture(scope="module")
def retriever(folder: Path) -> R4TRetriever:
    return R4TRetriever.from_pretrained(folder, engine="onnx", threads=1)


@pytest.fixture(scope="module")
def items(folder: Path) -> StoredItems:
    return stored_items(folder)


def test_items_are_those_of_the_export(items: StoredItems) -> None:
    assert items.item_ids == NAMES
    assert items.columns["how"][0] == "grilled"
    assert items.vectors.shape == (24, DIM)


def test_qdrant_retrieves_the_same_sets(items: StoredItems, retriever: R4TRetriever, tmp_path: Path) -> None:
    client_module = needed("qdrant_client")
    client = client_module.QdrantClient(path=str(tmp_path / "store"))
    assert qdrant.push(client, "items", items) == qdrant.push(client, "items", items) == 24
    assert client.count("items").count == 24, "pushed again, an item replaces itself"
    expected = retriever.retrieve(QUERIES, 9, seed=2, spread=0.8)
    found = qdrant.retrieve(client, "items", retriever, QUERIES, 9, seed=2, spread=0.8)
    for its, other in zip(found, expected, strict=True):
        assert [hit.item_id for hit in its] == [item.item_id for item in other.items]
        assert [hit.row for hit in its] == [item.row for item in other.items]
        assert [hit.score for hit in its] == pytest.approx([item.score for item in other.items], abs=1e-4)
    assert found[0][0].payload["tags"][1] == "food"
    models = client_module.models
    raw = models.Filter(must=[models.FieldCondition(key="how", match=models.MatchValue(value="raw"))])
    (filtered,) = qdrant.retrieve(client, "items", retriever, QUERIES[:1], 9, query_filter=raw)
    assert {hit.item_id for hit in filtered} == {name for name in NAMES if name.startswith("raw")}
    other = StoredItems(
        item_ids=["x"], names=["x"], columns={}, vectors=np.eye(1, DIM, dtype=np.float32), encoder="f" * 64
    )
    with pytest.raises(UserError, match="another encoder"):
        qdrant.push(client, "items", other)
    client.close()


def test_the_sql_holds_every_item_and_no_way_out_of_its_quotes(items: StoredItems) -> None:
    text = "".join(pgvector.table_sql(items, 'my"table'))
    assert '"my""table"' in text
    assert f"vector({DIM})" in text
    assert items.encoder in text
    rows = re.findall(r"'\[([^']*)\]'::vector", text)
    stored = np.array([[float(value) for value in row.split(",")] for row in rows], dtype=np.float32)
    np.testing.assert_allclose(stored, items.vectors, rtol=1e-6)
    nasty = StoredItems(
        item_ids=["a'); DROP TABLE x; --"],
        names=["back\\slash'"],
        columns={"text": ["\n"]},
        vectors=np.eye(1, 2, dtype=np.float32),
        encoder="e",
    )
    insert = list(pgvector.table_sql(nasty))[3]
    assert "'a''); DROP TABLE x; --'" in insert
    assert "E'back\\\\slash'''" in insert
    with pytest.raises(UserError, match="zero byte"):
        list(
            pgvector.table_sql(
                StoredItems(
                    item_ids=["\x00"], names=[""], columns={}, vectors=np.eye(1, 2, dtype=np.float32), encoder="e"
                )
            )
        )
    with pytest.raises(UserError, match="1 to 53 bytes"):
        pgvector.search_sql(np.eye(1, 2, dtype=np.float32), 1, "x" * 64)


def test_the_sql_runs_in_postgresql_and_finds_the_same_sets(
    items: StoredItems, retriever: R4TRetriever, tmp_path: Path
) -> None:
    pgserver = pytest.importorskip(
        "pgserver", reason="pgserver, which brings PostgreSQL with pgvector, is not installed"
    )
    server = pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    try:
        for statement in (*pgvector.table_sql(items), *pgvector.table_sql(items)):
            server.psql(statement)
        rows = retriever.embed(QUERIES, seed=2)
        expected = retriever.retrieve(QUERIES, 9, seed=2)
        for its, other in zip(rows, expected, strict=True):
            shown = server.psql("SET enable_indexscan = off;\n" + pgvector.search_sql(its, 9))
            found = [line.split("|")[0].strip() for line in shown.splitlines() if line.count("|") == 3][1:]
            assert found == [item.item_id for item in other.items]
    finally:
        server.cleanup()
        shutil.rmtree(tmp_path / "pg", ignore_errors=True)
