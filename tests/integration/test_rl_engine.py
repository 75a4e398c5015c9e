"""Stage 1 on the real engines: vLLM rollouts, DeepSpeed learners on gloo, weights moving between them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cluster.rollout_actor import start_rollout
from cluster.self_test import compare_digests, self_test
from cluster.weights import FileTransport, WeightChannel
from r4t.config import Config
from r4t.digest import tensor_digest
from r4t.types import Completion
from tests.integration.rl_fixtures import batch, configuration, group

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]
SPLIT = (  # each by another rule: fused rows, rows, columns, not at all
    "model.layers.1.self_attn.v_proj.weight", "model.layers.0.mlp.gate_proj.weight", "model.embed_tokens.weight",
    "model.layers.1.self_attn.o_proj.weight", "model.layers.0.mlp.down_proj.weight", "model.norm.weight",
)  # fmt: skip
QUERIES = [(3, "cosy dinner"), (5, "light lunch"), (8, "summer picnic")]


def test_rollouts_are_exact_versioned_and_follow_new_weights(model_dir: Path, tmp_path: Path) -> None:
    config = configuration(rollout={"max_num_seqs": 128})
    worker = start_rollout(config, model_dir)

    def generate(seed: int = 7) -> list[Completion]:
        return ray.get(worker.generate.remote(QUERIES, samples=4, temperature=1.0, seed=seed), timeout=300)

    first = generate()
    assert [(c.query, c.sample) for c in first] == [(row, s) for row, _ in QUERIES for s in range(4)]
    assert {c.policy_version for c in first} == {0}
    assert [c.token_ids for c in generate()] == [c.token_ids for c in first], "the same seed gives the same answers"
    assert [c.token_ids for c in generate(8)] != [c.token_ids for c in first]
    sampling = {"samples": 2, "temperature": 1.0, "seed": 7}
    parts = [ray.get(worker.generate.remote(QUERIES, **sampling, first_sample=n), timeout=300) for n in (0, 2)]
    apart = {(c.query, c.sample): c.token_ids for part in parts for c in part}
    assert apart == {(c.query, c.sample): c.token_ids for c in first}, "however a query's samples are shared out"
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    assert mismatch(model, first) < 1e-4, "the engine's log-probabilities are the model's"
    long = [(100 + i, " ".join(["green salad apple pie"] * 8 + [f"{i:03d}"])) for i in range(128)]
    many = ray.get(worker.generate.remote(long, samples=1, temperature=1.0, seed=7), timeout=300)
    assert sum(len(c.prompt_ids) for c in many) > 4096, "more prompt tokens than vLLM takes in one step"
    assert mismatch(model, many[::16]) < 1e-4
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(tmp_path)
    ray.get(worker.load_weights.remote(tmp_path / "model.safetensors", 3), timeout=60)
    second = generate()
    assert {c.policy_version for c in second} == {3}
    assert [c.token_ids for c in second] != [c.token_ids for c in first]
    assert mismatch(model, second) < 1e-4, "and they follow the new weights"
    ray.kill(worker)


def mismatch(model: torch.nn.Module, completions: list[Completion]) -> float:
    worst = 0.0
    for c in completions:
        ids = torch.tensor([[*c.prompt_ids, *c.token_ids]])
        with torch.no_grad():
            logprobs = model(ids).logits[0, :-1].log_softmax(-1)
        start = len(c.prompt_ids)
        own = logprobs[range(start - 1, ids.shape[1] - 1), ids[0, start:]]
        worst = max(worst, float((own - torch.tensor(c.logprobs)).abs().max()))
    return worst


@pytest.mark.parametrize(
    ("engine", "learner"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")]
)
def test_the_self_test_passes_on_what_was_published_and_names_what_was_not(
    model_dir: Path, tmp_path: Path, engine: str, learner: str
) -> None:
    config = configuration(rollout={"dtype": engine}, ranks=1, dtype=learner)
    worker = start_rollout(config, model_dir)
    with group(config, model_dir) as ranks, WeightChannel(config, ranks.learners, [worker], tmp_path) as channel:
        with pytest.raises(ray.exceptions.RayTaskError, match="no weights have arrived"):
            ray.get(worker.weight_digest.remote(), timeout=300)
        ranks("update", batch(), 0, 1e-3)
        channel.publish(1)
        gap = self_test(config, ranks.learners, [worker], QUERIES[0], 0)
        assert 0 <= gap < (1e-4 if engine == "float32" else 5e-2)
        first = channel.current
        assert first is not None
        tensors = load_file(first)
        for name in (
            "model.layers.1.self_attn.k_proj.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.norm.weight",
        ):
            spoilt = tmp_path / f"{name}.safetensors"
            row = tensors[name][-1:].flatten()[-1]
            save_file(tensors | {name: tensors[name].index_fill(0, torch.tensor([0]), float(row) + 1.0)}, spoilt)
            ray.get(worker.load_weights.remote(spoilt, 2), timeout=60)
            with pytest.raises(RuntimeError, match=f"rollout worker 0 .*: {name} differs"):
                self_test(config, ranks.learners, [worker], QUERIES[0], 0)
        ranks("update", batch(), 1, 1e-3)
        channel.publish(2)
        self_test(config, ranks.learners, [worker], QUERIES[0], 0)
        newest = channel.current
        assert newest is not None
        ray.get(worker.load_weights.remote(spoilt, 1), timeout=60)
        ray.get(channel.load(worker), timeout=60)
        self_test(config, ranks.learners, [worker], QUERIES[0], 0)  # as a restarted worker comes to the current version
        channel.publish(3)
        channel.wait()
        assert not first.exists(), "a file lives until the next is loaded"
        channel.publish(4)
        assert not newest.exists()
        assert channel.current is not None
        assert channel.current.exists()
        last = channel.current
        if (engine, learner) == ("float32", "float32"):
            check_that_who_does_not_load_is_named(config, ranks.learners, worker, tmp_path)
    assert not last.parent.exists()
    ray.kill(worker)


def check_that_who_does_not_load_is_named(config: Config, learners: list[Any], worker: Any, folder: Path) -> None:
    soon = config.model_copy(update={"cluster": config.cluster.model_copy(update={"call_timeout": 5.0})})
    files = FileTransport(soon, learners, folder)
    process = psutil.Process(ray.get(worker.__ray_call__.remote(lambda _: os.getpid())))
    files.send(5, [worker])
    files.wait()
    process.suspend()
    try:
        files.send(6, [worker])
        with pytest.raises(TimeoutError, match=r"rollout workers \[0\] did not load .* 5 s \(cluster.call_timeout\)"):
            files.wait()
    finally:
        process.resume()
    files.close()


def test_a_policy_split_over_two_processes_answers_and_holds_what_a_whole_one_does(
    model_dir: Path, tmp_path: Path
) -> None:
    config = configuration(rollout={"tensor_parallel": 2}, ranks=1)
    worker = start_rollout(config, model_dir)
    sampling = {"samples": 4, "temperature": 1.0, "seed": 7}
    answers = ray.get(worker.generate.remote(QUERIES, **sampling), timeout=300)
    assert mismatch(AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32), answers) < 1e-4
    assert ray.get(worker.generate.remote(QUERIES, **sampling), timeout=300) == answers
    with group(config, model_dir) as ranks, WeightChannel(config, ranks.learners, [worker], tmp_path) as channel:
        ranks("update", batch(), 0, 1e-3)
        channel.publish(1)
        assert 0 <= self_test(config, ranks.learners, [worker], QUERIES[0], 0) < 1e-4
        tensors = load_file(channel.current or "")
        for name in SPLIT:
            spoilt = tmp_path / f"{name}.safetensors"
            changed = tensors[name].clone()
            changed.view(-1)[-1] += 1.0  # in the share of the second process
            save_file(tensors | {name: changed}, spoilt)
            ray.get(worker.load_weights.remote(spoilt, 2), timeout=60)
            with pytest.raises(RuntimeError, match=f"rollout worker 0 .*: {name} differs"):
                self_test(config, ranks.learners, [worker], QUERIES[0], 0)
    ray.kill(worker)


def test_a_digest_tells_values_shapes_and_types_apart_but_not_the_sign_of_zero() -> None:
    tensor = torch.tensor([[0.0, 1.0]])
    assert tensor_digest(tensor) == tensor_digest(torch.tensor([[-0.0, 1.0]]))
    for other in (torch.tensor([[0.0, 1.0 + 1e-7]]), tensor.T, tensor.bfloat16()):
        assert tensor_digest(tensor) != tensor_digest(other)
    with pytest.raises(RuntimeError, match=r"rollout worker 1 .*: b never arrived"):
        compare_digests({"a": "1", "b": "2"}, {"a": "1"}, "rollout worker 1")
