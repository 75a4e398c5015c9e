"""A recorded sampler against the one it was recorded from, on a GPU."""

from __future__ import annotations

import pytest
import torch

from r4t.config import Sampler, parse_config
from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser
from r4t.diffusion.recorded import RecordedSampler
from r4t.diffusion.sampler import SetSampler

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs a GPU that torch can use"),
]


@pytest.mark.parametrize("name", ["dpmpp_2m", "euler_maruyama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_replay_gives_the_samplers_rows(name: str, dtype: torch.dtype) -> None:
    device = torch.accelerator.current_accelerator()
    torch.manual_seed(0)
    config = parse_config({"retriever": {"rows": 4, "hidden": 16, "mlp": 16, "heads": 2, "layers": 2}}).retriever
    denoiser = SetDenoiser(DenoiserConfig.of(config, 8, 0.35))
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    sampler = SetSampler(denoiser.to(device), Sampler(name=name, steps=4, guidance=0.5), dtype=dtype)
    recorded = RecordedSampler(sampler, 3)
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        queries = torch.randn(3, 8, generator=generator).to(device)
        noise = torch.randn(sampler.draws, 3, 4, 8, generator=generator).to(device)
        with torch.inference_mode():
            expected = sampler.solve(queries, noise)
            torch.testing.assert_close(recorded.solve(queries, noise), expected, atol=1e-4, rtol=1e-4)
