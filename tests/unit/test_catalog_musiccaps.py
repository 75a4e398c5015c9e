"""MusicCaps in its published CSV: clips, phrases, and aspect lists that are parsed without being run."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.catalog.musiccaps import MAX_LIST, load_musiccaps, parse_aspects
from r4t.catalog.source import Source, normalise, split_of
from r4t.config import Data
from r4t.errors import UserError

HEADER = [
    "ytid", "start_s", "end_s", "audioset_positive_labels", "aspect_list", "caption", "author_id",
    "is_balanced_subset", "is_audioset_eval",
]  # fmt: skip
CAPS = Path(__file__).parents[3] / "shared" / "data" / "music_caps"


def write(folder: Path, clips: list[tuple[str, str, str]]) -> Data:
    """`clips` are (ytid, aspect_list, caption)."""
    path = folder / "musiccaps-public.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for ytid, aspects, caption in clips:
            writer.writerow([ytid, 30, 40, "/m/0140xf,/m/02cjck", aspects, caption, 4, False, True])
    return Data(kind="musiccaps", items=path)


def loaded(folder: Path, clips: list[tuple[str, str, str]]) -> Source:
    return load_musiccaps(write(folder, clips), with_sets=True)


def test_clips_are_items_and_shared_phrases_are_sets(tmp_path: Path) -> None:
    aspects = ["['Sad  Piano', 'rare', 'sad piano']"] * 3 + ["['sad piano']"]
    clips = [(f"-0{i}", aspects[i], f'Clip {i}.\nTwo, "lines"') for i in range(4)]
    source = loaded(tmp_path, clips)
    assert [(s.title, s.split, s.item_ids) for s in source.sets] == [
        ("sad piano", split_of("sad piano", 0), ("-00", "-01", "-02", "-03"))
    ]
    assert source.items[0].text == source.items[0].name == 'Clip 0. Two, "lines"'
    assert source.items[0].extra == {
        "category": "sad piano", "aspects": ["sad piano", "rare"], "start_s": 30, "is_eval": True,
    }  # fmt: skip
    assert +source.dropped == {"aspects of fewer than 4 clips": 1}
    assert load_musiccaps(write(tmp_path, clips), with_sets=False).sets == []


def test_a_phrase_of_too_many_clips_is_no_set(tmp_path: Path) -> None:
    source = loaded(tmp_path, [(f"c{i}", "['in nearly all']" if i else "['x']", "a caption") for i in range(402)])
    assert source.sets == []
    assert +source.dropped == {"aspects of more than 400 clips": 1, "aspects of fewer than 4 clips": 1}
    assert [len(s.item_ids) for s in loaded(tmp_path, [(f"c{i}", "['x']", "y") for i in range(400)]).sets] == [400]


def test_a_list_that_cannot_be_read_is_counted_and_its_clip_kept(tmp_path: Path) -> None:
    source = loaded(tmp_path, [("a", "['x", "one"), ("b", "", "two"), ("c", "['x']", "three")])
    assert [i.text for i in source.items] == ["one", "two", "three"]
    assert source.items[0].extra["category"] is None
    assert source.dropped["aspect lists that cannot be read"] == 2


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').abort()",
        "[__import__('os').abort()]",
        "[x for x in 'ab']",
        "['a', 1]",
        "('a',)",
        "{'a': 'b'}",
        "'a'",
        "['a'] * 9",
        "[" * 5000,
        "['" + "a" * MAX_LIST + "']",
        "['\x00']\x00",
        "",
    ],
)
def test_what_is_no_list_of_texts_is_never_run(text: str) -> None:
    assert parse_aspects(text) is None


@given(st.lists(st.text(max_size=20), max_size=8))
def test_every_list_of_texts_is_read_back(phrases: list[str]) -> None:
    found = parse_aspects(repr(phrases))
    assert found is not None
    assert len(found) == len(set(found))
    assert set(found) <= {" ".join(phrase.lower().split()) for phrase in phrases}


def test_a_repeated_clip_or_a_missing_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 duplicate values of 'ytid' \(first: 'a'\)"):
        loaded(tmp_path, [("a", "[]", "x"), ("a", "[]", "y")])
    with pytest.raises(UserError, match=r"row 0 has no 'ytid'"):
        loaded(tmp_path, [("", "[]", "x")])
    data = write(tmp_path, [])
    assert data.items is not None
    data.items.write_text("ytid,text\na,b\n")
    with pytest.raises(UserError, match=r"no column 'caption'.*its columns are ytid, text"):
        load_musiccaps(data, with_sets=True)


@pytest.mark.skipif(not CAPS.is_dir(), reason=f"benchmark data absent: no folder {CAPS}")
def test_the_real_clips_give_the_published_number_of_phrases(tmp_path: Path) -> None:
    rows = pq.read_table(CAPS / "items.parquet").to_pylist()
    source = loaded(tmp_path, [(row["item_id"], repr(row["aspects"]), row["text"]) for row in rows])
    assert len(source.items) == 5521
    assert source.dropped["aspect lists that cannot be read"] == 0
    found = {s.title: set(s.item_ids) for s in source.sets}
    published = pq.read_table(CAPS / "sets.parquet").to_pylist()
    assert len(published) == 1818
    assert len(found) == len(source.sets) == 1817, "one published phrase repeats another but for a second space"
    assert found.keys() == {normalise(row["title"]) for row in published}
    assert all(found[normalise(row["title"])] >= set(row["item_ids"]) for row in published)
    # The stored sets were cut at 100 clips, and a few of their phrases have such a twin.
    assert sum(len(found[normalise(row["title"])]) == len(row["item_ids"]) for row in published) > 1700
