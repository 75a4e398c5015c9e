"""How much memory every role needs, from the shapes of the policy and the catalogue.

Sums of what must be held, plus `RESIDENT`, what a process holds before it holds anything: on CPU chosen so that the
roles of the quickstart add up to its measured peak (5.8 GiB), for GPU machines an assumption.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import safe_open

from r4t.config import Config, Policy
from r4t.errors import UserError

GIB = float(2**30)
Kind = Literal["rollout", "learner", "scorer", "shard", "retriever", "driver"]
RESIDENT: dict[str, dict[Kind, float]] = {  # GiB of host memory: interpreter, libraries, communication
    "cpu": {"rollout": 1.0, "learner": 0.5, "scorer": 0.4, "shard": 0.4, "retriever": 0.5, "driver": 0.8},
    "cuda": {"rollout": 6.0, "learner": 4.0, "scorer": 2.0, "shard": 2.0, "retriever": 4.0, "driver": 2.0},
}
CONTEXT = 2.0  # GiB of GPU memory: CUDA context, NCCL, workspace, fragmentation
ACTIVATIONS = (
    34  # values of a layer kept for the backward pass, per token and hidden unit (attention without its matrix)
)
TEXTS = 1024  # bytes of an item's text and columns in the driver
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyShape:
    """What of a language model decides memory and time."""

    parameters: int
    hidden: int
    layers: int
    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory of one actor, in GiB."""

    host: float
    device: float = 0.0


def policy_shape(policy: Policy, parameters: float | None = None) -> PolicyShape:
    """The shape of a fresh policy, or of the model directory. `parameters`, where the directory is elsewhere.

    Raises UserError when the directory is not on this machine and no number was given.
    """
    if policy.model is None:
        return _fresh(policy)
    if (policy.model / "config.json").is_file():
        return _of_directory(policy.model)
    if parameters is None:
        raise UserError(
            f"policy.model {policy.model} is not on this machine: copy its config.json and weights here, or say how"
            " many parameters it has with --parameters, e.g. --parameters 1.7e9"
        )
    layers = max(1, round((parameters / (12 * 128**2)) ** (1 / 3)))
    return PolicyShape(parameters=int(parameters), hidden=128 * layers, layers=layers, vocabulary=128_000)


def denoiser_parameters(config: Config) -> int:
    """Parameters of the set denoiser; nothing is allocated."""
    import torch  # takes seconds, and the rest of this file needs it not

    from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser

    with torch.device("meta"):
        network = SetDenoiser(DenoiserConfig.of(config.retriever, config.encoder.dim, 0.1))
    return sum(parameter.numel() for parameter in network.parameters())


def footprints(config: Config, shape: PolicyShape, items: int) -> dict[Kind, Footprint]:
    """Memory of one actor of every role. On the CPU all of it is the host's."""
    vectors = vectors_gib(config, items)
    shards = config.index.shards
    denoiser = denoiser_parameters(config)
    held: dict[Kind, float] = {
        "rollout": engine(config, shape),
        "learner": learner_states(config, shape) + learner_activations(config, shape),
        "scorer": vectors if shards == 1 else 0.0,
        "shard": vectors / shards if shards > 1 else 0.0,
        "retriever": denoiser * 24 / GIB + denoiser_activations(config),
        "driver": 2 * vectors + items * TEXTS / GIB + denoiser * 8 / GIB,
    }
    resident = RESIDENT[config.cluster.device]
    on_device: set[Kind] = set()
    if config.cluster.device != "cpu":
        on_device |= {"rollout", "learner", "retriever"}
        on_device |= {"scorer", "shard"} if config.scorer.gpus else set()
    return {
        kind: Footprint(host=resident[kind], device=held[kind] + CONTEXT)
        if kind in on_device
        else Footprint(host=resident[kind] + held[kind])
        for kind in held
    }


