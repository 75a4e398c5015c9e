"""LoRA on real DeepSpeed ranks: only adapters train, everything outside sees merged weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ray.exceptions import RayTaskError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from r4t.config import Config
from r4t.errors import UserError
from tests.integration.rl_fixtures import Group, batch, configuration, group, model_logprobs, saved_state

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

TARGETS = ("q_proj", "down_proj")
RANK = 3


def lora(model_dir: Path, targets: tuple[str, ...] = TARGETS, **learner: object) -> Config:
    adapters = {"rank": RANK, "alpha": 6, "targets": list(targets)}
    return configuration(policy={"model": str(model_dir), "lora": adapters}, **learner)


def saved_and_next(ranks: Group, folder: Path) -> dict[str, torch.Tensor]:
    """One update, a checkpoint, one more update: the merged weights after it."""
    folder.mkdir()
    ranks("update", batch(), 0, 1e-2)
    ranks("save", folder)
    ranks("update", batch(), 1, 1e-2)
    return ranks.weights(folder / "next.safetensors")


def test_adapters_alone_train_and_outsiders_see_them_merged(model_dir: Path, tmp_path: Path) -> None:
    start = load_file(model_dir / "model.safetensors")
    with group(lora(model_dir, ranks=2, zero_stage=2), model_dir) as ranks:
        fresh = ranks.weights(tmp_path / "fresh.safetensors")
        assert fresh.keys() == start.keys()
        assert all(torch.equal(fresh[name], value) for name, value in start.items()), "a fresh adapter changes nothing"
        before = ranks("logprobs", batch())[0]
        after = saved_and_next(ranks, tmp_path / "saved")
        own = ranks("logprobs", batch())[0]
        assert abs(own - before).max() > 1e-3
        digests = ranks("weight_digest")[0]
    merged = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    merged.load_state_dict(after, strict=False)
    mask, seen = batch().mask, model_logprobs(merged, batch()).numpy()
    assert abs(own - seen)[mask].max() < 1e-4, "merged weights compute what the adapted learner does"
    for name, value in after.items():
        adapted = any(f".{target}." in name for target in TARGETS)
        change = value - start[name]
        assert bool(change.abs().max() > 0) == adapted, name
        if adapted:
            singular = torch.linalg.svdvals(change)
            assert singular[RANK] < 1e-3 * singular[0], f"{name} changed by a matrix of rank {RANK}"
    assert digests.keys() == {*start, "lm_head.weight"}, "the engines' names"
    assert {name.split(".")[-3] for name in saved_state(tmp_path / "saved", "exp_avg")} == {"lora_A", "lora_B"}


@pytest.mark.parametrize("other", [{"ranks": 1, "zero_stage": 0}, {"ranks": 2, "zero_stage": 3}], ids=["one", "zero-3"])
def test_a_checkpoint_of_adapters_continues_on_any_layout(model_dir: Path, tmp_path: Path, other: dict) -> None:
    with group(lora(model_dir, ranks=2, zero_stage=2), model_dir) as ranks:
        straight = saved_and_next(ranks, tmp_path / "saved")
    with group(lora(model_dir, **other), model_dir) as ranks:
        ranks("load", tmp_path / "saved")
        ranks("update", batch(), 1, 1e-2)
        moved = ranks.weights(tmp_path / "moved.safetensors")
    for name, value in straight.items():
        torch.testing.assert_close(moved[name], value, atol=2e-5, rtol=0)


def test_an_unknown_target_is_named(model_dir: Path) -> None:
    with (
        pytest.raises((UserError, RayTaskError), match=r"targets names query_key_value.*choose from down_proj"),
        group(lora(model_dir, targets=("query_key_value",), ranks=1), model_dir),
    ):
        pass
