"""`r4t judge` over HTTP, from the shown sets of a run to its table."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from jobs import judge
from r4t.errors import UserError
from r4t.lineage import read_manifest, verify
from tests.unit.judge_fixtures import make_shown_run
from tests.unit.test_endpoint import KEY, Server, completion, says, send, server  # noqa: F401 (a fixture)


def verdict(body: dict[str, Any]) -> dict[str, Any]:
    """Scores by the rubric that the prompt holds: 2 for diversity, 4 for alignment, 3 and 5 for the pairs."""
    prompt = body["messages"][-1]["content"]
    if "categories_observed" in prompt:
        return {"score": 2, "reasoning": "alike", "categories_observed": []}
    if "relevant_items_count" in prompt:
        return {"score": 4, "reasoning": "fits", "relevant_items_count": 2, "total_items_count": 2}
    pairs = [{"subquery": "s", "score": score, "reasoning": "so"} for score in (3, 5)]
    return {"per_subquery_scores": pairs, "average_score": 1}


def test_a_run_is_judged_blindly_once_and_with_retries(server: Server, tmp_path: Path) -> None:  # noqa: F811
    seen: set[str] = set()

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        first = body["messages"][-1]["content"] not in seen
        seen.add(body["messages"][-1]["content"])
        send(handler, completion("hm" if first else json.dumps(verdict(body))))

    server.reply = reply
    run = make_shown_run(tmp_path / "run")
    settings = judge.endpoint(url=server.url, model="m", retries=3, concurrency=1)
    found = judge.main(run.config, run, settings)
    cells = {name: {d: (cell["mean"], cell["n"]) for d, cell in own.items()} for name, own in found["methods"].items()}
    assert cells["mmr"] == {"diversity": (40.0, 3), "alignment": (80.0, 3)}
    assert cells["r4t_folm"] == {"diversity": (40.0, 3), "alignment": (80.0, 3), "groundedness": (80.0, 2)}
    assert len(server.requests) == 2 * 8, "every different question once more after nonsense; equal sets share theirs"
    assert not [r for r in server.requests if "mmr" in json.dumps(r) or "folm" in json.dumps(r)]
    assert all(r["response_format"]["type"] == "json_schema" for r in server.requests)
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert verify(run.folder) == []
    server.reply = says("the cache was not asked")
    assert judge.main(run.config, run, settings) == found
    assert read_manifest(run.folder / "judge_llm")["metrics"]["requests"] == 0
    assert not [p for p in run.folder.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    run.close()


def test_nonsense_and_unknown_methods_are_refused_and_leave_nothing(server: Server, tmp_path: Path) -> None:  # noqa: F811
    server.reply = says("nonsense")
    run = make_shown_run(tmp_path / "run")
    settings = judge.endpoint(url=server.url, model="m", retries=0)
    with pytest.raises(UserError, match="got no usable answer"):
        judge.main(run.config, run, settings, with_schema=False)
    assert not any("response_format" in request for request in server.requests)
    with pytest.raises(UserError, match="did you mean 'mmr'"):
        judge.main(run.config, run, settings, ["mmrr"])
    assert not (run.folder / "judge_llm").exists()
    run.close()
