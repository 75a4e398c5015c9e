"""open_clip checkpoints with random weights: both towers against the library, and every refusal."""

from __future__ import annotations

import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from r4t.catalog.encoders import load_encoder
from r4t.errors import UserError

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None,
    reason="the package open_clip_torch is not installed (pip install 'r4t[clip]')",
)
MODEL = "ViT-S-32-alt"  # the smallest architecture with a tokenizer of its own
TEXTS = ["a red dress", "", "blue jeans", "a red dress"]


@pytest.fixture(scope="module")
def net() -> Any:
    """A random model and the library's own transform and tokenizer."""
    import open_clip

    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL, load_weights=False)
    return model.eval(), preprocess, open_clip.get_tokenizer(MODEL)


@pytest.fixture(scope="module")
def folder(net: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_file({name: value.contiguous() for name, value in net[0].state_dict().items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (40 + number, 60, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.double(), dim=1).numpy()


@needs_package
def test_texts_equal_the_librarys_text_tower(net: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    encoder = load_encoder("open_clip", None, folder, MODEL)
    vectors = encoder.encode(TEXTS)
    assert asked == []
    assert vectors.dtype == np.float32
    with torch.no_grad():
        wanted = unit(torch.cat([net[0].encode_text(net[2]([text])) for text in TEXTS if text]))
    np.testing.assert_allclose(vectors[[0, 2, 3]], wanted, atol=2e-6)
    np.testing.assert_array_equal(vectors[1], np.eye(1, encoder.dim)[0])


@needs_package
def test_images_equal_the_librarys_image_tower(net: Any, folder: Path, pictures: list[Path]) -> None:
    encoder = load_encoder("open_clip", None, folder / "model.safetensors", MODEL)
    encoder.batch = 2  # type: ignore[attr-defined]
    vectors = encoder.encode_images([*pictures, Image.open(pictures[0]).convert("RGBA")])
    with torch.no_grad():
        wanted = unit(torch.cat([net[0].encode_image(net[1](Image.open(path))[None]) for path in pictures]))
    np.testing.assert_allclose(vectors, [*wanted, wanted[0]], atol=2e-6)
    assert encoder.encode_images([]).shape == (0, encoder.dim)
    cut = load_encoder("open_clip", 8, folder, MODEL).encode_images(pictures)
    np.testing.assert_allclose(cut, vectors[:3, :8] / np.linalg.norm(vectors[:3, :8], axis=1, keepdims=True), atol=1e-6)


@needs_package
def test_the_folder_decides_how_images_are_normalised(folder: Path, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}})
    )
    plain, other = (load_encoder("open_clip", 8, path, MODEL) for path in (folder, tmp_path))
    assert not np.allclose(plain.encode_images(pictures), other.encode_images(pictures), atol=1e-3)
    np.testing.assert_allclose(plain.encode(["jeans"]), other.encode(["jeans"]), atol=1e-6)
    assert plain.fingerprint() != other.fingerprint() != load_encoder("open_clip", 9, tmp_path, MODEL).fingerprint()


@needs_package
def test_weights_of_another_architecture_and_unknown_ones_name_the_key(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"no architecture 'ViT-S-32-alts' \(did you mean 'ViT-S-32-alt'\?\).*encoder.model"
    ):
        load_encoder("open_clip", 8, folder, "ViT-S-32-alts")
    with pytest.raises(UserError, match=r"(?s)cannot read .*model.safetensors as ViT-S-16.*set encoder.model"):
        load_encoder("open_clip", 8, folder, "ViT-S-16")
    with pytest.raises(UserError, match=r"columns, not 4096: set encoder.dim to at most"):
        load_encoder("open_clip", 4096, folder, MODEL)


@needs_package
def test_a_picture_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    encoder = load_encoder("open_clip", 8, folder, MODEL)
    with pytest.raises(UserError, match=r"no image at .*a.png: fix its path in encoder.image_column"):
        encoder.encode_images([tmp_path / "a.png"])
    (tmp_path / "b.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"b.png cannot be read as an image"):
        encoder.encode_images([tmp_path / "b.png"])


def test_a_checkpoint_that_is_not_safe_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing at .*encoder.path must be an open_clip checkpoint"):
        load_encoder("open_clip", 8, tmp_path / "absent", MODEL)
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"")
    for path in (tmp_path, tmp_path / "open_clip_pytorch_model.bin"):
        with pytest.raises(UserError, match=r"open_clip_pytorch_model.bin is a pickle.*convert to safetensors"):
            load_encoder("open_clip", 8, path, MODEL)
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"several checkpoints \(a.safetensors, b.safetensors\)"):
        load_encoder("open_clip", 8, tmp_path, MODEL)
    with pytest.raises(UserError, match=r"encoder.model, the architecture"):
        load_encoder("open_clip", 8, tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is not None, reason="open_clip_torch is installed")
def test_a_missing_package_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"needs the package open_clip_torch.*section Encoders.*r4t\[clip\]"):
        load_encoder("open_clip", 8, tmp_path, MODEL)
