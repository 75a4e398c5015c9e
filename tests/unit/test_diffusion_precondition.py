import pytest
import torch
from diffusion_fixtures import tiny_config

from r4t.diffusion import precondition
from r4t.diffusion.denoiser import SetDenoiser

SIGMA_DATA = 0.088
SIGMAS = torch.logspace(-4, 2, 40, dtype=torch.float64)


def test_c37_preconditioning_formulas():
    for sigma in SIGMAS:
        s = sigma.item()
        norm = (s**2 + SIGMA_DATA**2) ** 0.5
        assert precondition.c_skip(sigma, SIGMA_DATA).item() == pytest.approx(SIGMA_DATA**2 / norm**2)
        assert precondition.c_out(sigma, SIGMA_DATA).item() == pytest.approx(s * SIGMA_DATA / norm)
        assert precondition.c_in(sigma, SIGMA_DATA).item() == pytest.approx(1 / norm)
        assert precondition.c_noise(sigma).item() == pytest.approx(torch.log(sigma).item() / 4)


def test_c38_loss_weight_is_the_inverse_square_of_c_out():
    weight = precondition.loss_weight(SIGMAS, SIGMA_DATA)
    assert torch.allclose(weight * precondition.c_out(SIGMAS, SIGMA_DATA) ** 2, torch.ones_like(SIGMAS))


def test_network_input_and_output_have_unit_variance():
    """Why these coefficients: with data of variance sigma_data², both ends of F are of unit scale at every σ."""
    generator = torch.Generator().manual_seed(0)
    data = SIGMA_DATA * torch.randn(200_000, generator=generator, dtype=torch.float64)
    noise = torch.randn(200_000, generator=generator, dtype=torch.float64)
    for sigma in SIGMAS[::8]:
        x = data + sigma * noise
        target = (data - precondition.c_skip(sigma, SIGMA_DATA) * x) / precondition.c_out(sigma, SIGMA_DATA)
        assert (precondition.c_in(sigma, SIGMA_DATA) * x).std().item() == pytest.approx(1, rel=0.02)
        assert target.std().item() == pytest.approx(1, rel=0.02)


def test_c37_preconditioning_limits():
    """D(x; σ→0) = x, and F = 0 gives D = c_skip·x (the untrained network's last layer is zero)."""
    denoiser = SetDenoiser(tiny_config()).eval()
    x, z = torch.randn(3, denoiser.config.rows, denoiser.config.dim), torch.randn(3, denoiser.config.dim)
    sigma = torch.tensor([0.01, 0.1, 3.0])
    skip = precondition.c_skip(sigma, denoiser.config.sigma_data)[:, None, None]
    assert torch.allclose(denoiser.denoise(x, sigma, z), skip * x)

    torch.nn.init.normal_(denoiser.rows_out.weight)
    tiny = torch.full((3,), 1e-7)
    assert torch.allclose(denoiser.denoise(x, tiny, z), x, atol=1e-5)


def test_c39_expected_sigma_data_at_the_papers_width():
    assert precondition.expected_sigma_data(128) == pytest.approx(0.0884, abs=1e-4)
