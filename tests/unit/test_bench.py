"""`r4t bench`: what it shortens, and the file it leaves. A real one is in tests/e2e/test_cluster_job.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ROOT

from jobs.bench import measure, shortened
from jobs.shipped_configs import names, path_of
from r4t.config import flatten, load_config
from r4t.errors import UserError

KEYS = {
    "name", "rl.steps", "rl.validate_every", "rl.validate_queries", "retriever.steps", "retriever.validate_every",
    "distill.steps", "distill.validate_every", "evaluate.queries", "data.n_queries",
}  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_only_what_repeats_is_shortened(name: str) -> None:
    whole = load_config(path_of(name))
    before, after = flatten(whole), flatten(shortened(whole))
    assert {key for key in before if before[key] != after[key]} <= KEYS
    assert after["name"] == f"bench-{whole.name}"
    for key in ("rl.steps", "rl.validate_queries", "retriever.steps", "evaluate.queries", "data.n_queries"):
        assert 0 < after[key] <= before[key], key


def test_a_short_configuration_stays_as_short() -> None:
    tiny = load_config(ROOT / "tests" / "e2e" / "tiny.yaml")
    short = shortened(tiny)
    assert (short.rl.steps, short.retriever.steps, short.evaluate.queries, short.data.n_queries) == (2, 20, 4, 40)


@pytest.mark.parametrize("content", ["[]", '{"rates": 3}', "no JSON"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    out = tmp_path / "rates.json"
    out.write_text(content)
    with pytest.raises(UserError, match=r"rates\.json"):
        measure(load_config(path_of("quickstart")), tmp_path / "run", out)
    assert out.read_text() == content
    assert not (tmp_path / "run").exists(), "nothing started"
