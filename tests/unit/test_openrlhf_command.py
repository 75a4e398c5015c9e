"""Every flag of the launcher is one that OpenRLHF's own parser and checks accept, with the value R4T means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openrlhf_wheel
import pytest
from support import ROOT

from jobs import openrlhf_command
from jobs.openrlhf_command import TESTED, arguments, check_backend, check_versions, micro_batch
from r4t.config import Config, parse_config
from r4t.errors import UserError

PATHS = {"policy": Path("/p/warm"), "prompts": Path("/p/prompts.jsonl"), "output": Path("/p/out/policy")}
CUDA = {"cluster": {"device": "cuda"}}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return openrlhf_wheel.package(tmp_path_factory.mktemp("openrlhf"))


def parsed(package: Path, config: Config, reward: str = "/r/reward.py") -> Any:
    return openrlhf_wheel.parse_command(package, arguments(config, reward=reward, **PATHS))


VARIED: dict[str, Any] = {
    "seed": 7,
    "policy": {"max_length": 300},
    "rl": {
        "steps": 40, "queries_per_step": 12, "group_size": 6, "updates_per_batch": 3, "lr": 3e-5, "final_lr": 6e-6,
        "warmup_steps": 4, "betas": [0.8, 0.99], "weight_decay": 0.1, "grad_clip": 0.5, "clip": 0.3, "temperature": 0.9,
        "max_tokens": 100, "importance_cap": 3.0, "checkpoint_every": 5, "keep_last": 4,
        "openrlhf": {"micro_batch": 5, "attention": "sdpa", "extra": ["--train.colocate_actor_ref"]},
    },
    "rollout": {"workers": 2, "colocate": True},
    "learner": {"ranks": 2, "zero_stage": 3, "gradient_checkpointing": True},
}  # fmt: skip


def test_openrlhf_accepts_the_command_of_the_defaults(package: Path) -> None:
    config = parse_config({})
    found = parsed(package, config)
    assert found.actor.eps_clip_low_high == (config.rl.clip, config.rl.clip)
    assert found.reward.remote_url == ["/r/reward.py"]
    assert found.critic.model_name_or_path is None
    assert found.algo.kl.init_coef == 0
    assert not found.train.colocate_all
    assert found.actor.lr_scheduler == "constant_with_warmup"


def test_every_key_arrives_where_it_means_the_same(package: Path) -> None:
    config = parse_config(VARIED)
    found = parsed(package, config, "http://a:1/get_reward,http://b:1/get_reward")
    rl = config.rl
    pairs: list[tuple[Any, Any]] = [
        (found.actor.model_name_or_path, "/p/warm"),
        (found.data.prompt_dataset, "/p/prompts.jsonl"),
        ((found.data.input_key, found.data.label_key), ("prompt", "label")),
        (found.data.max_len, 300),
        (tuple(found.reward.remote_url), ("http://a:1/get_reward", "http://b:1/get_reward")),
        ((found.ckpt.output_dir, found.ckpt.path), ("/p/out/policy", "/p/out/checkpoints")),
        ((found.ckpt.save_steps, found.ckpt.max_num, found.ckpt.load_enable), (5, 4, True)),
        ((found.actor.num_gpus_per_node, found.vllm.num_engines, found.actor.num_nodes), (2, 2, 1)),
        ((found.train.colocate_all, found.vllm.enable_sleep, found.ds.enable_sleep), (True, True, True)),
        ((found.ds.zero_stage, found.ds.attn_implementation, found.ds.param_dtype), (3, "sdpa", "bf16")),
        ((found.actor.gradient_checkpointing_enable, found.train.colocate_actor_ref), (True, True)),
        ((found.rollout.batch_size, found.rollout.n_samples_per_prompt), (12, 6)),
        ((found.train.batch_size, found.train.micro_batch_size, found.rollout.micro_batch_size), (24, 4, 4)),
        ((found.train.num_episodes, found.train.max_epochs, found.train.seed), (1, 1, 7)),
        ((found.rollout.temperature, found.rollout.top_p, found.rollout.max_new_tokens), (0.9, 1.0, 100)),
        (found.algo.advantage.estimator, "group_norm"),
        (found.algo.advantage.is_correction_level, "token"),
        ((found.algo.advantage.is_correction_mode, found.algo.advantage.is_correction_gating), ("clip", "ratio")),
        (tuple(found.algo.advantage.is_correction_threshold), (0.0, 3.0)),
        ((found.actor.policy_loss_type, found.actor.loss_agg_mode, found.actor.dual_clip), ("ppo", "token-mean", None)),
        (found.actor.eps_clip_low_high, (0.3, 0.3)),
        ((found.actor.adam.lr, tuple(found.actor.adam.betas)), (3e-5, (0.8, 0.99))),
        ((found.actor.adam.weight_decay, found.actor.max_norm), (0.1, 0.5)),
        ((found.actor.lr_scheduler, found.actor.lr_warmup_ratio), ("cosine_with_min_lr", 0.1)),
        (found.actor.min_lr_ratio, pytest.approx(0.2)),
    ]
    assert [pair for pair in pairs if pair[0] != pair[1]] == []
    prompts = rl.steps * rl.queries_per_step
    assert prompts * rl.group_size // found.train.batch_size == rl.steps * rl.updates_per_batch, "optimiser steps"


def test_every_flag_is_in_the_table_of_the_docs() -> None:
    table = (ROOT / "docs" / "openrlhf.md").read_text()
    config = parse_config(VARIED | {"rl": VARIED["rl"] | {"openrlhf": {"extra": []}}})
    flags = [word for word in arguments(config, reward="r", **PATHS) if word.startswith("--")]
    assert [flag for flag in flags if f"`{flag}`" not in table] == []


def test_the_check_of_the_parser_can_fail(package: Path) -> None:
    config = parse_config({"rl": {"openrlhf": {"extra": ["--algo.soft_grpo", "1"]}}})
    with pytest.raises(SystemExit):
        parsed(package, config)


@pytest.mark.parametrize("url", ["http://r4t:hidden@a/get_reward", "a:5000", "http://a,http://hidden"])
def test_a_reward_url_holds_no_key_and_the_message_none_either(url: str) -> None:
    with pytest.raises(UserError, match="R4T_REWARD_KEY") as refused:
        parse_config({"rl": {"openrlhf": {"reward_urls": [url]}}})
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(("most", "ranks", "expected"), [(8, 2, 8), (5, 2, 4), (7, 1, 4), (100, 2, 16), (1, 4, 1)])
def test_micro_batches_divide_a_ranks_part(most: int, ranks: int, expected: int) -> None:
    rl = {"queries_per_step": 16, "group_size": 8, "updates_per_batch": 4, "openrlhf": {"micro_batch": most}}
    assert micro_batch(parse_config({"rl": rl, "learner": {"ranks": ranks}})) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cluster": {"device": "cpu"}}, r"set cluster\.device=cuda"),
        ({"objective": {"credit": "row"}}, r"set objective\.credit=set"),
        ({"objective": {"normalise": "group"}}, r"remove objective\.schedule"),
        ({"rl": {"staleness": 1}}, r"set rl\.staleness=0"),
        ({"policy": {"model": "/m", "lora": {"rank": 4}}}, r"set policy\.lora\.rank=0"),
        ({"rl": {"queries_per_step": 3, "group_size": 4, "updates_per_batch": 4}}, r"divisible by learner\.ranks"),
    ],
)
def test_what_openrlhf_cannot_train_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_backend(parse_config(CUDA | changes), lambda _: TESTED)


def test_a_drifted_version_is_refused_with_the_tested_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openrlhf_command, "pins", lambda: {"deepspeed": "0.19.6", "flash-attn": "2.8.3"})
    good = {"openrlhf": TESTED, "deepspeed": "0.19.6", "flash-attn": "2.8.3"}
    check_versions(good.get)
    for changed, message in (
        ({"openrlhf": "0.11.3"}, "openrlhf 0.11.3 is installed; R4T was tested with 0.11.2 alone"),
        ({"openrlhf": None}, "openrlhf is not installed: pip install --no-deps openrlhf==0.11.2"),
        ({"deepspeed": "0.19.7"}, "needs deepspeed 0.19.6, and 0.19.7 is installed"),
        ({"flash-attn": None}, "needs flash-attn 2.8.3, and none is installed"),
    ):
        with pytest.raises(UserError, match=message.replace(".", r"\.")):
            check_versions((good | changed).get)


def test_the_pins_are_those_of_its_wheel() -> None:
    pytest.importorskip("openrlhf", reason=openrlhf_wheel.ABSENT)
    assert openrlhf_command.pins() == {
        "deepspeed": "0.19.6", "flash-attn": "2.8.3", "ray": "2.55.0", "transformers": "5.15.0",
    }  # fmt: skip
