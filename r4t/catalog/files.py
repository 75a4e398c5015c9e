"""Tables as people keep them: Parquet, CSV, JSON lines, and folders that Hugging Face `datasets` wrote."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from r4t.errors import UserError

FORMATS = "Parquet (.parquet), CSV (.csv), JSON lines (.jsonl) or a folder (`save_to_disk` of datasets, Parquet shards)"
JSON_BLOCK = 1 << 25  # bytes: no line may be longer


def read_table(path: Path, key: str, *, texts: Collection[str] = ()) -> pa.Table:
    """The table at `path`, in file order; how it is read follows from the path. `key` is the config key to blame.

    The columns `texts` of a CSV file stay as written ("007" is no number). Raises UserError for a missing or unreadable
    file, and for two columns of one name.
    """
    if not path.exists():
        raise UserError(f"no file at {path}: {key} must be the path of {FORMATS}")
    try:
        table = _read_folder(path, key) if path.is_dir() else _read_file(path, key, texts)
        table.validate(full=True)  # text that is no UTF-8 is found by no reader
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} ({key}) cannot be read by its ending: {error}") from None
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise UserError(f"{path} ({key}) has two columns '{twice[0]}': rename one of them")
    return _without_dictionaries(table)


def read_json_text(path: Path, key: str) -> Any:
    """What a JSON file of the user's holds. Raises UserError when it is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"no file at {path}: {key} needs it") from None
    except ValueError as error:
        raise UserError(f"{path} ({key}) is not JSON: {error}") from None


def _read_file(path: Path, key: str, texts: Collection[str]) -> pa.Table:
    ending = path.name.lower().removesuffix(".gz")
    if ending.endswith(".parquet"):
        return _read_parquet(path, key)
    if path.name.lower().endswith(".gz"):
        _check_unzipped(path, key)
    if ending.endswith(".csv"):
        return pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string())),
        )
    if ending.endswith((".jsonl", ".ndjson")):
        return _read_json(path)
    raise UserError(f"{path} ({key}) has an unknown ending '{path.suffix}': give {FORMATS}")


def _read_json(path: Path) -> pa.Table:
    options = pyarrow.json.ReadOptions(block_size=JSON_BLOCK)
    table = pyarrow.json.read_json(path, read_options=options)
    # The reader takes "2020-05-01" for a moment, also where it is an id or a title.
    texts = [(field.name, text) for field in table.schema if (text := _as_text(field.type)) != field.type]
    if not texts:
        return table
    parse = pyarrow.json.ParseOptions(explicit_schema=pa.schema(texts))
    return pyarrow.json.read_json(path, read_options=options, parse_options=parse)


def _as_text(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_as_text(kind.value_type)) if _as_text(kind.value_type) != kind.value_type else kind
    return pa.string() if pa.types.is_timestamp(kind) else kind


def _read_folder(folder: Path, key: str) -> pa.Table:
    if (folder / "dataset_dict.json").is_file():
        names = ", ".join(sorted(child.name for child in folder.iterdir() if child.is_dir()))
        raise UserError(f"{folder} ({key}) holds several datasets: give the path of one of its folders, {names}")
    if (folder / "state.json").is_file():
        return _read_saved_dataset(folder, key)
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        raise UserError(f"{folder} ({key}) has neither state.json nor .parquet files: give {FORMATS}")
    return pa.concat_tables(_read_parquet(shard, key) for shard in shards)


def _read_saved_dataset(folder: Path, key: str) -> pa.Table:
    again = "save the dataset again with save_to_disk"
    state = read_json_text(folder / "state.json", key)
    if not isinstance(state, dict) or not state.get("_data_files"):
        raise UserError(f"{folder}/state.json ({key}) lists no data files: {again}")
    if state.get("_indices_data_files"):
        raise UserError(f"{folder} ({key}) is a selection of rows: call flatten_indices() on it, then {again}")
    try:
        names = [Path(entry["filename"]) for entry in state["_data_files"]]
    except (TypeError, KeyError):
        raise UserError(f"{folder}/state.json ({key}) lists no data files: {again}") from None
    outside = next((name for name in names if name.is_absolute() or ".." in name.parts), None)
    if outside is not None:
        raise UserError(f"{folder}/state.json ({key}) names {str(outside)!r}, outside of its folder: {again}")
    tables = []
    for path in [folder / name for name in names]:
        if not path.is_file():
            raise UserError(f"no file at {path}, which {folder}/state.json ({key}) lists: {again}")
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            tables.append(stream.read_all())
    return pa.concat_tables(tables)


def _read_parquet(path: Path, key: str) -> pa.Table:
    """A few kilobytes can declare, or repeat one long text into, more than the machine holds: refused before that."""
    footer, room = pq.read_metadata(path), memory_left()
    # Of columns the footer is not asked: on a damaged one pyarrow 26 ends the process there, where reading raises.
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    _check_room(path, key, sum(group.total_byte_size for group in groups), room)
    repeated = any(group.num_rows * group.total_byte_size > room for group in groups)
    fields = footer.schema.to_arrow_schema() if repeated else ()
    texts = [field.name for field in fields if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
    table = pq.read_table(path, read_dictionary=texts)
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            _check_room(path, key, sum(map(_unfolded, column.chunks)), room)
    return table


def _unfolded(chunk: pa.DictionaryArray) -> int:
    """Bytes of a dictionary-encoded text column with each value written out."""
    return pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices).cast(pa.int64())).as_py() or 0


def _check_unzipped(path: Path, key: str) -> None:
    room, size = memory_left(), 0
    try:
        with gzip.open(path) as file:
            while piece := file.read(1 << 22):
                size += len(piece)
                _check_room(path, key, size, room)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} ({key}) is no whole gzip file: {error}") from None


def _check_room(path: Path, key: str, size: int, room: int) -> None:
    if size > room:
        raise UserError(
            f"{path} ({key}) unpacks to {size / 2**30:.1f} GiB or more, and this machine has {room / 2**30:.1f} GiB of"
            " memory left: drop columns, split the file, or check where it comes from"
        )


def memory_left() -> int:
    """Bytes of memory that a table may fill."""
    return psutil.virtual_memory().available


def _without_dictionaries(table: pa.Table) -> pa.Table:
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(number, field.name, table.column(number).cast(field.type.value_type))
    return table
