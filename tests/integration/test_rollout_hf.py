"""The transformers engine keeps the contract of the vLLM one: same seeds, same answers, same log-probabilities."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load_file, save_file
from support import descendants
from transformers import AutoModelForCausalLM

from cluster import engine
from cluster.engine import chosen_engine, open_engine, vllm_problem
from cluster.rollout_actor import start_rollout
from cluster.rollout_hf import TransformersEngine
from cluster.self_test import compare_digests
from cluster.single_rollout import SingleRollout
from r4t.config import Cluster, parse_config
from r4t.digest import tensor_digest
from r4t.errors import UserError
from r4t.types import Completion
from tests.integration.rl_fixtures import configuration

QUERIES = [(3, "cosy dinner"), (5, "light lunch in the park"), (8, "picnic")]


def model_gap(model: torch.nn.Module, completions: list[Completion], temperature: float = 1.0) -> float:
    """Largest difference of a log-probability from the model's own, without padding or cache."""
    worst = 0.0
    for c in completions:
        ids = torch.tensor([[*c.prompt_ids, *c.token_ids]])
        with torch.no_grad():
            law = (model(ids).logits[0, len(c.prompt_ids) - 1 : -1] / temperature).log_softmax(-1)
        own = law.gather(1, torch.tensor(c.token_ids)[:, None]).squeeze(1)
        worst = max(worst, float((own - torch.tensor(c.logprobs)).abs().max()))
    return worst


def test_log_probabilities_are_the_models_and_seeds_decide(model_dir: Path) -> None:
    config = configuration(rollout={"engine": "hf", "max_num_seqs": 5})
    own = open_engine(model_dir, config)
    assert isinstance(own, TransformersEngine)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    first = own.generate(QUERIES, samples=4, temperature=1.3, seed=7)
    assert [(c.query, c.sample) for c in first] == [(row, s) for row, _ in QUERIES for s in range(4)]
    assert model_gap(model, first, 1.3) < 1e-4
    assert all(len(c.token_ids) == len(c.logprobs) <= 24 for c in first)
    assert all(c.finished == (c.token_ids[-1] == own.tokenizer.eos_token_id) for c in first)
    apart = [c for n in (0, 2) for c in own.generate(QUERIES, samples=2, temperature=1.3, seed=7, first_sample=n)]
    assert {(c.query, c.sample): c.token_ids for c in apart} == {(c.query, c.sample): c.token_ids for c in first}
    assert [c.token_ids for c in own.generate(QUERIES, samples=4, temperature=1.3, seed=8)] != [
        c.token_ids for c in first
    ]
    greedy = own.generate(QUERIES, samples=2, temperature=0.0, seed=1, logprobs=False)
    assert [c.logprobs for c in greedy] == [()] * 6
    assert greedy[0].token_ids == greedy[1].token_ids


