"""`r4t objective explain` on a prepared run, with a method that needs no trained stage."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from r4t.errors import UserError

NAMES = [f"{how} {what}" for how in ("grilled", "baked", "raw") for what in ("beef", "salmon", "apple", "leek")]
CONFIG = """
data: {kind: table, items: items.parquet, n_queries: 60}
encoder: {dim: 16}
fanout: {k: 4}
retriever: {rows: 4}
objective: {weights: {complementarity: 0.5}, category_column: kind}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    kinds = [name.split()[1] for name in NAMES]
    pq.write_table(pa.table({"item_id": NAMES, "text": NAMES, "kind": kinds}), folder / "items.parquet")
    (folder / "c.yaml").write_text(CONFIG)
    result = CliRunner().invoke(
        app, ["run", str(folder / "c.yaml"), "--stage", "prepare", "--run-dir", str(folder / "run")]
    )
    assert result.exit_code == 0, result.output
    return folder / "run"


def explain(run: Path, *more: str) -> str:
    result = CliRunner().invoke(app, ["objective", "explain", str(run), "raw apple", *more])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_terms_and_the_items_that_carry_them_add_up(run: Path) -> None:
    found = json.loads(explain(run, "--method", "mmr", "--json"))
    terms = {term["name"]: term for term in found["terms"]}
    assert {name for name, term in terms.items() if term["weight"]} == {
        "diversity",
        "content_alignment",
        "complementarity",
    }
    assert "groundedness" not in terms, "MMR writes no sub-queries"
    assert found["reward"] == pytest.approx(sum(term["value"] * term["weight"] for term in terms.values()), abs=1e-6)
    kinds = {item["name"].split()[1] for item in found["items"]}
    assert terms["complementarity"]["value"] == pytest.approx(len(kinds) / 4)
    for name in ("content_alignment", "complementarity"):
        carried = sum(item["credit"][name] for item in found["items"])
        assert carried == pytest.approx(terms[name]["value"] * terms[name]["weight"], abs=1e-5)
    assert {item["item_id"] for item in found["items"]} <= set(NAMES)


def test_the_tables_name_terms_and_items(run: Path) -> None:
    shown = explain(run, "--method", "no_fanout")
    for word in ("complementarity", "content_alignment", "reward", "apple"):
        assert word in shown


def test_what_cannot_be_explained_says_why(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="r4t_folm"):
        explain(run, "--method", "r4t_folm")
    with pytest.raises(UserError, match="is no run directory"):
        explain(tmp_path)
