"""`configs/paper.yaml` is Table 3 of the paper, and the code computes with it what the paper says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from r4t.config import Config, load_config
from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser
from r4t.diffusion.sampler import SetSampler
from r4t.diffusion.training import check_sigma_data, learning_rate, measured_sigma_data, training_sigmas
from r4t.errors import UserError
from r4t.sets import TargetSets

PAPER = Path(__file__).resolve().parents[2] / "configs" / "paper.yaml"


@pytest.fixture(scope="module")
def paper() -> Config:
    return load_config(PAPER)


def test_c36_the_network_has_53_9_million_parameters(paper: Config) -> None:
    retriever = paper.retriever
    with torch.device("meta"):
        denoiser = SetDenoiser(DenoiserConfig.of(retriever, paper.encoder.dim, 0.088))
    assert abs(sum(p.numel() for p in denoiser.parameters()) - 53.9e6) <= 0.2e6
    assert sum(p.numel() for p in denoiser.parameters()) == 53_931_520
    assert (retriever.layers, retriever.hidden, retriever.mlp, retriever.heads) == (6, 1024, 1024, 16)
    assert (retriever.rows, paper.encoder.dim, paper.fanout.k) == (12, 128, 10)
    assert (retriever.dropout, retriever.attention_dropout) == (0.1, 0.1)
    assert not retriever.register_token


def test_c37_to_c42_noise_and_conditioning(paper: Config) -> None:
    retriever = paper.retriever
    assert (retriever.sigma_min, retriever.sigma_max, retriever.sigma_data) == (1e-4, 80.0, 0.088)
    assert (retriever.sigma_law, retriever.p_drop) == ("log_uniform", 0.1)
    sigma = training_sigmas(retriever, retriever.batch, torch.Generator().manual_seed(0))
    assert sigma.min() >= 1e-4 * 0.999
    assert sigma.max() <= 80.0 * 1.001
    shares = torch.histc(sigma.log(), bins=8, min=float(np.log(1e-4)), max=float(np.log(80.0))) / retriever.batch
    assert (shares - 1 / 8).abs().max() < 0.005  # stratified


def test_c39_sigma_data_is_checked_against_the_vectors(paper: Config) -> None:
    given = paper.retriever.sigma_data
    assert given is not None
    assert check_sigma_data(given, paper.encoder.dim) == given
    for wrong in (given * 1.06, given * 0.94, float("nan")):
        with pytest.raises(UserError, match=r"retriever\.sigma_data"):
            check_sigma_data(wrong, paper.encoder.dim)
    table = np.random.default_rng(0).normal(size=(9, 128)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    sets = TargetSets(query=np.arange(3), rows=np.arange(9).reshape(3, 3), table=table, query_vectors=table[:3])
    assert measured_sigma_data(sets) == pytest.approx(1 / np.sqrt(128), rel=1e-5)
    long = TargetSets(query=sets.query, rows=sets.rows, table=1.1 * table, query_vectors=table[:3])
    with pytest.raises(UserError, match="not of unit length"):
        measured_sigma_data(long)


def test_c44_optimiser_schedule(paper: Config) -> None:
    retriever = paper.retriever
    assert (retriever.batch, retriever.ema, retriever.steps) == (512, 0.9999, 10_000_000)
    rate = [learning_rate(retriever, step) for step in (0, 10_000, 20_000, 5_010_000, 10_000_000)]
    assert rate == pytest.approx([0.0, 1.5e-4, 3e-4, (3e-4 + 1e-7) / 2, 1e-7])


def test_c45_to_c47_sampler(paper: Config) -> None:
    settings = paper.retriever.sampler
    assert (settings.name, settings.steps, settings.guidance, settings.rho) == ("euler_maruyama", 256, 0.1, 7.0)
    small = paper.retriever.model_copy(update={"hidden": 16, "mlp": 16, "layers": 1, "heads": 2, "noise_dim": 8})
    denoiser = SetDenoiser(DenoiserConfig.of(small, 128, 0.088))
    sampler = SetSampler(denoiser, settings)
    assert (len(sampler.sigmas), float(sampler.sigmas[0])) == (256, pytest.approx(80.0))
    assert float(sampler.sigmas[-1]) == pytest.approx(1e-3)
    assert sampler.nfe == 512
    # D = c_skip·x is the denoiser of N(0, sigma_data²): the whole sampler must give back that law (section 5.8).
    with torch.inference_mode():
        sets = sampler.sample(torch.zeros(64, 128), torch.Generator().manual_seed(0)).sets
    assert sets.std().item() == pytest.approx(0.088, rel=0.02)
    assert sets.shape == (64, 12, 128)


def test_c09_and_c21_reward_and_policy(paper: Config) -> None:
    assert paper.objective.weights == {"groundedness": 0.6, "diversity": 0.2, "alignment": 0.2}
    rl, sequences = paper.rl, paper.rl.queries_per_step * paper.rl.group_size
    assert (rl.lr, rl.group_size, rl.clip, rl.betas) == (1e-7, 8, 0.2, (0.9, 0.95))
    assert (rl.beta_policy_old, rl.beta_old_policy) == (0.05, 0.05)
    assert sequences // rl.updates_per_batch == 512
    assert rl.updates_per_batch >= 2
    assert paper.policy.max_length == 1024


def test_c27_and_c31_synthesis(paper: Config) -> None:
    assert (paper.sets.samples_per_query, paper.sets.temperature) == (128, 0.9)
    assert (paper.sets.min_reward, paper.sets.top_fraction) == (None, None)
