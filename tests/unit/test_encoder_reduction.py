"""The projection onto the items' principal directions, and the one encoder that a run's stages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.catalog.encoders import encoder_record, load_encoder, run_encoder, unit_rows, word_encoder
from r4t.catalog.encoders.reduction import (
    REDUCTION,
    ReducedEncoder,
    fit_projection,
    load_projection,
    save_projection,
)
from r4t.config import Config, parse_config
from r4t.errors import UserError
from r4t.lineage import write_manifest, write_tensors

NOUNS = ("apple", "beef", "lemon", "walnut", "ginger", "rice")
ITEMS = [f"{a} {b}" for a in NOUNS for b in ("soup", "cake", "salad", "pie", "stew")]


def rows(seed: int, n: int = 40, full: int = 12) -> np.ndarray:
    """Unit rows away from the origin's centre, as text vectors are."""
    rng = np.random.default_rng(seed)
    return unit_rows((rng.normal(size=(n, full)) * np.linspace(3, 0.2, full) + 0.5).astype(np.float32), what="rows")


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), dim=st.integers(1, 12))
def test_it_is_the_top_right_singular_vectors_with_a_fixed_sign(seed: int, dim: int) -> None:
    vectors = rows(seed)
    projection = fit_projection(vectors, dim)
    assert (projection.shape, projection.dtype) == ((12, dim), np.float32)
    np.testing.assert_allclose(projection.T @ projection, np.eye(dim), atol=1e-5)
    _, singular, right = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    kept = np.linalg.norm(vectors @ projection) ** 2
    assert kept == pytest.approx((singular[:dim] ** 2).sum(), rel=1e-5)
    gaps = np.diff(-singular[: dim + 1]) if dim < 12 else np.diff(-singular)
    if gaps.min() > 0.05:  # else two directions may rotate into each other
        np.testing.assert_allclose(np.abs((projection * right[:dim].T).sum(axis=0)), 1, atol=1e-3)
    largest = np.abs(projection).argmax(axis=0)
    assert (projection[largest, np.arange(dim)] > 0).all()


def test_it_sums_any_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_projection(rows(1), 5)
    monkeypatch.setattr("r4t.catalog.encoders.reduction.ROWS", 7)
    np.testing.assert_allclose(fit_projection(rows(1), 5), whole, atol=1e-6)


def test_all_directions_keep_every_cosine() -> None:
    vectors = rows(2)
    projected = vectors @ fit_projection(vectors, 12)
    np.testing.assert_allclose(projected @ projected.T, vectors @ vectors.T, atol=1e-5)


def test_more_columns_than_there_are_directions_are_refused() -> None:
    with pytest.raises(UserError, match=r"cannot make 13 columns of 12: set encoder.dim to at most 12"):
        fit_projection(rows(0), 13)
    with pytest.raises(UserError, match=r"the 5 items span 5 directions: set encoder.dim to at most 5"):
        fit_projection(rows(0, n=5), 8)
    with pytest.raises(UserError, match=r"span 1 directions"):
        fit_projection(np.repeat(rows(0)[:1], 30, axis=0), 2)


def prepared(folder: Path, **encoder: Any) -> tuple[Config, ReducedEncoder]:
    """A finished prepare folder that holds a projection alone, and the encoder that goes with it."""
    config = parse_config({"encoder": {"dim": 8, "reduce": "pca", **encoder}})
    base = load_encoder("wordllama")
    projection = fit_projection(base.encode(ITEMS), 8)
    save_projection(folder, projection)
    reduced = ReducedEncoder(base, projection)
    record = {"encoder": encoder_record(reduced, config.encoder)}
    write_manifest(folder, stage="prepare", config={}, inputs={}, files=[REDUCTION], metrics={}, extra=record)
    return config, reduced


def test_every_stage_gets_the_reduced_encoder(tmp_path: Path) -> None:
    config, reduced = prepared(tmp_path)
    base = load_encoder("wordllama")
    encoder = run_encoder(config, tmp_path)
    vectors = encoder.encode([*ITEMS, " "])
    full = base.encode(ITEMS).astype(np.float64) @ load_projection(tmp_path, 256).astype(np.float64)
    np.testing.assert_allclose(vectors[:-1], full / np.linalg.norm(full, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(vectors[-1], np.eye(8)[0])
    np.testing.assert_allclose(reduced.project(base.encode(ITEMS)), vectors[:-1], atol=1e-6)
    assert encoder.fingerprint() == reduced.fingerprint() != base.fingerprint()
    assert word_encoder(config, tmp_path).dim == 8


def test_words_are_read_with_every_column_that_is_only_cut(tmp_path: Path) -> None:
    config = parse_config({"encoder": {"dim": 64}})
    record = {"encoder": encoder_record(load_encoder("wordllama", 64), config.encoder)}
    write_manifest(tmp_path, stage="prepare", config={}, inputs={}, files=[], metrics={}, extra=record)
    assert run_encoder(config, tmp_path).dim == 64
    assert word_encoder(config, tmp_path).dim == 256


def test_another_encoder_than_the_manifests_is_refused(tmp_path: Path) -> None:
    config, _ = prepared(tmp_path)
    other = parse_config({"encoder": {"dim": 8}})
    with pytest.raises(UserError, match=r"of another encoder \(wordllama, 8 columns.*restore its files"):
        run_encoder(other, tmp_path)
    write_tensors(tmp_path / REDUCTION, {"projection": fit_projection(load_encoder("wordllama").encode(ITEMS[5:]), 8)})
    with pytest.raises(UserError, match=r"of another encoder"):
        run_encoder(config, tmp_path)


def test_a_missing_or_unfit_projection_names_the_fix(tmp_path: Path) -> None:
    config, _ = prepared(tmp_path)
    with pytest.raises(UserError, match=r"reduces vectors of 256 columns, the encoder has 384"):
        run_encoder(parse_config({"encoder": {"dim": 8, "reduce": "pca", "name": "minilm"}}), tmp_path)
    (tmp_path / REDUCTION).write_bytes(b"spoilt")
    with pytest.raises(UserError, match=r"is damaged"):
        run_encoder(config, tmp_path)
    (tmp_path / REDUCTION).unlink()
    with pytest.raises(UserError, match=r"is missing, and encoder.reduce is pca.*--stage prepare"):
        run_encoder(config, tmp_path)


def test_a_folder_that_names_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not say which encoder.*--stage prepare"):
        run_encoder(Config(), tmp_path)
