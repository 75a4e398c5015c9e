"""What somebody else may have written into a store, and addresses that hold a key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import TINY, assert_user_error, r4t

from r4t.config import load_config, parse_config
from r4t.errors import UserError
from r4t.storage.index import INDEX, Index, parse_index
from r4t.storage.pull import pull
from r4t.storage.store import Store
from r4t.storage.urls import is_url, split_url, url_of, url_problem

GOOD = {"sha256": "0" * 64, "bytes": 0}
NAMES = [
    "../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/.", "", ".", "..", "a\\..\\b", "a\0b", "a\nb", "\x1b[2J",
    ".lock", "folm/.lock", ".attempt", ".mirror.json", ".partial-pull/x", "a/.partial-b", "x" * 256, "a/", "\u202ea",
]  # fmt: skip


def index_of(files: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({"schema": 1, "owner": "x", "since": 0, "files": files} | changes).encode()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leaves_the_directory_is_refused(name: str, tmp_path: Path) -> None:
    store = Store(f"memory://hostile/{abs(hash(name))}")
    store.write(INDEX, index_of({"config.yaml": GOOD, name: GOOD}))
    with pytest.raises(UserError, match="is no mirror that R4T wrote"):
        pull(tmp_path / "run", store)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{", b"\xff", b"[" * 100_000, index_of({}, schema=2), index_of([]), index_of({}, owner=1),
        index_of({}, since="now"), *(index_of({}, since=since) for since in (True, -1, 10**400)),
        index_of({"a": []}), index_of({"a": GOOD, "a/b": GOOD}),
        index_of({"a": {"sha256": "0" * 63, "bytes": 1}}), index_of({"a": {"sha256": "../" + "0" * 61, "bytes": 1}}),
        *(index_of({"a": GOOD | {"bytes": size}}) for size in (-1, True, 1.5, None)),
    ],
)  # fmt: skip
def test_an_index_of_another_shape_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match="is no mirror that R4T wrote"):
        parse_index(content, "memory://x")


leaves = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_json_is_an_index_or_refused(value: Any) -> None:
    try:
        found = parse_index(json.dumps(value).encode(), "memory://x")
    except UserError:
        return
    assert isinstance(found, Index)


def test_an_index_comes_back_as_it_was_written() -> None:
    index = parse_index(index_of({"config.yaml": GOOD, "folm/manifest.json": GOOD}), "memory://x")
    assert parse_index(index.to_bytes(), "memory://x") == index


HOLDS_A_KEY = ["s3://A:hunter2@bucket/x", "s3://bucket/x?secret=hunter2", "gs://bucket#hunter2", "ftp://u:hunter2@h/x"]


@pytest.mark.parametrize("url", HOLDS_A_KEY)
def test_an_address_with_a_key_is_refused_and_never_shown(url: str) -> None:
    for key in ("cluster.mirror", "data.items", "data.queries"):
        with pytest.raises(UserError, match=key) as error:
            load_config(TINY, [f"{key}={url!r}"])
        assert "hunter2" not in str(error.value)
    with pytest.raises(UserError, match="store") as error:
        Store(url)
    assert "hunter2" not in str(error.value)


def test_the_command_line_does_not_show_a_key_either(tmp_path: Path) -> None:
    done = r4t("pull", HOLDS_A_KEY[0], tmp_path / "run")
    assert_user_error(done, "leave credentials", "AWS_ACCESS_KEY_ID")
    assert "hunter2" not in done.stdout + done.stderr


ODD = ["s3://", "s3://bucket//x", "s3://bucket/../x", "s4://bucket", "s3://b/\x07", ""]


@pytest.mark.parametrize("url", ODD)
def test_an_address_of_no_place_is_refused(url: str) -> None:
    assert url_problem(url)


@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket/a/b.parquet", "memory://x/y", "file:///srv/x"])
def test_a_path_of_the_configuration_keeps_its_address(url: str) -> None:
    assert url_problem(url) is None
    assert is_url(url)
    config = parse_config({"data": {"kind": "table", "items": url}})
    assert config.data.items is not None
    assert url_of(config.data.items) == url
    assert config.model_dump(mode="json")["data"]["items"] == url
    assert parse_config(config.model_dump(mode="json")) == config


def test_a_plain_path_is_none() -> None:
    assert url_of(Path("s3/x")) is None
    assert not is_url("/srv/x")
    assert split_url("/srv/x") == ("file", "/srv/x")


def test_an_address_survives_the_folder_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: {kind: table, items: 's3://bucket/items.csv', queries: q.csv}\n")
    data = load_config(tmp_path / "c.yaml").data
    assert url_of(data.items) == "s3://bucket/items.csv"  # type: ignore[arg-type]
    assert data.queries == tmp_path / "q.csv"
