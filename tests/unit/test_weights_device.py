"""The parts of the GPU weight transfer that need no GPU: what is announced is what is sent, and no two engines share a
rank. The transfers themselves are in tests/gpu."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.slow  # imports vLLM


def test_the_source_sends_what_it_announces() -> None:
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine

    from cluster.weights_device import LearnerSource

    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2)).bfloat16()
    source = LearnerSource(module, zero_stage=2, bucket_bytes=8)
    meta = source.metadata()
    sent = list(NCCLTrainerWeightTransferEngine._checked_iter(source, meta))
    assert [name for name, _ in sent] == [name for name, _ in module.named_parameters()]
    assert source.bytes == sum(tensor.numel() * 2 for _, tensor in sent) == 24
    assert [name for name, _ in source] == [name for name, _ in source], "a fresh pass every time"


def test_engines_take_nccl_ranks_after_the_learners() -> None:
    from cluster.weights_device import rank_offsets

    assert rank_offsets({"rank_offset": 1, "world_size": 4}, 3) == [{"rank_offset": i} for i in (1, 2, 3)]
    assert rank_offsets({"rank_offset": 1, "world_size": 9}, 2, split=4) == [{"rank_offset": 1}, {"rank_offset": 5}]
    assert rank_offsets({"packed": True}, 2) == [{}, {}]
