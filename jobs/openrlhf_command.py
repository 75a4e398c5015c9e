"""From R4T's configuration to the command of OpenRLHF's trainer, flag by flag (docs/openrlhf.md has the table)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from r4t.config import Config
from r4t.errors import UserError
from r4t.interop.prompts import LABEL, PROMPT

TESTED = "0.11.2"  # the one release whose flags, loss and reward format the tests hold
ADVICE = (
    f"pip install --no-deps openrlhf=={TESTED} (`make gpu` does; flash-attn must be compiled, as the image's target"
    " openrlhf does), or set rl.backend=native"
)


def check_backend(config: Config, installed: Callable[[str], str | None] | None = None) -> None:
    """Raises UserError for what OpenRLHF cannot train, and for versions it was not tested with.

    `installed` says which version of a package there is, if any.
    """
    for wrong, advice in (
        (config.cluster.device != "cuda", "trains on GPUs alone: set cluster.device=cuda"),
        (config.objective.credit == "row", "gives every token of an answer one advantage: set objective.credit=set"),
        (config.objective.reweighted, "takes the reward as it is: remove objective.schedule and objective.normalise"),
        (config.rl.staleness > 0, "bounds no answer's age: set rl.staleness=0 (its own: --train.async_enable)"),
        (config.policy.lora.rank > 0, "saves adapters, which later stages do not read: set policy.lora.rank=0"),
        (_rest(config) != 0, "gives every rank as many sequences: make the parts below divisible by learner.ranks"),
    ):
        if wrong:
            raise UserError(f"rl.backend is openrlhf, which {advice}; or set rl.backend=native")
    check_versions(installed or _installed)


def check_versions(installed: Callable[[str], str | None]) -> None:
    """Raises UserError unless OpenRLHF is the tested release, with the packages it pins."""
    found = installed("openrlhf")
    if found is None:
        raise UserError(f"rl.backend is openrlhf, and openrlhf is not installed: {ADVICE}")
    if found != TESTED:
        raise UserError(f"openrlhf {found} is installed; R4T was tested with {TESTED} alone: {ADVICE}")
    for name, pinned in pins().items():
        there = installed(name)
        if there != pinned:
            raise UserError(f"openrlhf {TESTED} needs {name} {pinned}, and {there or 'none'} is installed: {ADVICE}")


def pins() -> dict[str, str]:
    """Packages of which the installed OpenRLHF needs one version exactly, as its wheel declares."""
    wanted = [Requirement(line) for line in requires("openrlhf") or []]
    return {
        one.name: spec.version for one in wanted if not one.marker for spec in one.specifier if spec.operator == "=="
    }


def arguments(config: Config, *, policy: Path, prompts: Path, reward: str, output: Path) -> list[str]:
    """What follows `python -m openrlhf.cli.train_ppo_ray`. `reward` is a file or URLs with commas between."""
    rl, learner, size = config.rl, config.learner, micro_batch(config)
    warmed = rl.warmup_steps / max(rl.steps, 1)
    flags: dict[str, object] = {
        "--actor.model_name_or_path": policy,
        "--data.prompt_dataset": prompts,
        "--data.input_key": PROMPT,
        "--data.label_key": LABEL,
        "--data.max_len": config.policy.max_length,
        "--reward.remote_url": reward,
        "--ckpt.output_dir": output,
        "--ckpt.path": output.with_name("checkpoints"),
        "--ckpt.save_steps": rl.checkpoint_every,
        "--ckpt.max_num": rl.keep_last,
        "--ckpt.load_enable": True,
        "--actor.num_nodes": 1,
        "--actor.num_gpus_per_node": learner.ranks,
        "--vllm.num_engines": config.rollout.workers,
        "--train.colocate_all": config.rollout.colocate,
        "--vllm.enable_sleep": config.rollout.colocate,
        "--ds.enable_sleep": config.rollout.colocate,
        "--vllm.gpu_memory_utilization": 0.4 if config.rollout.colocate else 0.9,
        "--ds.zero_stage": learner.zero_stage,
        "--ds.param_dtype": "bf16",
        "--ds.attn_implementation": rl.openrlhf.attention,
        "--actor.gradient_checkpointing_enable": learner.gradient_checkpointing,
        "--rollout.batch_size": rl.queries_per_step,
        "--rollout.n_samples_per_prompt": rl.group_size,
        "--rollout.micro_batch_size": size,
        "--rollout.temperature": rl.temperature,
        "--rollout.top_p": 1.0,
        "--rollout.max_new_tokens": rl.max_tokens,
        "--train.batch_size": rl.queries_per_step * rl.group_size // rl.updates_per_batch,
        "--train.micro_batch_size": size,
        "--train.num_episodes": 1,
        "--train.max_epochs": 1,
        "--train.seed": config.seed,
        "--algo.advantage.estimator": "group_norm",
        "--algo.kl.init_coef": 0.0,
        "--algo.advantage.is_correction_level": "token",
        "--algo.advantage.is_correction_mode": "clip",
        "--algo.advantage.is_correction_threshold": (0.0, rl.importance_cap),
        "--actor.policy_loss_type": "ppo",
        "--actor.loss_agg_mode": "token-mean",
        "--actor.eps_clip": rl.clip,
        "--actor.adam.lr": rl.lr,
        "--actor.adam.betas": rl.betas,
        "--actor.adam.weight_decay": rl.weight_decay,
        "--actor.max_norm": rl.grad_clip,
        "--actor.lr_scheduler": "constant_with_warmup" if rl.final_lr is None else "cosine_with_min_lr",
        "--actor.lr_warmup_ratio": warmed,
        "--actor.min_lr_ratio": 1.0 if rl.final_lr is None else rl.final_lr / rl.lr,
    }
    return [*(word for name, value in flags.items() for word in _words(name, value)), *rl.openrlhf.extra]


def micro_batch(config: Config) -> int:
    """Sequences of one forward pass: at most `rl.openrlhf.micro_batch`, a divisor of a rank's part of an update."""
    share = _update(config) // config.learner.ranks
    return next(size for size in range(min(config.rl.openrlhf.micro_batch, share), 0, -1) if share % size == 0)


def _update(config: Config) -> int:
    return config.rl.queries_per_step * config.rl.group_size // config.rl.updates_per_batch


def _rest(config: Config) -> int:
    return _update(config) % config.learner.ranks


def _words(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [name] if value else []
    return [name, *map(str, value)] if isinstance(value, tuple) else [name, str(value)]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
