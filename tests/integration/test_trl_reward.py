"""TRL's own trainer trains the small policy with R4T's reward, and what it saves is accepted as a run's policy."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs import import_policy
from jobs.run import save_config
from r4t.errors import UserError
from r4t.fanout import build_prompt, format_answer
from r4t.interop.reward import open_reward
from r4t.interop.trl import trl_reward
from r4t.lineage import MANIFEST, read_manifest, read_tensors
from r4t.verify import verify
from tests.integration.small_run import NAMES, QUERIES, make_run, settings

ABSENT = "trl is not installed (`make install`)"
TRAINED = {"queries_per_step": 2, "group_size": 4, "updates_per_batch": 2, "max_tokens": 20, "lr": 1e-3}


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
    start = run / "folm" / "warm_start"
    _teach(start)
    lines = _example().train(run, tmp_path / "trained", steps=4)
    assert len(lines) == 2, "one line for each batch of completions"
    assert all("rewards/r4t/mean" in line for line in lines)
    assert max(line["r4t/valid"] for line in lines) > 0

    (run / "folm" / MANIFEST).unlink()  # a run whose reinforcement learning has not finished
    import_policy.main(run, tmp_path / "trained", None, "trl")
    manifest = read_manifest(run / "folm")
    assert manifest is not None
    assert manifest["imported"]["trainer"] == "trl"
    assert verify(run) == []
    before, after = read_tensors(start / "model.safetensors"), read_tensors(run / "folm/policy/model.safetensors")
    assert any((before[name] != after[name]).any() for name in before), "it was trained"


def _teach(folder: Path) -> None:
    """A minimal warm start: without one no answer of so small a policy can be read, and no reward differs."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=5e-3), random.Random(0)
    for _ in range(120):
        asked = [build_prompt(rng.choice(QUERIES), style="compact", task="oar", domain="", k=4) for _ in range(16)]
        texts = [prompt + format_answer([rng.choice(NAMES)]) + tokenizer.eos_token for prompt in asked]
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("trl_policy", ROOT / "examples" / "trl_policy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
