"""The extended policy loss on a GPU: its value and gradient are those on the CPU, in fp32 and in bf16."""

from __future__ import annotations

from pathlib import Path

import openrlhf_wheel
import pytest
import torch

from r4t.interop.openrlhf_loss import soft_grpo_policy_loss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_a_gpu_computes_what_the_cpu_does(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    module = openrlhf_wheel.loss_module(openrlhf_wheel.package(tmp_path))
    g = torch.Generator().manual_seed(0)
    old = (-torch.rand((32, 64), generator=g) * 4).to(dtype)
    start = (old.float() + 0.3 * torch.randn((32, 64), generator=g)).to(dtype)
    advantages = torch.randn((32, 64), generator=g)
    mask = (torch.rand((32, 64), generator=g) < 0.7).float()
    correction = {"is_correction_level": "token", "is_correction_mode": "clip", "is_correction_threshold": [0.0, 2.0]}
    loss = soft_grpo_policy_loss(module, 0.05, 0.05)(**correction)
    found = []
    for device in ("cpu", "cuda"):
        x = start.to(device).requires_grad_()
        value = loss(x, *(tensor.to(device) for tensor in (old, advantages, mask, old)))[0]
        value.backward()
        assert x.grad is not None
        found.append((value.detach().float().cpu(), x.grad.float().cpu()))
    (cpu_value, cpu_gradient), (gpu_value, gpu_gradient) = found
    assert float((cpu_value - gpu_value).abs()) < tolerance
    assert float((cpu_gradient - gpu_gradient).abs().max()) < tolerance
