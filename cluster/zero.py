"""DeepSpeed's view of the policy: its configuration, and whole parameters where ZeRO-3 has cut them up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from cluster.adapters import Published, published
from cluster.devices import collectives_end_in_order, torch_dtype
from r4t.config import Config
from r4t.digest import tensor_digest

BUCKET_BYTES = 256 << 20  # of whole parameters that ZeRO-3 holds on every rank at one time


def deepspeed_config(config: Config, grad_clip: float) -> dict[str, Any]:
    """DeepSpeed's own configuration. Micro-batches are ours, so accumulation stays 1 and scales nothing.

    Of several parameters that it gathers at once DeepSpeed waits for the last alone. Where the others may then be on
    their way still, it is told to gather them one by one.
    """
    learner = config.learner
    half = torch_dtype(learner.dtype) is torch.bfloat16
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": grad_clip,
        "zero_optimization": {
            "stage": learner.zero_stage,
            "stage3_allgather_sequential": not collectives_end_in_order(config),
        },
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": half},
        "steps_per_print": 10**9,
    }


def gathered(
    parameters: list[torch.nn.Parameter], zero_stage: int, modifier_rank: int | None = None
) -> AbstractContextManager[Any]:
    """A context in which `parameters` are whole on every rank (ZeRO-3 partitions them)."""
    if zero_stage < 3:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters, modifier_rank=modifier_rank)


def whole_weights(
    module: torch.nn.Module, zero_stage: int, *, bucket_bytes: int = BUCKET_BYTES
) -> Iterator[tuple[str, torch.Tensor]]:
    """*Collective under ZeRO-3, to its end.* Every weight once, whole until the next is asked for.

    Names are Hugging Face's; a tied output head is left out, as there, and adapters are merged into what they adapt.
    ZeRO-3 gathers about `bucket_bytes` at a time.
    """
    for bucket in _buckets(module, bucket_bytes):
        with gathered([parameter for weight in bucket for parameter in weight.parameters], zero_stage):
            for weight in bucket:
                yield weight.name, weight.value()


def whole_size(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    """The shape of a parameter that ZeRO-3 may hold in parts."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def full_weights(
    module: torch.nn.Module, zero_stage: int, keep: bool, bucket_bytes: int = BUCKET_BYTES
) -> dict[str, torch.Tensor]:
    """*Collective under ZeRO-3.* `whole_weights`, copied to the CPU. Empty where `keep` is false."""
    return {
        name: weight.to("cpu", copy=True).contiguous()
        for name, weight in whole_weights(module, zero_stage, bucket_bytes=bucket_bytes)
        if keep
    }


def weight_digests(module: torch.nn.Module, zero_stage: int, dtype: torch.dtype, keep: bool) -> dict[str, str]:
    """*Collective under ZeRO-3.* Hash of every weight once cast to `dtype`, a tied head's included."""
    digests = {name: tensor_digest(weight.to(dtype)) for name, weight in whole_weights(module, zero_stage) if keep}
    first = {id(weight.base): weight.name for weight in published(module)}
    every = published(module, remove_duplicate=False)
    return {weight.name: digests[first[id(weight.base)]] for weight in every if keep}


def _buckets(module: torch.nn.Module, limit: int) -> Iterator[list[Published]]:
    bucket: list[Published] = []
    size = 0
    for weight in published(module):
        own = sum(torch.Size(whole_size(p)).numel() * p.element_size() for p in weight.parameters)
        if bucket and size + own > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append(weight)
        size += own
    if bucket:
        yield bucket
