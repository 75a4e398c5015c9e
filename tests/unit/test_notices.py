"""What a run says first: that this machine is slower at its configuration than another might be."""

from __future__ import annotations

import pytest

import cluster.devices
import cluster.engine
from cluster.devices import bfloat16_notice
from jobs.pipeline import _notices
from r4t.config import parse_config


def test_who_asks_a_processor_for_what_it_is_slow_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    half = {"learner": {"dtype": "bfloat16"}, "rollout": {"dtype": "bfloat16"}}
    monkeypatch.setattr(cluster.devices, "lacks_bfloat16", lambda: True)
    assert bfloat16_notice(parse_config(half)).startswith("learner.dtype=bfloat16 and rollout.dtype=bfloat16: this")
    assert bfloat16_notice(parse_config({"rollout": half["rollout"]})).startswith("rollout.dtype=bfloat16: this")
    assert bfloat16_notice(parse_config({})) == ""
    assert bfloat16_notice(parse_config(half | {"cluster": {"device": "cuda"}})) == ""
    monkeypatch.setattr(cluster.devices, "lacks_bfloat16", lambda: False)
    assert bfloat16_notice(parse_config(half)) == ""


def test_a_run_tells_of_the_engine_and_of_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.engine, "vllm_problem", lambda _: "it is not installed")
    monkeypatch.setattr(cluster.devices, "lacks_bfloat16", lambda: True)
    engine, numbers = _notices(parse_config({"learner": {"dtype": "bfloat16"}}))
    assert "transformers samples instead" in engine
    assert "several times slower" in numbers
    monkeypatch.setattr(cluster.engine, "vllm_problem", lambda _: "")
    assert _notices(parse_config({})) == []
