"""The learner's end of a GPU weight transfer, on vLLM's trainer engines (`vllm.distributed.weight_transfer`, 0.29.0).

This file imports vLLM outside `cluster/rollout.py` because both ends of a packed broadcast must cut the byte stream
alike; the learner imports it only when `cluster.device` is `cuda`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray
import torch
from vllm.distributed.weight_transfer.base import ParamMeta, TrainerWeightTransferEngine, WeightSource
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo, IPCTrainerWeightTransferEngine
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

from cluster.adapters import published
from cluster.ports import free_port
from cluster.zero import BUCKET_BYTES, whole_size, whole_weights


class LearnerSource(WeightSource):
    """The policy's parameters, whole, in a fixed order; under ZeRO-3 every rank must iterate to the end."""

    def __init__(self, module: torch.nn.Module, zero_stage: int, bucket_bytes: int = BUCKET_BYTES) -> None:
        self.module, self.zero_stage, self.bucket_bytes = module, zero_stage, bucket_bytes

    def metadata(self) -> list[ParamMeta]:
        return [ParamMeta(w.name, w.base.dtype, whole_size(w.base)) for w in published(self.module)]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in whole_weights(self.module, self.zero_stage, bucket_bytes=self.bucket_bytes):
            # ZeRO-3 takes the storage back when the bucket closes, while a packed send may still be reading it.
            yield name, weight.clone() if self.zero_stage == 3 else weight

    @property
    def bytes(self) -> int:
        return sum(torch.Size(meta.shape).numel() * meta.dtype.itemsize for meta in self.metadata())


class EngineClient:
    """What vLLM's trainer engine asks of the rollout workers, each an engine of its own (no data parallelism).

    split: over how many GPUs each splits the policy. vLLM's Ray client sends every actor the same `rank_offset`, so
    that several engines would claim one NCCL rank.
    """

    def __init__(self, rollouts: Sequence[Any], timeout: float, split: int = 1) -> None:
        self.rollouts, self.timeout, self.split = rollouts, timeout, split
        self.version = 0

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._all("init", [init_info | offset for offset in self._offsets(init_info)])

    def _offsets(self, init_info: dict[str, Any]) -> list[dict[str, int]]:
        return rank_offsets(init_info, len(self.rollouts), self.split)

    def start_weight_update(self) -> None:
        self._all("start", [{}] * len(self.rollouts))

    def update_weights(self, update_info: Any) -> None:
        self._all("update", [update_info] * len(self.rollouts))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        del weight_version  # vLLM's sender gives none; ours is a number
        self._all("finish", [{"version": self.version}] * len(self.rollouts))

    def _all(self, step: str, payloads: Sequence[dict[str, Any]]) -> None:
        calls = [worker.transfer_weights.remote(step, own) for worker, own in zip(self.rollouts, payloads, strict=True)]
        _, missing = ray.wait(calls, num_returns=len(calls), timeout=self.timeout)
        if missing:
            late = [i for i, call in enumerate(calls) if call in missing]
            raise TimeoutError(f"rollout workers {late} did not answer '{step}' of a weight transfer in time")
        ray.get(calls)


def rank_offsets(init_info: dict[str, Any], engines: int, split: int = 1) -> list[dict[str, int]]:
    """Engines follow the learner's NCCL rank 0, each with `split` ranks; CUDA IPC has none."""
    return [{"rank_offset": 1 + i * split} if "rank_offset" in init_info else {} for i in range(engines)]


class DeviceSender:
    """*Collective.* Meets the rollout workers; then sends them version after version, `kind` "nccl" or "ipc"."""

    def __init__(self, kind: str, rank: int, source: LearnerSource, client: EngineClient) -> None:
        self.source, self.client = source, client
        self.engine: TrainerWeightTransferEngine[Any]
        if kind == "ipc":
            ipc = IPCTrainerInitInfo(rank=rank, packed=True)
            self.engine = IPCTrainerWeightTransferEngine.trainer_init(ipc, client=client, source=source)
            return
        nccl = NCCLTrainerInitInfo(
            rank=rank,
            master_address=ray.util.get_node_ip_address(),
            master_port=free_port(),
            world_size=1 + len(client.rollouts) * client.split,
        )
        self.engine = NCCLTrainerWeightTransferEngine.trainer_init(nccl, client=client, source=source)

    def send(self, version: int) -> int:
        """*Collective.* Returns the bytes, when every rollout worker answers with `version`."""
        self.client.version = version
        self.engine.send_weights()
        return self.source.bytes
