"""Sentence-transformers directories against a float64 computation of the same modules."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_model import HIDDEN, WIDE, write_model
from transformers import AutoTokenizer, BertModel

from r4t.catalog.encoders import load_encoder
from r4t.config import parse_config
from r4t.errors import UserError
from r4t.evaluation.judge import judge_encoder

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="the package sentence-transformers is not installed",
)
TEXTS = ["warm dinner", "apple pie soups", "a", "light lunch " * 9, "  ", "unknown words"]


def expected(folder: Path, text: str, pooling: str, dense: bool) -> np.ndarray:
    """One text, alone and so without padding, in float64."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = BertModel.from_pretrained(folder, local_files_only=True).double().eval()
    ids = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**ids).last_hidden_state[0].numpy()
    vector = hidden[0] if pooling == "cls" else hidden.mean(axis=0)
    if dense:
        weights = {
            name: value.double().numpy() for name, value in load_file(folder / "2_Dense/model.safetensors").items()
        }
        vector = np.tanh(weights["linear.weight"] @ vector + weights["linear.bias"])
    return vector / np.linalg.norm(vector)


@needs_package
@pytest.mark.parametrize(
    ("pooling", "dense", "normalize"),
    [("mean", False, True), ("cls", False, False), ("mean", True, False), ("cls", True, True)],
)
def test_it_equals_the_modules_computed_one_text_at_a_time(
    tmp_path: Path, pooling: str, dense: bool, normalize: bool
) -> None:
    folder = write_model(tmp_path / "model", pooling, dense, normalize)
    encoder = load_encoder("sentence_transformers", None, folder)
    assert encoder.dim == (WIDE if dense else HIDDEN)
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        wanted = expected(folder, text, pooling, dense) if text.strip() else np.eye(1, encoder.dim)[0]
        np.testing.assert_allclose(vector, wanted, atol=2e-6)
    cut = load_encoder("sentence_transformers", 8, folder).encode(TEXTS[:2])
    np.testing.assert_allclose(cut, vectors[:2, :8] / np.linalg.norm(vectors[:2, :8], axis=1, keepdims=True), atol=1e-6)


@needs_package
def test_nothing_is_fetched_and_the_fingerprint_follows_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    folder = write_model(tmp_path / "model", dense=True)
    first = load_encoder("sentence_transformers", 8, folder)
    assert asked == []
    (folder / "README.md").write_text("a card is not read")
    assert load_encoder("sentence_transformers", 8, folder).fingerprint() == first.fingerprint()
    assert load_encoder("sentence_transformers", None, folder).fingerprint() != first.fingerprint()
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    save_file({name: value + 1e-3 for name, value in weights.items()}, folder / "2_Dense" / "model.safetensors")
    assert load_encoder("sentence_transformers", 8, folder).fingerprint() != first.fingerprint()


@needs_package
def test_a_wrong_width_and_an_image_name_the_fix(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    with pytest.raises(UserError, match=r"has 16 columns, not 64: set encoder.dim to at most 16"):
        load_encoder("sentence_transformers", 64, folder)
    with pytest.raises(UserError, match=r"no image tower.*open_clip.*encoder.image_column"):
        load_encoder("sentence_transformers", 8, folder).encode_images([tmp_path / "a.png"])


@needs_package
def test_damaged_weights_name_the_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    os.truncate(folder / "model.safetensors", 100)
    with pytest.raises(UserError, match=r"(?s)cannot read .*model.*save_pretrained"):
        load_encoder("sentence_transformers", 8, folder)


@needs_package
def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: value * torch.nan for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match="1 vectors of 1 that are NaN"):
        load_encoder("sentence_transformers", 8, folder).encode(["warm dinner"])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _pickled_dense(folder: Path) -> None:
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")


def _weightless(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _no_modules(folder: Path) -> None:
    (folder / "modules.json").unlink()


def _module(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        modules: list[dict[str, Any]] = json.loads((folder / "modules.json").read_text())
        (folder / "modules.json").write_text(json.dumps([*modules, {"idx": 9, "path": "9", "type": name}]))

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_pickled, r"pytorch_model.bin is a pickle.*convert to safetensors"),
        (_pickled_dense, r"2_Dense/pytorch_model.bin is a pickle.*convert to safetensors"),
        (_weightless, r"has no .safetensors weights"),
        (_no_modules, r"no modules.json.*save_pretrained"),
        (_module("os.system"), r"has a module os.system.*Transformer, Pooling, Dense, Normalize only"),
        (_module("mine.models.Dense"), r"has a module mine.models.Dense"),
        (_module("sentence_transformers.models.LSTM"), r"has a module .*LSTM"),
    ],
)
def test_a_directory_that_is_not_safe_or_whole_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = write_model(tmp_path / "model", dense=True)
    spoil(folder)
    with pytest.raises(UserError, match=message):
        load_encoder("sentence_transformers", 8, folder)


def test_no_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder at .*encoder.path must be a sentence-transformers directory"):
        load_encoder("sentence_transformers", 8, tmp_path / "absent")


@needs_package
def test_a_directory_of_your_own_may_judge(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "judge")
    config = parse_config({"evaluate": {"judge": "sentence_transformers", "judge_path": str(folder)}})
    vectors = load_encoder("sentence_transformers", None, folder).encode(TEXTS)
    np.testing.assert_array_equal(judge_encoder(config).encode(TEXTS), vectors)
    with pytest.raises(UserError, match="judge_path go together"):
        parse_config({"evaluate": {"judge": "sentence_transformers"}})
