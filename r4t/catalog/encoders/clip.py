"""open_clip: a text tower and an image tower of one space."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from r4t.catalog.encoders.base import Encoder, checked_dim
from r4t.catalog.encoders.files import PICKLES, WEIGHTS, content_hash, pickled, require_safetensors
from r4t.errors import UserError, did_you_mean
from r4t.lineage import read_json
from r4t.types import Floats

if TYPE_CHECKING:
    from r4t.catalog.encoders.base import Picture

PREPROCESS = {"mean": "image_mean", "std": "image_std", "interpolation": "image_interpolation"} | {
    "resize_mode": "image_resize_mode"
}


class OpenClipEncoder(Encoder):
    """A local open_clip checkpoint in safetensors, of the architecture `model`: on the CPU, in float32, offline.

    A folder's `open_clip_config.json`, where there is one, decides how images are normalised and resized.
    Raises UserError for a missing package, an unknown architecture, or weights of another one.
    """

    name = "open_clip"
    batch = 64

    def __init__(self, path: Path, model: str, dim: int | None) -> None:
        weights = _weights(path)
        self.model = model
        self._model, self._preprocess, self._tokenizer = _load(path, weights, model)
        self.content = content_hash(path)
        full = int(self._texts(["a"]).shape[1])
        self.dim = checked_dim(self.name, dim, full)

    def _embed(self, texts: list[str]) -> Floats:
        parts = [self._texts(texts[i : i + self.batch]) for i in range(0, len(texts), self.batch)]
        return np.concatenate(parts)[:, : self.dim]

    def _embed_images(self, images: Sequence[Picture], /) -> Floats:
        import torch

        parts = []
        for start in range(0, len(images), self.batch):
            pixels = torch.stack([self._preprocess(_opened(image)) for image in images[start : start + self.batch]])
            with torch.inference_mode():
                parts.append(self._model.encode_image(pixels).float().numpy())
        return np.concatenate(parts)[:, : self.dim]

    def _texts(self, texts: list[str]) -> Floats:
        import torch

        with torch.inference_mode():
            return np.asarray(self._model.encode_text(self._tokenizer(texts)).float().numpy())

    def _state(self) -> list[bytes]:
        return [self.model.encode(), str(self.content).encode()]


def _weights(path: Path) -> Path:
    if not path.exists():
        raise UserError(
            f"nothing at {path}: encoder.path must be an open_clip checkpoint in safetensors, or its folder"
        )
    if path.is_file():
        if path.suffix == WEIGHTS:
            return path
        raise pickled(path) if path.suffix in PICKLES else UserError(f"{path} is no {WEIGHTS} file (encoder.path)")
    require_safetensors(path)
    files = sorted(path.glob(f"*{WEIGHTS}"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"{path} has several checkpoints ({names}): set encoder.path to one of them")
    return files[0]


def _load(path: Path, weights: Path, model: str) -> tuple[Any, Any, Any]:
    """The model, the transform of one Pillow image and the tokenizer."""
    open_clip = _package()
    known = open_clip.list_models()
    if model not in known:
        raise UserError(
            f"open_clip has no architecture '{model}'{did_you_mean(model, known)}: set encoder.model to the one that"
            f" the weights were trained with (`open_clip.list_models()` names all {len(known)})"
        )
    try:
        net, _, preprocess = open_clip.create_model_and_transforms(
            model, load_weights=False, pretrained_text=False, precision="fp32", device="cpu", **_preprocessing(path)
        )
        tokenizer = open_clip.get_tokenizer(model)
        open_clip.load_checkpoint(net, str(weights))
    except Exception as error:  # whatever the files make the library trip over, it is the files that need a fix
        raise UserError(
            f"open_clip cannot read {weights} as {model} ({type(error).__name__}: {str(error)[:300]}): set"
            " encoder.model to the architecture of these weights, one whose tokenizer ships with open_clip"
        ) from error
    net.eval().requires_grad_(False)
    return net, preprocess, tokenizer


def _package() -> Any:
    install = "docs/configuration.md, section Encoders, says how to install it next to this torch (extra r4t[clip])"
    if importlib.util.find_spec("open_clip") is None:
        raise UserError(f"encoder.name 'open_clip' needs the package open_clip_torch: {install}")
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises RuntimeError
        raise UserError(f"open_clip_torch cannot be imported here ({error}): {install}") from error
    return open_clip


def _preprocessing(path: Path) -> dict[str, Any]:
    config = path / "open_clip_config.json"
    if not config.is_file():
        return {}
    chosen = read_json(config).get("preprocess_cfg", {})
    return {keyword: chosen[key] for key, keyword in PREPROCESS.items() if key in chosen}


def _opened(image: Picture) -> Any:
    from PIL import Image

    if not isinstance(image, Path):
        return image
    try:
        with Image.open(image) as picture:
            return picture.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"no image at {image}: fix its path in encoder.image_column, or remove the item") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{image} cannot be read as an image ({error}): replace it, or remove the item") from None
