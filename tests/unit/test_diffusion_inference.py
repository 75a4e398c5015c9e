"""The network arranged for sampling against the network that was trained."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusion_fixtures import random_denoiser
from torch import Tensor

from r4t.config import Sampler
from r4t.diffusion.inference import InferenceNetwork
from r4t.diffusion.recorded import RecordedSampler
from r4t.diffusion.sampler import SetSampler
from r4t.diffusion.solvers import SOLVERS
from r4t.errors import UserError

SIGMAS = torch.tensor([5.0, 0.3, 0.01])
SHAPES: list[dict[str, Any]] = [
    {},
    {"register_token": False},
    {"layers": 1},
    {"heads": 1, "rows": 1},
    {"heads": 8, "mlp": 40, "dim": 12},
    {"dropout": 0.5, "attention_dropout": 0.5},
]


def supplied(sampler: SetSampler, batch: int, seed: int = 0) -> Tensor:
    config = sampler.denoiser.config
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sampler.draws, batch, config.rows, config.dim, generator=generator)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_every_level_gives_the_trained_networks_numbers(shape: dict[str, Any]) -> None:
    denoiser = random_denoiser(**shape)
    network = InferenceNetwork(denoiser, SIGMAS)
    x, queries = torch.randn(3, denoiser.config.rows, denoiser.config.dim), torch.randn(3, denoiser.config.dim)
    for level in range(len(SIGMAS)):
        films = denoiser.modulation(SIGMAS[level : level + 1])
        expected = denoiser.network(x, films, denoiser.condition(queries))
        assert expected.std() > 0.1
        torch.testing.assert_close(network(x, level, network.context(queries)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("register", [True, False])
@torch.no_grad()
def test_guided_contexts_are_answered_as_one_after_the_other(register: bool) -> None:
    network = InferenceNetwork(random_denoiser(register_token=register), SIGMAS)
    x, queries = torch.randn(3, 4, 8), torch.randn(3, 8)
    both = network(x, 1, network.context(queries, guided=True), copies=2)
    expected = [network(x, 1, network.context(asked)) for asked in (queries, torch.zeros(3, 8))]
    torch.testing.assert_close(both, torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_the_networks_weights_are_not_copied() -> None:
    denoiser = random_denoiser()
    held = {parameter.data_ptr() for parameter in InferenceNetwork(denoiser, SIGMAS).parameters()}
    assert held == {parameter.data_ptr() for parameter in denoiser.parameters()}


def test_bfloat16_is_near_float32_and_leaves_the_denoiser_alone() -> None:
    denoiser, queries = random_denoiser(), torch.randn(2, 8)
    settings = Sampler(steps=4, guidance=0.1)
    exact = SetSampler(denoiser, settings).sample(queries, torch.Generator().manual_seed(0)).sets
    short = SetSampler(denoiser, settings, dtype=torch.bfloat16)
    near = short.sample(queries, torch.Generator().manual_seed(0)).sets
    assert near.dtype == denoiser.positions.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert torch.nn.functional.cosine_similarity(near, exact, dim=-1).min() > 0.99


def test_a_compiled_network_is_one_graph_for_all_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for real, without the compiler behind it; a break of the graph would raise."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)  # as engines of other tests in this process leave it
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend, fullgraph=True))
    denoiser, settings = random_denoiser(), Sampler(steps=10, guidance=0.1)
    queries = torch.randn(2, 8)
    drawn, expected = (
        SetSampler(denoiser, settings, compiled=compiled).sample(queries, torch.Generator().manual_seed(0)).sets
        for compiled in (True, False)
    )
    assert len(graphs) == 1
    torch.testing.assert_close(drawn, expected)


def test_the_cpu_records_no_graphs() -> None:
    with pytest.raises(UserError, match="records no graphs"):
        RecordedSampler(SetSampler(random_denoiser(), Sampler(steps=2)), batch=1)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_supplied_noise_alone_decides_the_sets(name: str) -> None:
    sampler = SetSampler(random_denoiser(), Sampler(name=name, steps=4))
    queries, noise = torch.randn(2, 8), supplied(sampler, 2)
    with torch.inference_mode():
        one, again = sampler.solve(queries, noise), sampler.solve(queries, noise)
        alone = sampler.solve(queries[1:], noise[:, 1:])
        other = sampler.solve(queries, supplied(sampler, 2, seed=1))
    assert torch.equal(one, again)
    torch.testing.assert_close(one[1:], alone, atol=1e-5, rtol=1e-5)
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_a_generator_and_its_noise_supplied_give_the_same_sets(name: str) -> None:
    sampler, queries = SetSampler(random_denoiser(), Sampler(name=name, steps=4)), torch.randn(2, 8)
    generator = torch.Generator().manual_seed(3)
    noise = torch.stack([torch.randn(2, 4, 8, generator=generator) for _ in range(sampler.draws)])
    drawn = sampler.sample(queries, torch.Generator().manual_seed(3)).sets
    with torch.inference_mode():
        assert torch.equal(sampler.solve(queries, noise), drawn)


def test_only_stochastic_solvers_draw_noise_after_their_start() -> None:
    taken = {name: SetSampler(random_denoiser(), Sampler(name=name, steps=5)).draws for name in SOLVERS}
    assert taken["dpmpp_2m"] == taken["heun"] == taken["ode_euler"] == 1
    assert taken["euler_maruyama"] == 5  # its start and four steps; the last call denoises


def test_sampling_needs_torch_alone() -> None:
    program = """
import sys
for name in ("pydantic", "yaml", "pyarrow", "safetensors", "faiss"):
    sys.modules[name] = None
import r4t.diffusion.sampler, r4t.diffusion.loss
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
