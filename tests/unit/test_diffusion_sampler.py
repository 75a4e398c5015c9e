import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusion_fixtures import random_denoiser
from torch import Tensor

from r4t.config import Sampler
from r4t.diffusion.inference import InferenceNetwork
from r4t.diffusion.sampler import SetSampler
from r4t.diffusion.schedule import sigma_grid
from r4t.diffusion.solvers import SOLVERS, gaussian

NAMES = [*SOLVERS]


def settings(**changes: Any) -> Sampler:
    return Sampler(**{"name": "dpmpp_2m", "steps": 5, "guidance": 0.0, **changes})


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("guidance", [0.0, 0.7])
def test_c45_sampler_equals_the_textbook_guided_denoiser(name: str, guidance: float):
    """Against (1 + w)·D(x, σ, z) - w·D(x, σ, 0) evaluated plainly, one call after the other."""
    denoiser, queries = random_denoiser(), torch.randn(3, 8)
    sampler = SetSampler(denoiser, settings(name=name, guidance=guidance))

    def guided(x: Tensor, i: int) -> Tensor:
        sigma = sampler.sigmas[i].float().expand(3)
        with_query, without = denoiser.denoise(x, sigma, queries), denoiser.denoise(x, sigma, torch.zeros(3, 8))
        return (1 + guidance) * with_query - guidance * without

    generator = seeded(0)
    start = gaussian(torch.empty(3, 4, 8), generator) * 5.0
    expected = SOLVERS[name](guided, start, sigma_grid(5, 5.0, 1e-3), generator)
    assert torch.allclose(sampler.sample(queries, seeded(0)).sets, expected, atol=1e-4)


def test_c45_no_guidance_costs_one_network_call_a_step(monkeypatch: pytest.MonkeyPatch):
    denoiser, queries = random_denoiser(), torch.randn(2, 8)
    batches = []
    whole = InferenceNetwork.forward

    def counted(network: InferenceNetwork, scaled: Tensor, *args: Any) -> Tensor:
        output = whole(network, scaled, *args)
        batches.append(len(output))
        return output

    monkeypatch.setattr(InferenceNetwork, "forward", counted)
    plain = SetSampler(denoiser, settings()).sample(queries, seeded(0))
    assert batches == [2] * 5
    assert plain.nfe == 5
    batches.clear()
    guided = SetSampler(denoiser, settings(guidance=0.1)).sample(queries, seeded(0))
    assert batches == [4] * 5  # one stacked call a step
    assert guided.nfe == 10
    assert not torch.equal(plain.sets, guided.sets)


@pytest.mark.parametrize(("name", "nfe"), [("euler_maruyama", 5), ("ode_euler", 5), ("heun", 9), ("dpmpp_2m", 5)])
def test_c47_number_of_evaluations_is_reported(name: str, nfe: int):
    sample = SetSampler(random_denoiser(), settings(name=name)).sample(torch.randn(1, 8), seeded(0))
    assert sample.nfe == nfe


@pytest.mark.parametrize("name", NAMES)
def test_c48_seed_decides_the_sets(name: str):
    sampler, queries = SetSampler(random_denoiser(), settings(name=name)), torch.randn(2, 8)
    one, again, other = (sampler.sample(queries, seeded(s)).sets for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert (one - other).abs().max() > 1e-3
    assert one.shape == (2, 4, 8)


def test_the_grid_is_that_of_the_settings():
    sampler = SetSampler(random_denoiser(), settings(sigma_max=3.0, sigma_end=0.02, rho=3.0))
    assert torch.equal(sampler.sigmas, sigma_grid(5, 3.0, 0.02, 3.0))
    assert SetSampler(random_denoiser(), settings()).sigmas[0] == pytest.approx(5.0), "without one, the training's"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_given_noise_decides_the_sets(name: str, steps: int):
    sampler, queries = SetSampler(random_denoiser(), settings(name=name, steps=steps)), torch.randn(2, 8)
    noise = torch.randn(sampler.draws, 2, 4, 8)
    assert len(noise) == (1 if name in ("ode_euler", "heun", "dpmpp_2m") else steps)
    sets = sampler.solve(queries, noise)
    assert torch.equal(sampler.solve(queries, noise), sets)
    for draw in range(len(noise)):
        other = noise.clone()
        other[draw] += 1.0
        assert not torch.equal(sampler.solve(queries, other), sets)


def test_c42_samples_depend_on_the_query():
    sampler, query = SetSampler(random_denoiser(), settings()), torch.randn(1, 8)
    assert (sampler.sample(query, seeded(0)).sets - sampler.sample(-query, seeded(0)).sets).abs().max() > 1e-3


def test_c50_sampling_loads_no_language_model(tmp_path):
    program = """
import sys, torch
from r4t.config import Sampler
from r4t.diffusion.checkpoint import load_denoiser
from r4t.diffusion.sampler import SetSampler
denoiser = load_denoiser(__import__("pathlib").Path(sys.argv[1]))
sets = SetSampler(denoiser, Sampler(steps=3)).sample(torch.randn(2, 8), torch.Generator().manual_seed(0)).sets
assert sets.shape == (2, 4, 8)
loaded = {"vllm", "transformers", "ray", "deepspeed"} & set(sys.modules)
assert not loaded, loaded
"""
    from r4t.diffusion.checkpoint import save_denoiser

    save_denoiser(tmp_path / "retriever", random_denoiser(), settings())
    command = [sys.executable, "-c", program, str(tmp_path / "retriever")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
