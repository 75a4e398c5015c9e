from pathlib import Path

import pytest
import torch
from diffusion_fixtures import random_denoiser
from safetensors.torch import load_file, save_file

from r4t.config import Sampler
from r4t.diffusion.checkpoint import load_denoiser, load_sampler_settings, save_denoiser
from r4t.errors import UserError
from r4t.lineage import read_json, write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_denoiser(tmp_path / "retriever", random_denoiser(), Sampler(steps=7))
    return tmp_path / "retriever"


def test_round_trip(folder: Path):
    denoiser, restored = random_denoiser(), load_denoiser(folder, dim=8)
    x, sigma, z = torch.randn(2, 4, 8), torch.rand(2) + 0.1, torch.randn(2, 8)
    assert torch.equal(denoiser.denoise(x, sigma, z), restored.denoise(x, sigma, z))
    assert not restored.training
    assert load_sampler_settings(folder) == Sampler(steps=7)


def test_another_width_names_both_widths(folder: Path):
    with pytest.raises(UserError, match="width 8, the catalogue's have 16"):
        load_denoiser(folder, dim=16)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_says_which_stage_to_run(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}.*run the stage 'retriever'"):
        load_denoiser(folder)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_weights(folder: Path, keep: int):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged"):
        load_denoiser(folder)


def test_weights_of_another_shape(folder: Path):
    description = read_json(folder / "config.json")
    description["denoiser"]["hidden"] = 32
    write_json(folder / "config.json", description)
    with pytest.raises(UserError, match=r"tensors differ, first \S+ \(expected \(.*found \("):
        load_denoiser(folder)


def test_missing_tensor(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    del tensors["positions"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"first positions \(expected \(4, 16\), found none"):
        load_denoiser(folder)


def test_broken_config(folder: Path):
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json"):
        load_denoiser(folder)
    write_json(folder / "config.json", {"denoiser": {"rows": 3}})
    with pytest.raises(UserError, match="not a retriever's configuration"):
        load_denoiser(folder)
