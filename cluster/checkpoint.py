"""Learner checkpoints without pickle: fp32 master weights and Adam moments of each rank as safetensors.

DeepSpeed's wrapped optimiser holds, at every ZeRO stage, one fp32 tensor per parameter group partition (or the
parameters themselves at stage 0 in fp32). Saving those tensors with their moments is all that exact resumption needs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from r4t.errors import UserError


def gathered(module: torch.nn.Module, zero_stage: int, modifier_rank: int | None = None) -> AbstractContextManager[Any]:
    """A context in which every parameter is whole on every rank (ZeRO-3 partitions them)."""
    if zero_stage < 3:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=modifier_rank)


def full_weights(module: torch.nn.Module, zero_stage: int, keep: bool) -> dict[str, torch.Tensor]:
    """Whole weights in Hugging Face naming, on the CPU; collective under ZeRO-3. Empty where `keep` is false.

    A tied output head is left out, as Hugging Face does.
    """
    with gathered(module, zero_stage):
        if not keep:
            return {}
        named = dict(module.named_parameters())  # yields a shared parameter once, under its first name
        return {name: p.detach().to("cpu").clone().contiguous() for name, p in named.items()}


def save_rank(folder: Path, rank: int, optimizer: Any) -> None:
    """Writes this rank's master weights and moments to `folder/rank-<rank>.safetensors`."""
    tensors: dict[str, torch.Tensor] = {}
    for name, param, state in _slots(optimizer):
        tensors[f"{name}.master"] = param.detach().to("cpu").clone()
        for key, value in state.items():
            tensors[f"{name}.{key}"] = torch.as_tensor(value).detach().to("cpu").clone()
    save_file(tensors, folder / f"rank-{rank}.safetensors")


def load_rank(folder: Path, rank: int, optimizer: Any) -> None:
    """Puts a saved rank back. Raises UserError when the file does not fit this model and number of ranks."""
    path = folder / f"rank-{rank}.safetensors"
    if not path.is_file():
        raise UserError(f"{folder} has no checkpoint of rank {rank}: resume with the learner.ranks it was written with")
    tensors = load_file(path)
    for name, param, state in _slots(optimizer):
        saved = tensors.get(f"{name}.master")
        if saved is None or saved.shape != param.shape:
            raise UserError(f"{path} does not fit this model: resume with the configuration it was written with")
        param.data.copy_(saved)
        prefix = f"{name}."
        for key, value in tensors.items():
            if key.startswith(prefix) and key != f"{name}.master":
                slot = key.removeprefix(prefix)
                state[slot] = value.to(param.device) if value.ndim else value


def _slots(optimizer: Any) -> list[tuple[str, torch.Tensor, dict[str, Any]]]:
    base = getattr(optimizer, "optimizer", optimizer)
    return [
        (f"group{g}.param{p}", param, base.state[param])
        for g, group in enumerate(base.param_groups)
        for p, param in enumerate(group["params"])
    ]