def test_new_weights_are_loaded_digested_and_carry_their_version(model_dir: Path, tmp_path: Path) -> None:
    own = TransformersEngine(model_dir, configuration())
    with pytest.raises(RuntimeError, match="no weights have arrived"):
        own.weight_digest()
    tensors = {name: tensor + 0.1 for name, tensor in load_file(model_dir / "model.safetensors").items()}
    save_file(tensors, tmp_path / "v3.safetensors")
    before = own.generate(QUERIES, samples=1, temperature=1.0, seed=7)
    own.load_weights(tmp_path / "v3.safetensors", 3)
    after = own.generate(QUERIES, samples=1, temperature=1.0, seed=7)
    assert {c.policy_version for c in before} == {0}
    assert {c.policy_version for c in after} == {3}
    assert [c.token_ids for c in before] != [c.token_ids for c in after]
    digests = own.weight_digest()
    compare_digests({name: tensor_digest(tensor) for name, tensor in tensors.items()}, digests, "it")
    assert digests["lm_head.weight"] == digests["model.embed_tokens.weight"], "the head is tied to the new embeddings"
    save_file({"other": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(RuntimeError, match="other weights than the model"):
        own.load_weights(tmp_path / "wrong.safetensors", 4)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_both_engines_give_the_same_answers_to_the_same_seeds(model_dir: Path) -> None:
    sampling = {"samples": 8, "temperature": 1.0, "seed": 7}
    worker = start_rollout(configuration(rollout={"engine": "vllm"}), model_dir)
    theirs = ray.get(worker.generate.remote(QUERIES, **sampling), timeout=300)
    ray.kill(worker)
    ours = TransformersEngine(model_dir, configuration()).generate(QUERIES, **sampling)  # type: ignore[arg-type]
    same = [(a, b) for a, b in zip(theirs, ours, strict=True) if a.token_ids == b.token_ids]
    assert len(same) >= 23, "a token may fall to the other side where two kernels round apart"
    assert max(float(np.abs(np.subtract(a.logprobs, b.logprobs)).max()) for a, b in same) < 1e-4
    assert all((a.query, a.sample, a.text, a.finished) == (b.query, b.sample, b.text, b.finished) for a, b in same)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_single_worker_that_dies_is_replaced_with_the_weights_it_had(model_dir: Path, tmp_path: Path) -> None:
    save_file(
        {name: tensor + 0.1 for name, tensor in load_file(model_dir / "model.safetensors").items()},
        tmp_path / "v1.safetensors",
    )
    own = TransformersEngine(model_dir, configuration())
    own.load_weights(tmp_path / "v1.safetensors", 1)
    expected = own.generate(QUERIES, samples=2, temperature=1.0, seed=7)
    said: list[str] = []
    config = configuration(rollout={"engine": "hf"})
    worker = SingleRollout(config.model_copy(update={"cluster": Cluster(max_restarts=1)}), model_dir, said.append)
    worker.load_weights(tmp_path / "v1.safetensors", 1)
    waited = worker.waited
    assert waited > 0

    def kill() -> None:
        (actor,) = [one for one in descendants(os.getpid()) if one.cmdline()[:1] == ["ray::RolloutWorker"]]
        actor.kill()

    kill()
    found = worker.generate(QUERIES, 2, 1.0, 7)
    assert [(c.token_ids, c.policy_version) for c in found] == [(c.token_ids, 1) for c in expected]
    assert worker.waited == waited, "only the first to ask waits for the start"
    assert len(said) == 1
    assert re.search(r"rollout worker \[0\] of 1 died .*: restart 1 of at most 1", said[0])
    kill()
    with pytest.raises(RuntimeError, match=r"died .* after 1 restarts \(cluster\.max_restarts\)"):
        worker.generate(QUERIES, 2, 1.0, 7)


def test_auto_takes_transformers_where_vllm_cannot_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    auto = configuration()
    old = tmp_path / "cpuinfo"
    old.write_text("flags : sse4_2 avx\n")
    monkeypatch.setattr("cluster.engine.platform", SimpleNamespace(machine=lambda: "x86_64"))
    assert "AVX2" in vllm_problem("cpu", old)
    assert vllm_problem("cuda", old) == ""
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda _: None)
    assert chosen_engine(auto) == "hf"
    assert "transformers samples instead" in engine.fallback_notice(auto)
    with pytest.raises(UserError, match=r"vLLM cannot run here: it is not installed\. .*rollout\.engine=hf"):
        chosen_engine(configuration(rollout={"engine": "vllm"}))
    with pytest.raises(UserError, match="vLLM cannot run here"):
        chosen_engine(parse_config({"cluster": {"device": "cuda"}}))


def test_the_transformers_engine_is_for_cpus() -> None:
    with pytest.raises(UserError, match=r"rollout\.engine 'hf' samples on the CPU"):
        parse_config({"cluster": {"device": "cuda"}, "rollout": {"engine": "hf"}})
