"""TRL's own trainer trains the small policy with R4T's reward, and what it saves is accepted as a run's policy."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from jobs import import_policy
from jobs.run import save_config
from r4t.errors import UserError
from r4t.fanout import format_answer
from r4t.interop.reward import open_reward
from r4t.interop.trl import trl_reward
from r4t.lineage import MANIFEST, read_manifest, read_tensors, verify
from tests.integration.small_run import NAMES, make_run, settings

ABSENT = "trl is not installed (`make install`)"
TRAINED = {"queries_per_step": 2, "group_size": 2, "updates_per_batch": 2, "max_tokens": 12, "lr": 1e-2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = settings()
    config = config.model_copy(update={"rl": config.rl.model_copy(update=TRAINED)})
    make_run(folder, config).close()
    save_config(folder, config)
    return folder


def test_the_reward_function_is_the_training_reward(run: Path) -> None:
    reward = open_reward(run)
    answers = [format_answer(NAMES[i : i + 4]) for i in range(3)] + ["?"]
    logged: dict[str, float] = {}
    function = trl_reward(reward)
    labels = ["q0", "q1", "q2", "q3"]
    rewards = function(prompts=[""] * 4, completions=answers, label=labels, log_metric=logged.__setitem__)
    scored = reward.scorer.score(range(4), answers)
    assert rewards == scored.rewards.tolist()
    assert logged["r4t/valid"] == 0.75
    assert logged["r4t/diversity"] == pytest.approx(float(scored.terms["diversity"][:3].sum()) / 4)
    chats = [[{"role": "assistant", "content": answer}] for answer in answers]
    assert function(completions=chats, label=labels) == rewards
    assert function.__name__ == "r4t", "TRL names its metrics after the function"
    with pytest.raises(UserError, match="no column 'label'"):
        function(completions=answers)


@pytest.mark.slow
def test_trl_trains_the_small_policy_and_the_run_takes_it_back(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason=ABSENT)
    pytest.importorskip("datasets", reason=ABSENT)
    example = _example()
    lines = example.train(run, tmp_path / "trained", steps=2)
    assert len(lines) == 2
    assert all("r4t/valid" in line for line in lines)
    assert all("rewards/r4t/mean" in line for line in lines)

    (run / "folm" / MANIFEST).unlink()  # a run whose reinforcement learning has not finished
    start = run / "folm" / "warm_start"
    import_policy.main(run, tmp_path / "trained", None, "trl")
    manifest = read_manifest(run / "folm")
    assert manifest is not None
    assert manifest["imported"]["trainer"] == "trl"
    assert verify(run) == []
    before, after = read_tensors(start / "model.safetensors"), read_tensors(run / "folm/policy/model.safetensors")
    assert any((before[name] != after[name]).any() for name in before), "it was trained"


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("trl_policy", ROOT / "examples" / "trl_policy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
