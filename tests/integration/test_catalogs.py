"""The benchmark catalogues through their shipped configurations: nothing is lost without a count."""

from pathlib import Path

import numpy as np
import pytest

from jobs import prepare
from jobs.run import Run
from r4t.catalog.dataset import load_dataset
from r4t.catalog.load import load_catalog
from r4t.catalog.source import SPLITS
from r4t.config import load_config
from r4t.lineage import read_manifest
from r4t.verify import verify

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
CATALOGUES = {  # config -> folder, and the items and sets that its SOURCE.md counts
    "fashion-polyvore": ("fashion_polyvore", 19_608, 4_767),
    "fashion-bundles": ("fashion_bundles", 4_487, 1_909),
    "music-spotify": ("music_spotify", 60_916, 1_895),
    "music-lastfm": ("music_lastfm", 12_133, 10_270),
    "music-caps": ("music_caps", 5_521, 1_818),
}


@pytest.mark.parametrize("name", CATALOGUES)
def test_counts_are_those_of_the_source_and_add_up(tmp_path: Path, name: str) -> None:
    folder, n_items, n_sets = CATALOGUES[name]
    if not (DATA / folder).is_dir():
        pytest.skip(f"benchmark data absent: no folder {DATA / folder}")
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    run = Run(tmp_path, config)
    prepare.main(config, run)
    run.close()
    dataset, manifest = load_dataset(tmp_path / "prepare"), read_manifest(tmp_path / "prepare")
    assert manifest is not None
    assert verify(tmp_path / "prepare") == []
    assert len(dataset.item_ids) == len(set(dataset.item_ids)) == n_items
    assert np.isfinite(dataset.item_vectors).all()
    assert all(len(dataset.split(split)) > 20 for split in SPLITS)
    source = (DATA / folder / "SOURCE.md").read_text()
    assert f"items {n_items} " in source
    assert f"sets {n_sets}," in source
    if config.task == "oar":
        assert manifest["dropped"] == {}
        assert len(dataset.queries) == config.data.n_queries
    else:
        assert all(reason.startswith("sets ") for reason in manifest["dropped"])
        assert len(dataset.queries) + sum(manifest["dropped"].values()) == n_sets


@pytest.mark.parametrize(("name", "column"), [("music-lastfm", "tags"), ("music-spotify", "train_playlists")])
def test_tags_are_part_of_the_text_and_not_of_the_name(name: str, column: str) -> None:
    folder = CATALOGUES[name][0]
    if not (DATA / folder).is_dir():
        pytest.skip(f"benchmark data absent: no folder {DATA / folder}")
    source = load_catalog(load_config(ROOT / "configs" / f"{name}.yaml"))
    tagged = [item for item in source.items if item.extra[column]]
    assert len(tagged) > len(source.items) / 2
    for item in tagged[:1000]:
        tags = [" ".join(tag.split()) for tag in item.extra[column] if tag.strip()]
        assert item.text == ", ".join([item.name, *tags])