def gpu_loads(config: Config, shape: PolicyShape, items: int) -> dict[str, float]:
    """GiB of GPU memory by who holds a GPU in stage folm; colocated, a GPU holds both and neither sleeps.

    Scorers, or the shards of the index, share a GPU where each asks for a part of one.
    """
    rollout = engine(config, shape) + CONTEXT
    learner = learner_states(config, shape) + learner_activations(config, shape) + CONTEXT
    loads = {"rollout worker": rollout, "learner rank": learner}
    if config.rollout.colocate:
        loads = {"GPU with a rollout worker and a learner rank": rollout + learner}
    if config.scorer.gpus:
        shards = config.index.shards
        searchers = shards if shards > 1 else config.scorer.workers
        part = vectors_gib(config, items) / shards
        together = min(searchers, int(1 / config.scorer.gpus + 1e-9))
        loads[f"GPU with {together} {'shards' if shards > 1 else 'scorers'}"] = together * (part + CONTEXT)
    return loads


def vectors_gib(config: Config, items: int) -> float:
    """GiB of the catalogue's vectors."""
    return items * config.encoder.dim * 4 / GIB


def engine(config: Config, shape: PolicyShape) -> float:
    """GiB of a rollout engine: weights and key-value cache."""
    return shape.parameters * BYTES[config.rollout.dtype] / GIB + config.rollout.kv_cache_gib


def learner_states(config: Config, shape: PolicyShape) -> float:
    """GiB of one rank's weights, gradients, fp32 master weights and Adam moments (ZeRO, Rajbhandari et al. 2020, 3)."""
    learner, ranks = config.learner, config.learner.ranks
    weights = gradients = BYTES[learner.dtype] * shape.parameters
    optimizer = (8 if learner.zero_stage == 0 and learner.dtype == "float32" else 12) * shape.parameters
    if config.policy.lora.rank:
        share = min(1.0, 2 * config.policy.lora.rank / shape.hidden)  # adapters beside the matrices they adapt
        gradients, optimizer = round(gradients * share), round(optimizer * share)
    stage = learner.zero_stage
    return (
        weights / (ranks if stage == 3 else 1)
        + gradients / (ranks if stage >= 2 else 1)
        + optimizer / (ranks if stage >= 1 else 1)
    ) / GIB


def learner_activations(config: Config, shape: PolicyShape) -> float:
    """GiB that one micro-batch keeps for its backward pass: the layers, and three copies of the answers' logits."""
    tokens, width = config.learner.micro_tokens, BYTES[config.learner.dtype]
    layer = ACTIVATIONS * shape.hidden * width
    kept = (
        shape.hidden * width * shape.layers + layer if config.learner.gradient_checkpointing else layer * shape.layers
    )
    answers = min(1.0, config.rl.max_tokens / config.policy.max_length)
    return tokens * (kept + answers * 3 * shape.vocabulary * 4) / GIB


def denoiser_activations(config: Config) -> float:
    """GiB of one rank's part of a batch of sets."""
    retriever = config.retriever
    rows = retriever.batch / retriever.ranks * retriever.rows
    return rows * retriever.layers * (ACTIVATIONS * retriever.hidden + 4 * retriever.mlp) * 4 / GIB


def _fresh(policy: Policy) -> PolicyShape:
    """Of the small Llama that `r4t.policy.create_policy` makes, its embeddings tied."""
    h, inner = policy.hidden, 8 * policy.hidden // 3 // 16 * 16
    layer = 4 * h * h + 3 * h * inner + 2 * h
    return PolicyShape(
        parameters=policy.vocab_size * h + policy.layers * layer + h,
        hidden=h,
        layers=policy.layers,
        vocabulary=policy.vocab_size,
    )


def _of_directory(folder: Path) -> PolicyShape:
    settings = json.loads((folder / "config.json").read_text())
    parameters = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="numpy") as file:
            parameters += sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
    if not parameters:
        raise UserError(f"policy.model {folder} has no .safetensors weights: save the model with save_pretrained")
    try:
        return PolicyShape(
            parameters=parameters,
            hidden=int(settings["hidden_size"]),
            layers=int(settings["num_hidden_layers"]),
            vocabulary=int(settings["vocab_size"]),
        )
    except KeyError as error:
        raise UserError(f"{folder}/config.json does not say {error}: is it a causal language model?") from None
