"""`r4t doctor` has the engines work: one that imports and computes nonsense, and one that does not start, are named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support import ROOT, r4t

from cluster import engine_check
from jobs.engine_checks import FIXES, engine_checks

pytestmark = pytest.mark.slow

LYING_FAISS = """
import numpy as np
class IndexFlatIP:
    def __init__(self, width): pass
    def add(self, vectors): pass
    def search(self, vectors, n): return None, np.zeros((len(vectors), n), dtype=int)
"""


def test_broken_engines_are_named_with_a_fix_and_an_exit_code(tmp_path: Path) -> None:
    (tmp_path / "faiss.py").write_text(LYING_FAISS)
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError('libcudart.so.99 is missing')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = r4t("doctor", "--json", "--storage", tmp_path / "runs", env={"PYTHONPATH": path})
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["packages"]["faiss"]["works"]  # importing it shows nothing
    checks = {check["name"]: check for check in found["checks"]}
    assert not checks["FAISS"]["ok"]
    assert "are not the nearest" in checks["FAISS"]["found"]
    assert checks["FAISS"]["fix"] == FIXES["faiss"]
    assert not checks["vLLM"]["ok"]
    assert "libcudart.so.99 is missing" in checks["vLLM"]["found"]
    assert "rollout.engine=hf" in checks["vLLM"]["fix"]
    assert checks["DeepSpeed"]["ok"], checks
    assert checks["transformers"]["ok"], checks


def test_a_learner_that_does_not_end_is_said_and_nothing_waits_for_its_weights() -> None:
    trained, search = engine_checks("cpu", timeout=0.2)
    assert (trained.name, trained.ok, search.name) == ("DeepSpeed", False, "FAISS")
    assert "did not end within 0.2 s" in trained.found
    assert trained.fix


def test_weights_that_arrive_otherwise_are_named(tmp_path: Path) -> None:
    """One process does both halves, with a digest that no engine can hold."""
    from r4t.policy import create_policy, train_tokenizer

    config = engine_check.settings("cpu")
    create_policy(tmp_path / engine_check.POLICY, train_tokenizer(engine_check.QUERIES, 512), config.policy, seed=0)
    (tmp_path / engine_check.WEIGHTS).write_bytes((tmp_path / "policy" / "model.safetensors").read_bytes())
    (tmp_path / engine_check.DIGESTS).write_text(json.dumps({"model.norm.weight": "other"}))
    with pytest.raises(RuntimeError, match=r"hf does not hold the published weights: model\.norm\.weight differs"):
        engine_check.main("hf", tmp_path, "cpu")
