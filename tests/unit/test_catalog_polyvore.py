"""The Maryland archive's layout, written here as it is published, becomes items and titled sets."""

import json
from pathlib import Path
from typing import Any

import pytest

from r4t.catalog.load import load_catalog, load_source
from r4t.catalog.polyvore import load_polyvore
from r4t.config import Config, Data, parse_config
from r4t.errors import UserError


def part(index: int, name: str | None, category: int = 11, **more: Any) -> dict[str, Any]:
    image = f"http://img2.polyvoreimg.com/cgi/img-thing?tid={index}"
    return {"index": index, "name": name, "price": 19.5, "likes": 7, "image": image, "categoryid": category, **more}


def outfit(set_id: Any, name: Any, *items: Any) -> dict[str, Any]:
    head = {"views": 8743, "image": "http://x", "likes": 394, "date": "One month", "set_url": "http://y", "desc": "d"}
    return {**head, "set_id": set_id, "name": name, "items": list(items)}


OUTFITS = {
    "train": [
        outfit("1", "Night  Out", part(1, "mesh maxi  dress"), part(2, "suede sandals", 41), part(4, " ")),
        outfit("2", "", part(1, "wool coat")),
        outfit("3", "School", part(1, "tee", 99), part(2, "jeans", price=None)),
    ],
    "valid": [outfit("4", "Beach", part(1, "bikini"), part(2, "straw hat"))],
    "test": [outfit("5", "night out", part(1, "black dress"), part(2, "clutch"))],
}


def write(folder: Path, outfits: dict[str, Any] = OUTFITS) -> Data:
    for split, content in outfits.items():
        (folder / f"{split}_no_dup.json").write_text(json.dumps(content))
    (folder / "category_id.txt").write_text("2 Clothing\n11 Tops\n41 Shoes & Boots\n\n")
    return Data(kind="polyvore", items=folder)


def config_of(folder: Path, task: str, **data: Any) -> Config:
    raw = {"kind": "polyvore", "items": str(folder), "families": "fashion", "min_set_size": 1, "n_queries": 20, **data}
    return parse_config({"task": task, "data": raw})


def test_an_item_per_outfit_and_position_keeps_category_and_price(tmp_path: Path) -> None:
    source = load_polyvore(write(tmp_path), with_sets=True)
    assert [i.item_id for i in source.items] == ["1_1", "1_2", "1_4", "2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2"]
    first, second = source.items[:2]
    assert (first.text, first.name) == ("mesh maxi dress", "mesh maxi dress")
    assert {key: first.extra[key] for key in ("category", "price", "likes")} == {
        "category": "Tops", "price": 19.5, "likes": 7.0,
    }  # fmt: skip
    assert first.extra["image"].endswith("tid=1")
    assert second.extra["category"] == "Shoes & Boots"
    assert source.items[4].extra["category"] == "99", "a category without a name keeps its number"
    assert source.items[5].extra["price"] is None


def test_outfit_names_are_titles_and_everything_is_accounted_for(tmp_path: Path) -> None:
    write(tmp_path)
    catalog = load_catalog(config_of(tmp_path, "wscr"))
    titles = {q.text: (q.split, tuple(catalog.items[row].item_id for row in q.references)) for q in catalog.queries}
    assert titles == {
        "School": ("train", ("3_1", "3_2")),
        "Beach": ("valid", ("4_1", "4_2")),
        "night out": ("test", ("5_1", "5_2")),
    }
    assert catalog.dropped == {
        "items without a text": 1,
        "sets without a title": 1,
        "sets whose title is also in a more held-out split": 1,
    }


def test_open_ended_retrieval_takes_the_items_alone(tmp_path: Path) -> None:
    write(tmp_path)
    catalog = load_catalog(config_of(tmp_path, "oar"))
    assert len(catalog.items) == 9
    assert len(catalog.queries) == 20
    assert catalog.dropped == {"items without a text": 1}
    assert load_source(config_of(tmp_path, "oar")).sets == []


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([outfit("1", "x", part(1, "a")), outfit("1", "y", part(1, "b"))], r"duplicate values .* \(first: '1_1'\)"),
        ([outfit(None, "x")], r"train_no_dup.json: outfit 0 has no set_id"),
        ([outfit("1", ["x"])], r"outfit 0 has a name that is not text"),
        ([outfit("1", "x", {"name": "a"})], r"outfit 0 has an item without an index"),
        ([outfit("1", "x", part(1, 5))], r"outfit 0 has an item \(index 1\) whose name is not text"),  # type: ignore[arg-type]
        ([{"set_id": "1", "name": "x"}], r"outfit 0 has no list of items"),
        (["x"], r"outfit 0 has no set_id"),
        ({"1": "x"}, r"must hold a list of outfits, not a dict"),
    ],
)  # fmt: skip
def test_a_damaged_outfit_is_named(tmp_path: Path, train: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_polyvore(write(tmp_path, {**OUTFITS, "train": train}), with_sets=True)


def test_missing_or_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder at .*data.items must be the folder"):
        load_polyvore(Data(kind="polyvore", items=tmp_path / "absent"), with_sets=True)
    with pytest.raises(UserError, match=r"no file at .*category_id.txt"):
        load_polyvore(Data(kind="polyvore", items=tmp_path), with_sets=True)
    data = write(tmp_path)
    (tmp_path / "valid_no_dup.json").write_text("[{")
    with pytest.raises(UserError, match=r"valid_no_dup.json \(data.items\) is not JSON"):
        load_polyvore(data, with_sets=True)
    (tmp_path / "valid_no_dup.json").unlink()
    with pytest.raises(UserError, match=r"no file at .*valid_no_dup.json"):
        load_polyvore(data, with_sets=True)
