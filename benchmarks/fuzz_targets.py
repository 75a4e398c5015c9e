"""What `benchmarks.fuzz` feeds: each reader of foreign input, good examples of that, and what must hold."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from r4t.catalog.answers import Unusable
from r4t.catalog.prompts import read_queries, read_subsets, read_title
from r4t.catalog.table import load_items, load_sets
from r4t.config import Data, load_config
from r4t.errors import UserError, printable
from r4t.fanout import format_answer, parse, read_list
from r4t.http import credential
from r4t.interop.server import Limits, _columns, _RefusedError
from r4t.lineage import read_json, write_manifest
from r4t.tracking import MetricsFile, read_metrics
from r4t.verify import verify


@dataclass(slots=True)
class Target:
    """`run` returns whether the input was accepted, and raises for what must not happen."""

    name: str
    share: float
    """Of all inputs: cheap targets take more."""
    seeds: list[bytes]
    words: list[bytes]
    check: Callable[[bytes, Path], bool]
    folder: Path = field(default_factory=Path)

    def open(self, root: Path) -> None:
        self.folder = root / self.name
        self.folder.mkdir()

    def run(self, data: bytes) -> bool:
        try:
            return self.check(data, self.folder)
        except (UserError, Unusable, _RefusedError) as error:
            printable(str(error)).encode()  # the message itself must be one that a terminal takes
            return False


def _answer(data: bytes, _: Path) -> bool:
    text, k = data.decode("utf-8", "surrogateescape"), 1 + len(data) % 5
    found, (status, listed) = parse(text, k), read_list(text, k)
    assert found.valid == (status == "ok")
    assert list(found.subqueries) == listed
    if found.valid:
        assert len(found.subqueries) == k
        assert all(0 <= a < b <= len(text) and text[a] == text[b - 1] == '"' for a, b in found.spans)
        again = parse(format_answer(found.subqueries), k)
        assert again.subqueries == found.subqueries
    return found.valid


def _written(data: bytes, _: Path) -> bool:
    text = data.decode("utf-8", "replace")
    read = (read_queries, read_title, lambda t: read_subsets(t, 8, 3, 2))[len(data) % 3]
    read(text)
    return True


def _config(data: bytes, folder: Path) -> bool:
    path = folder / "c.yaml"
    path.write_bytes(data)
    load_config(path)
    return True


def _override(data: bytes, folder: Path) -> bool:
    path = folder / "empty.yaml"
    path.touch()
    load_config(path, [data.decode("utf-8", "surrogateescape")])
    return True


def _table(ending: str) -> Callable[[bytes, Path], bool]:
    def check(data: bytes, folder: Path) -> bool:
        path = folder / f"t.{ending}"
        path.write_bytes(data)
        items = load_items(Data(kind="table", items=path))
        assert len({item.item_id for item in items}) == len(items) > 0
        load_sets(Data(kind="table", items=path, sets=path), {item.item_id for item in items})
        return True

    return check


def _manifest(data: bytes, folder: Path) -> bool:
    (folder / "manifest.json").write_bytes(data)
    return not verify(folder) and isinstance(read_json(folder / "manifest.json"), dict)


def _metrics(data: bytes, folder: Path) -> bool:
    path = folder / "metrics.jsonl"
    path.write_bytes(data)
    MetricsFile(path).close()
    read_metrics(path)
    return True


def _body(data: bytes, _: Path) -> bool:
    credential(data[:60].decode("latin-1"))
    texts, prompts, _labels = _columns(data, Limits())
    assert all(isinstance(text, str) for text in (*texts, *prompts))
    return True


def _parquet_seed() -> bytes:
    file = io.BytesIO()
    columns = {"item_id": ["a", "b"], "text": ["soup", "pie"], "title": ["x", "y"], "item_ids": [["a"], ["a", "b"]]}
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def _manifest_seed() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "a").write_text("a")
        write_manifest(Path(name), stage="s", config={"k": 1}, inputs={}, files=["a"], metrics={"m": 0.5})
        return (Path(name) / "manifest.json").read_bytes()


MARKS = [b"<queries>", b"</queries>", b'["', b'", "', b'"]', b"\\u", b"\\ud800", b"\\", b"[", b"]", b"{", b"}", b'"']
JSON = [b"null", b"true", b"1e999", b"NaN", b"-0", b"[" * 200, b'{"":', b"\xff", b"\xed\xa0\x80", b"\0", b":", b","]
YAML = [b"&a ", b"*a", b"<<: *a\n", b"!!int ", b"!!binary ", b"!!python/none ", b"? ", b"- ", b": ", b"\n  ", b"1e400"]
YAML += [
    b"2001-99-99",
    b"!!timestamp x",
    b"0o9",
    b"1_000",
    b"190:20:30",
    b".inf",
    b".nan",
    b"~",
    b"---\n",
    b"|\n",
    b"%",
]
CSV = [b",", b'"', b"\n", b"\r", b"\0", b"\xef\xbb\xbf", b"item_id", b"text", b"title,item_ids", b"1e5", b"2020-01-01"]
ROWS = [
    b'{"item_id": "a", "text": "soup", "title": "x", "item_ids": ["a"]}\n'
    b'{"item_id": "b", "text": "pie", "title": "y", "item_ids": ["a", "b"]}\n',
    b'{"item_id": 1, "text": ["a", "b"], "title": "2020-05-01", "item_ids": "1 1"}\n',
]
CONFIG = (
    b"name: shop\ntask: wscr\ndata: {kind: table, items: i.parquet, sets: s.parquet, columns: {text: [a, b]}}\n"
    b"objective: {kind: coverage, weights: {distinct: 0.1}, schedule: {distinct: [[0, 0.0], [5, 1.0]]}}\n"
    b"rl: {lr: 1.0e-4, betas: [0.9, 0.95]}\nretriever: {rows: 12}\n"
)
TARGETS = [
    Target(
        name="model_output",
        share=0.6,
        seeds=[b'<queries>["a", "b"]</queries>', b'<think>x</think><queries>["caf\\u00e9", " "]</queries>', b""],
        words=MARKS + JSON,
        check=_answer,
    ),
    Target(
        name="http_body",
        share=0.2,
        seeds=[b'{"query": ["p<queries>[]</queries>"], "prompts": ["p"], "labels": ["q0"]}', b"Basic cjR0OmtleQ=="],
        words=MARKS + JSON + [b'"query"', b'"prompts": []'],
        check=_body,
    ),
    Target(
        name="written_queries",
        share=0.14,
        seeds=[b'["quick lunch", "warm soup"]', b"cosy dinner", b'[{"items": [1, 2], "query": "light lunch"}]'],
        words=MARKS + JSON + [b"```json\n", b"```"],
        check=_written,
    ),
    Target(name="manifest", share=0.02, seeds=[_manifest_seed(), b"{}"], words=[*JSON, b"../"], check=_manifest),
    Target(
        name="metrics",
        share=0.02,
        seeds=[b'{"stage": "folm", "step": 1, "time": 0.5, "values": {"a": 1.0}}\n' * 2],
        words=[*JSON, b"\n"],
        check=_metrics,
    ),
    Target(name="config", share=0.006, seeds=[CONFIG, b"{}"], words=YAML, check=_config),
    Target(name="override", share=0.005, seeds=[b"rl.steps=3", b"data={n_queries: 20}"], words=YAML, check=_override),
    Target(
        name="csv",
        share=0.003,
        seeds=[b"item_id,text,title,item_ids\na,soup,x,a\nb,pie,y,a b\n"],
        words=CSV,
        check=_table("csv"),
    ),
    Target(name="jsonl", share=0.003, seeds=ROWS, words=JSON + CSV, check=_table("jsonl")),
    Target(
        name="parquet",
        share=0.003,
        seeds=[_parquet_seed()],
        words=[b"PAR1", b"\xff" * 4, b"\0"],
        check=_table("parquet"),
    ),
]
