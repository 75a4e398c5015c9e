"""The training queries of a run as a prompt dataset that OpenRLHF and TRL read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from r4t.catalog.dataset import Dataset
from r4t.config import Config
from r4t.errors import UserError
from r4t.fanout import build_prompt
from r4t.lineage import atomic_path
from r4t.stream import QueryStream

PROMPT, LABEL = "prompt", "label"  # the keys to name in --data.input_key and --data.label_key


def prompt_rows(
    dataset: Dataset, config: Config, rows: Sequence[int], tokenizer: PreTrainedTokenizerBase | None
) -> list[dict[str, str]]:
    """One prompt per dataset row, labelled with its `query_id`.

    With a tokenizer the prompt is what that model reads, its chat template applied, so that it becomes the same tokens
    as in R4T's own loop; without, the bare user message, for trainers that apply a template themselves.
    """
    fanout = config.fanout
    made = []
    for row in rows:
        query = dataset.queries[row]
        text = build_prompt(query.text, style=fanout.prompt, task=config.task, domain=fanout.domain, k=fanout.k)
        if tokenizer is not None and tokenizer.chat_template:
            message = [{"role": "user", "content": text}]
            text = str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
        made.append({PROMPT: text, LABEL: query.query_id, "datasource": config.name})
    return made


def drawn_rows(dataset: Dataset, seed: int, count: int) -> list[int]:
    """The first `count` queries that R4T's own loop would draw for training: whole permutations, one after another."""
    stream = QueryStream(dataset.split("train"), seed)
    return [stream.row(position) for position in range(count)]


def write_prompts(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Writes JSON lines or Parquet, by the file's ending, atomically. Raises UserError for another ending."""
    if path.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"{path}: prompts are written as .jsonl or .parquet, by the file's ending")
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), temporary)
        else:
            temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
