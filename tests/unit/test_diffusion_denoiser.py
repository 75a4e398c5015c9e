import math

import pytest
import torch
from diffusion_fixtures import random_denoiser, tiny_config

from r4t.config import Retriever
from r4t.diffusion.denoiser import DenoiserConfig, NoiseEmbedding, SetDenoiser
from r4t.errors import UserError

PAPER = {"hidden": 1024, "mlp": 1024, "layers": 6, "heads": 16, "dropout": 0.1, "attention_dropout": 0.1}


def test_c36_paper_size_has_53931520_parameters():
    config = DenoiserConfig.of(Retriever(**PAPER, noise_dim=128, register_token=False), dim=128, sigma_data=0.088)
    with torch.device("meta"):
        denoiser = SetDenoiser(config)
    assert sum(p.numel() for p in denoiser.parameters()) == 53_931_520
    assert denoiser.blocks[0].cross_kv.in_features == 128  # the raw query vector, not a projection of it
    assert config.rows == 12
    assert config.sigma_data == 0.088


def test_c35_rows_are_denoised_jointly():
    denoiser = random_denoiser()
    x, z = torch.randn(1, 4, 8), torch.randn(1, 8)
    changed = x.clone()
    changed[:, 2] += 1.0
    before, after = (denoiser.denoise(v, torch.tensor([0.5]), z) for v in (x, changed))
    for row in (0, 1, 3):
        assert (before[0, row] - after[0, row]).abs().max() > 1e-4


@pytest.mark.parametrize("register_token", [True, False])
def test_c42_output_depends_on_the_query(register_token: bool):
    denoiser = random_denoiser(register_token=register_token)
    x, sigma = torch.randn(1, 4, 8), torch.tensor([0.5])
    z = torch.randn(1, 8)
    answers = [denoiser.denoise(x, sigma, query) for query in (z, -z, torch.zeros_like(z))]
    assert (answers[0] - answers[1]).abs().max() > 1e-3
    assert (answers[0] - answers[2]).abs().max() > 1e-3


def test_output_depends_on_the_noise_level_of_its_own_example():
    denoiser = random_denoiser()
    scaled, z = torch.randn(1, 4, 8).expand(2, -1, -1), torch.randn(1, 8).expand(2, -1)
    both = denoiser(scaled, torch.tensor([0.5, 2.0]), z)
    alone = torch.cat([denoiser(scaled[:1], torch.tensor([s]), z[:1]) for s in (0.5, 2.0)])
    assert torch.allclose(both, alone, atol=1e-5)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_positions_tell_rows_apart():
    denoiser = random_denoiser()
    x = torch.randn(1, 1, 8).expand(1, 4, 8)
    output = denoiser.denoise(x, torch.tensor([0.5]), torch.randn(1, 8))
    assert (output[0, 0] - output[0, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("register_token", [True, False])
def test_gradients_reach_every_parameter_that_can_have_one(register_token: bool):
    denoiser = random_denoiser(register_token=register_token)
    denoiser(torch.randn(3, 4, 8), torch.rand(3) + 0.1, torch.randn(3, 8)).square().sum().backward()
    dead = {name for name, p in denoiser.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-4}
    expected = set() if register_token else {f"blocks.{i}.cross_q.{n}" for i in (0, 1) for n in ("weight", "bias")}
    # attention over the query alone is constant, so its query projection learns nothing
    assert {name for name in dead if "norm_cross" not in name} == expected


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    denoiser = random_denoiser(dropout=0.5, attention_dropout=0.5)
    x, sigma, z = torch.randn(1, 4, 8), torch.tensor([0.5]), torch.randn(1, 8)
    assert torch.equal(denoiser.denoise(x, sigma, z), denoiser.denoise(x, sigma, z))
    denoiser.train()
    assert not torch.equal(denoiser.denoise(x, sigma, z), denoiser.denoise(x, sigma, z))


def test_dropout_of_attention_acts_alone():
    denoiser = random_denoiser(attention_dropout=0.5).train()
    x, sigma, z = torch.randn(1, 4, 8), torch.tensor([0.5]), torch.randn(1, 8)
    assert not torch.equal(denoiser.denoise(x, sigma, z), denoiser.denoise(x, sigma, z))


def test_noise_levels_are_embedded_as_sines_and_cosines_of_rising_frequencies():
    embedding, levels = NoiseEmbedding(6), torch.tensor([0.3, -0.2])
    assert embedding.frequencies.tolist() == pytest.approx([math.pi, math.pi * math.sqrt(2e4), math.pi * 2e4])
    angles = levels[:, None] * embedding.frequencies
    assert torch.equal(embedding(levels), embedding.net(torch.cat([angles.sin(), angles.cos()], dim=1)))


def test_noise_scales_and_shifts_normalised_rows():
    block, noise, x = random_denoiser().blocks[0], torch.randn(3, 8), torch.randn(3, 4, 16)
    scale, shift = block.modulation(noise)
    factor, offset = block.film(torch.nn.functional.silu(noise)).chunk(2, dim=1)
    expected = block.norm_self(x) * (1 + factor[:, None]) + offset[:, None]
    found = torch.nn.functional.layer_norm(x, (16,)) * scale + shift
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "named"), [({"heads": 3}, "retriever.heads = 3"), ({"noise_dim": 7}, "noise_dim = 7")]
)
def test_widths_that_do_not_divide_are_refused(changes: dict[str, int], named: str):
    with pytest.raises(UserError, match=named):
        DenoiserConfig.of(Retriever(**changes), dim=8, sigma_data=0.35)


def test_untrained_network_outputs_zero():
    denoiser = SetDenoiser(tiny_config())
    assert torch.equal(denoiser(torch.randn(2, 4, 8), torch.ones(2), torch.randn(2, 8)), torch.zeros(2, 4, 8))
