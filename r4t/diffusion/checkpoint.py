"""A retriever on disk: `config.json` (network and sampler) and `model.safetensors` (EMA weights)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from r4t.config import Sampler
from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser
from r4t.errors import UserError
from r4t.lineage import atomic_path, read_json, write_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_denoiser(folder: Path, denoiser: SetDenoiser, sampler: Sampler) -> None:
    """Writes both files atomically, weights first, so that a folder with a config is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in denoiser.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(tensors))
    description = {"schema": 1, "denoiser": denoiser.config.to_json(), "sampler": sampler.model_dump()}
    write_json(folder / CONFIG, description)


def load_denoiser(folder: Path, dim: int | None = None) -> SetDenoiser:
    """Reads a folder of `save_denoiser`. Raises UserError for a missing or damaged file, or vectors not `dim` wide."""
    config = _denoiser_config(folder)
    if dim is not None and config.dim != dim:
        raise UserError(
            f"the retriever in {folder} works on vectors of width {config.dim}, the catalogue's have {dim}:"
            f" set encoder.dim={config.dim}, or train the retriever again"
        )
    denoiser = SetDenoiser(config)
    tensors = _read_weights(folder / WEIGHTS)
    expected = {name: tuple(tensor.shape) for name, tensor in denoiser.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        first = wrong[0]
        raise UserError(
            f"{folder / WEIGHTS} does not fit {folder / CONFIG}: {len(wrong)} tensors differ, first {first}"
            f" (expected {expected.get(first, 'none')}, found {found.get(first, 'none')}); train the retriever again"
        )
    denoiser.load_state_dict(tensors)
    return denoiser.eval()


def load_sampler_settings(folder: Path) -> Sampler:
    """The sampler the retriever was trained to be used with."""
    return Sampler.model_validate(_read_config(folder)["sampler"])


def _denoiser_config(folder: Path) -> DenoiserConfig:
    try:
        return DenoiserConfig(**_read_config(folder)["denoiser"])
    except (TypeError, KeyError) as error:
        raise UserError(f"{folder / CONFIG} is not a retriever's configuration ({error}): train it again") from None


def _read_config(folder: Path) -> dict:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"no retriever in {folder}: {CONFIG} is missing; run the stage 'retriever' first")
    return read_json(path)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"{path} is missing: run the stage 'retriever' again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): restore it or train the retriever again") from None
