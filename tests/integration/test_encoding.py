"""Encoding a catalogue in the prepare stage: reduction, cache, image items, and many items on Ray."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import descendants

from jobs import encoding, prepare
from jobs.encoding import image_paths
from jobs.run import Run
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.catalog.encoders import base_encoder, run_encoder
from r4t.catalog.encoders.cache import cache_folder
from r4t.catalog.encoders.reduction import REDUCTION
from r4t.catalog.source import Item
from r4t.config import Config, parse_config
from r4t.errors import UserError
from r4t.lineage import read_manifest
from r4t.verify import verify

KINDS, HEATS, MEALS = ("apple", "beef", "lemon", "walnut", "rice"), ("warm", "cold", "dry"), ("soup", "cake", "pie")
NAMES = [f"{heat} {kind} {meal}" for kind in KINDS for heat in HEATS for meal in MEALS]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("R4T_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def settings(folder: Path, *, data: dict[str, Any] | None = None, **encoder: Any) -> Config:
    """Forty-five dishes, generated queries."""
    pq.write_table(pa.table({"item_id": [str(i) for i in range(len(NAMES))], "text": NAMES}), folder / "items.parquet")
    source = {"kind": "table", "items": str(folder / "items.parquet"), "n_queries": 60}
    return parse_config({"data": {**source, **(data or {})}, "encoder": {"dim": 8, **encoder}})


def prepared(folder: Path, config: Config) -> tuple[Dataset, dict[str, Any]]:
    run = Run(folder, config)
    prepare.main(config, run)
    run.close()
    manifest = read_manifest(folder / "prepare")
    assert manifest is not None
    return load_dataset(folder / "prepare"), manifest


def test_a_projection_is_fitted_saved_recorded_and_used_again(tmp_path: Path) -> None:
    config = settings(tmp_path, reduce="pca")
    dataset, manifest = prepared(tmp_path / "run", config)
    assert dataset.item_vectors.shape == (len(NAMES), 8)
    assert REDUCTION in manifest["files"]
    assert verify(tmp_path / "run" / "prepare") == []
    encoder = run_encoder(config, tmp_path / "run" / "prepare")
    assert manifest["encoder"] == {
        "name": "wordllama", "model": None, "content": None, "dim": 8, "reduce": "pca",
        "fingerprint": encoder.fingerprint(),
    }  # fmt: skip
    np.testing.assert_allclose(encoder.encode(NAMES), dataset.item_vectors, atol=1e-6)
    asked = [query.text for query in dataset.queries]
    np.testing.assert_allclose(encoder.encode(asked), dataset.query_vectors, atol=1e-6)
    full = base_encoder(config.encoder).encode(NAMES)
    cut = prepared(tmp_path / "cut", settings(tmp_path))[0].item_vectors
    cosines = full @ full.T

    def loss(vectors: np.ndarray) -> float:
        return float(np.square(vectors @ vectors.T - cosines).mean())

    assert loss(dataset.item_vectors) < loss(cut) / 4, "principal directions lose less than the first columns"


def test_the_same_texts_are_encoded_once_and_a_damaged_entry_again(tmp_path: Path, cache: Path) -> None:
    config = settings(tmp_path)
    first, manifest = prepared(tmp_path / "a", config)
    everything = len(first.item_texts) + len(first.queries)
    assert manifest["metrics"]["encoded"] == everything
    again, manifest = prepared(tmp_path / "b", config)
    assert manifest["metrics"]["encoded"] == 0
    np.testing.assert_array_equal(again.item_vectors, first.item_vectors)
    assert prepared(tmp_path / "c", settings(tmp_path, dim=16))[1]["metrics"]["encoded"] == everything
    assert cache_folder("vectors") == cache / "vectors"
    for entry in cache.rglob("*.safetensors"):
        entry.write_bytes(entry.read_bytes()[:-1])
    spoilt, manifest = prepared(tmp_path / "d", config)
    assert manifest["metrics"]["encoded"] == everything
    np.testing.assert_array_equal(spoilt.item_vectors, first.item_vectors)
    assert prepared(tmp_path / "e", config)[1]["metrics"]["encoded"] == 0


def test_a_cache_that_cannot_be_written_is_said_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("R4T_CACHE", str(tmp_path / "file"))
    prepared(tmp_path / "run", settings(tmp_path))
    assert "set R4T_CACHE to a folder with room" in (tmp_path / "run" / "log.txt").read_text()


def test_a_query_without_a_precomputed_vector_is_named(tmp_path: Path) -> None:
    table = {"text": NAMES, "vector": np.random.default_rng(0).normal(size=(len(NAMES), 8)).tolist()}
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    config = settings(tmp_path, name="precomputed", path=str(tmp_path / "v.parquet"))
    with pytest.raises(UserError, match=r"v.parquet has no vector for the text '.*' \(60 of 60 texts"):
        prepared(tmp_path / "run", config)


def test_image_paths_start_at_the_items_file_and_must_exist(tmp_path: Path) -> None:
    config = settings(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    near = Item(item_id="1", text="a", name="a", extra={"photo": "pictures/a.png"})
    far = Item(item_id="2", text="b", name="b", extra={"photo": str(tmp_path / "pictures" / "a.png")})
    assert image_paths(config, [near, far], "photo") == [str(tmp_path / "pictures" / "a.png")] * 2
    for extra, message in (
        ({"photo": "pictures/b.png"}, r"item 3: no image at .*b.png: fix column 'photo'"),
        ({"photo": None}, r"item 3 has no path in column 'photo' \(encoder.image_column\)"),
        ({}, r"item 3 has no path in column 'photo'"),
    ):
        with pytest.raises(UserError, match=message):
            image_paths(config, [near, Item(item_id="3", text="c", name="c", extra=extra)], "photo")


def test_image_items_and_text_queries_share_a_space(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip", reason="the package open_clip_torch is not installed")
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = open_clip.create_model("ViT-S-32-alt", load_weights=False)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "m.safetensors")
    rng, photos = np.random.default_rng(0), [f"{i}.png" for i in range(len(NAMES))]
    for photo in photos:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / photo)
    model = {"name": "open_clip", "path": str(tmp_path / "m.safetensors"), "model": "ViT-S-32-alt"}
    config = settings(tmp_path, **model, image_column="photo")
    table = pq.read_table(tmp_path / "items.parquet").append_column("photo", pa.array(photos))
    pq.write_table(table, tmp_path / "items.parquet")
    dataset, manifest = prepared(tmp_path / "a", config)
    assert manifest["metrics"]["encoded"] == len(NAMES) + len(dataset.queries)
    encoder = run_encoder(config, tmp_path / "a" / "prepare")
    pictures = encoder.encode_images([tmp_path / photo for photo in photos])
    np.testing.assert_allclose(dataset.item_vectors, pictures, atol=1e-6)
    np.testing.assert_allclose(
        dataset.query_vectors[:3], encoder.encode([q.text for q in dataset.queries[:3]]), atol=1e-6
    )
    assert prepared(tmp_path / "b", config)[1]["metrics"]["encoded"] == 0
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / photos[0])
    assert prepared(tmp_path / "c", config)[1]["metrics"]["encoded"] == len(NAMES), "a new picture under an old name"


@pytest.fixture
def local_ray() -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 28)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("name", ["wordllama", "minilm"])
def test_a_cluster_gives_the_vectors_of_one_process(
    name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import encoding as on_ray

    calls: list[int] = []
    whole = on_ray.encode_on_ray
    monkeypatch.setattr(on_ray, "encode_on_ray", lambda *a, **k: calls.append(1) or whole(*a, **k))
    monkeypatch.setattr(encoding, "BLOCK", 5)
    here, _ = prepared(tmp_path / "here", settings(tmp_path, name=name, distribute_above=1000))
    assert calls == []
    for entry in cache.rglob("*.safetensors"):
        entry.unlink()
    there, _ = prepared(tmp_path / "there", settings(tmp_path, name=name, distribute_above=10))
    assert calls == [1, 1]
    np.testing.assert_array_equal(there.item_vectors, here.item_vectors)
    np.testing.assert_array_equal(there.query_vectors, here.query_vectors)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_mistake_on_the_cluster_is_one_clear_message(tmp_path: Path) -> None:
    from cluster.encoding import encode_on_ray

    table = {"text": NAMES, "vector": np.random.default_rng(0).normal(size=(len(NAMES), 8)).tolist()}
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    config = settings(tmp_path, name="precomputed", path=str(tmp_path / "v.parquet"))
    for fingerprint, message in (
        (
            base_encoder(config.encoder).fingerprint(),
            r"^.*v.parquet has no vector for the text 'tea'.*that reads any text$",
        ),
        ("another", r"^node .* has another encoder than the driver: put the same files.*every node$"),
    ):
        with pytest.raises(UserError, match=message):
            encode_on_ray(
                config, [*NAMES, "tea"], images=False, block=5, shape=(len(NAMES) + 1, 8), fingerprint=fingerprint,
                advance=lambda _: None, say=print,
            )  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_an_encoder_that_stands_still_is_named_and_another_does_its_work(tmp_path: Path) -> None:
    from cluster.encoding import encode_on_ray

    config = settings(tmp_path, name="wordllama")
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"call_timeout": 15.0})})
    encoder = base_encoder(config.encoder)
    texts = [f"{name} {n} " * 200 for n in range(40) for name in NAMES]  # long, so that the encoders are at work
    frozen: list[psutil.Process] = []
    told: list[str] = []

    def freeze(_: int) -> None:
        """The first that is seen at work stops."""
        for one in descendants(os.getpid()):
            if not frozen and one.cmdline()[:1] == ["ray::MapWorker(MapBatches(BlockEncoder)).submit"]:
                one.send_signal(signal.SIGSTOP)
                frozen.append(one)

    found = encode_on_ray(
        config, texts, images=False, block=4, shape=(len(texts), encoder.dim), fingerprint=encoder.fingerprint(),
        advance=freeze, say=told.append,
    )  # fmt: skip
    np.testing.assert_allclose(found, encoder.encode(texts), atol=1e-5)
    named = rf"an encoder \(process {frozen[0].pid} on .*\) was not heard of for 15 s \(cluster.call"
    assert [one for one in told if re.match(named, one)], told  # on a busy machine another may be late too


@pytest.mark.parametrize("reduce", ["truncate", "pca"])
def test_items_own_vectors_are_cut_or_projected_and_never_encoded(tmp_path: Path, reduce: str) -> None:
    own = np.random.default_rng(0).normal(size=(len(NAMES), 256)).astype(np.float32)
    np.save(tmp_path / "own.npy", own)
    config = settings(tmp_path, data={"item_vectors": str(tmp_path / "own.npy")}, reduce=reduce)
    dataset, manifest = prepared(tmp_path / "run", config)
    assert manifest["item_vectors"] == "given"
    assert manifest["metrics"]["encoded"] == len(dataset.queries)
    whole = own / np.linalg.norm(own, axis=1, keepdims=True)
    expected = own[:, :8] if reduce == "truncate" else whole @ np.linalg.svd(whole, full_matrices=False)[2][:8].T
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(dataset.item_vectors @ dataset.item_vectors.T, expected @ expected.T, atol=1e-4)
