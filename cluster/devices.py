"""The one place that tells CPU from GPU: the environment, resources and torch device of every role."""

from __future__ import annotations

import os
from typing import Literal

import torch

from r4t.config import Config
from r4t.processor import lacks_bfloat16
from r4t.seats import Role, gpus, shares_gpus

SLOW_BFLOAT16 = "this processor multiplies bfloat16 several times slower than float32, so take float32 in a new run"


def cores() -> int:
    return len(os.sched_getaffinity(0))


def role_environment(role: Role, config: Config) -> dict[str, str]:
    """Environment variables an actor of `role` must start with, before it imports torch, vLLM or DeepSpeed."""
    env = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "PYTHONUNBUFFERED": "1",
    }
    own = {
        "rollout": config.rollout.threads or max(1, cores() // config.rollout.tensor_parallel),
        "scorer": config.scorer.threads or max(1, cores() // config.scorer.workers),
        "shard": max(1, cores() // config.index.shards),
        "learner": config.learner.threads or max(1, cores() // config.learner.ranks),
    }
    env["OMP_NUM_THREADS"] = str(own[role])
    if role == "rollout":
        env |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    if config.cluster.device == "cpu":
        env |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        env["TORCHDYNAMO_DISABLE"] = "1"  # compiling costs seconds at start and needs a C++ compiler
    return env


def weight_transport(config: Config) -> Literal["file", "nccl", "ipc"]:
    """How weights travel from the learners to the rollout workers."""
    if config.cluster.device == "cpu":
        return "file"
    return "ipc" if shares_gpus(config) else "nccl"


def torch_device(config: Config) -> torch.device:
    return torch.device("cuda", 0) if config.cluster.device == "cuda" else torch.device("cpu")


def search_device(config: Config) -> torch.device:
    """Where scorers and shards of the index search: on the GPU of which they hold a share, if they do."""
    return torch_device(config) if gpus("scorer", config) else torch.device("cpu")


def collective_backend(config: Config) -> str:
    return "nccl" if config.cluster.device == "cuda" else "gloo"


def collectives_end_in_order(config: Config) -> bool:
    """NCCL's do, on one stream; gloo's threads work on several at once."""
    return collective_backend(config) == "nccl"


def torch_dtype(name: str) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def bfloat16_notice(config: Config) -> str:
    """What to tell who asks for bfloat16 of a processor that is slow at it; empty elsewhere."""
    if config.cluster.device != "cpu" or not lacks_bfloat16():
        return ""
    asked = [name for name in ("learner", "rollout") if getattr(config, name).dtype == "bfloat16"]
    return f"{' and '.join(f'{name}.dtype=bfloat16' for name in asked)}: {SLOW_BFLOAT16}" if asked else ""
