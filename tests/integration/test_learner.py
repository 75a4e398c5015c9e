"""The policy learner on real DeepSpeed ranks: one gradient whatever the layout, and masters that keep small steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from r4t.update_stats import merge_ranks
from tests.integration.rl_fixtures import batch, configuration, group, model_logprobs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def reference(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], dict]:
    """One rank, no ZeRO, everything in one micro-batch: Adam's first moment after an update, which is 0.1 gradient."""
    with group(configuration(1, ranks=1, zero_stage=0, micro_tokens=10**6), model_dir) as ranks:
        stats = merge_ranks(ranks("update", batch(), 0, 1e-3))
        return ranks.state(tmp_path_factory.mktemp("reference"), "exp_avg"), stats


@pytest.mark.parametrize(
    "learner",
    [
        {"ranks": 1, "zero_stage": 2, "micro_tokens": 50},
        {"ranks": 2, "zero_stage": 0, "micro_tokens": 50},
        {"ranks": 2, "zero_stage": 2},
        {"ranks": 2, "zero_stage": 2, "micro_tokens": 1},
        {"ranks": 2, "zero_stage": 2, "micro_tokens": 50, "gradient_checkpointing": True},
        {"ranks": 2, "zero_stage": 3, "micro_tokens": 1, "gradient_checkpointing": True},
    ],
    ids=lambda learner: "-".join(f"{key}={value}" for key, value in learner.items()),
)
def test_the_gradient_is_the_same_on_any_layout(
    model_dir: Path, tmp_path: Path, reference: tuple[dict[str, torch.Tensor], dict], learner: dict
) -> None:
    gradient, stats = reference
    with group(configuration(1, **learner), model_dir) as ranks:
        merged = merge_ranks(ranks("update", batch(), 0, 1e-3))
        moments = ranks.state(tmp_path / "state", "exp_avg")
        whole, cut = ranks.weights(tmp_path / "whole.safetensors"), ranks.weights(tmp_path / "cut.safetensors", 4096)
    assert moments.keys() == gradient.keys()
    for name, expected in gradient.items():
        assert expected.abs().max() > 0, "every parameter has a gradient"
        torch.testing.assert_close(moments[name], expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert merged["tokens"] == stats["tokens"] == batch().mask.sum()
    for name in ("policy_loss", "mismatch", "mismatch_max", "mismatch_p95", "importance", "truncated"):
        assert merged[name] == pytest.approx(stats[name], rel=1e-3, abs=1e-5), name
    start = load_file(model_dir / "model.safetensors")
    assert whole.keys() == cut.keys() == start.keys()
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), "gathered in one bucket or in many"
        assert not torch.equal(value, start[name]), "every parameter moved"


def test_log_probabilities_are_the_models_own_wherever_a_token_is_trained(model_dir: Path) -> None:
    sequences = batch()
    with group(configuration(ranks=1), model_dir) as ranks:
        own = torch.from_numpy(ranks("logprobs", sequences)[0])
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    mask, expected = torch.from_numpy(sequences.mask), model_logprobs(model, sequences)
    torch.testing.assert_close(own[mask], expected[mask], rtol=1e-4, atol=1e-5)
    prompt = int(mask.any(0).int().argmax())
    assert prompt > 0
    assert not own[:, :prompt].any(), "no logits where every sequence still reads its prompt"


def test_c20_an_update_takes_several_steps_and_reports_ratio_and_clipping(model_dir: Path) -> None:
    sequences = batch()
    with group(configuration(ranks=1), model_dir) as ranks:
        before = ranks("logprobs", sequences)[0][sequences.mask]
        merged = merge_ranks(ranks("update", sequences, 0, 1e-2))
    assert merged["nll"] == pytest.approx(-before.mean(), rel=1e-5), "every step compares with the policy of before"
    assert merged["ratio_max"] > 1.001, "the second step sees a ratio other than one"
    assert {"clipped", "kl_policy_old", "kl_old_policy", "mismatch_max"} <= merged.keys()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_c22_a_tiny_update_moves_the_fp32_master_weights(model_dir: Path, tmp_path: Path, stage: int) -> None:
    """Steps of 1e-7 vanish in bf16 near 0.02 (spacing 1.2e-4); the masters must keep them."""
    with group(configuration(ranks=1, dtype="bfloat16", zero_stage=stage), model_dir) as ranks:
        before = ranks.state(tmp_path / "before")
        lived = ranks.weights(tmp_path / "before.safetensors")
        ranks("update", batch(), 0, 1e-7)
        after = ranks.state(tmp_path / "after")
        lives = ranks.weights(tmp_path / "after.safetensors")
    for name, master in before.items():
        assert master.dtype == torch.float32
        assert 0 < (after[name] - master).abs().max() < 1e-5, name
        assert lived[name].dtype == torch.bfloat16
    same = [name for name in lived if torch.equal(lived[name], lives[name])]
    assert same, "and bf16 alone would have lost them"
