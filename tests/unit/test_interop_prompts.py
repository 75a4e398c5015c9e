"""The exported prompts are what OpenRLHF's dataset reads, and become the tokens of R4T's own loop."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openrlhf_wheel
import pyarrow.parquet as pq
import pytest
from interop_fixtures import QUERIES, configuration, reward

from r4t.errors import UserError
from r4t.fanout import build_prompt
from r4t.interop.prompts import drawn_rows, prompt_rows, write_prompts
from r4t.policy import encode_prompt, train_tokenizer
from r4t.stream import QueryStream

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|do|>{% endif %}"
)


@pytest.mark.parametrize("template", [None, CHAT], ids=["plain", "chat"])
@pytest.mark.parametrize("style", ["compact", "paper"])
def test_openrlhfs_dataset_reads_prompts_that_become_the_same_tokens(
    template: str | None, style: Any, tmp_path: Path
) -> None:
    package = openrlhf_wheel.package(tmp_path)
    module = openrlhf_wheel._load("prompts_dataset", package / "datasets" / "prompts_dataset.py", {})
    own, config = reward(), configuration()
    config = config.model_copy(update={"fanout": config.fanout.model_copy(update={"prompt": style})})
    tokenizer = train_tokenizer(QUERIES, 400)
    tokenizer.chat_template = template
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, prompt_rows(own.scorer.dataset, config, [2, 0], tokenizer))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    data = SimpleNamespace(input_key="prompt", label_key="label", apply_chat_template=False)
    strategy = SimpleNamespace(args=SimpleNamespace(data=data), is_rank_0=lambda: False)
    dataset = module.PromptDataset(rows, tokenizer, strategy)
    assert len(dataset) == 2
    for i, row in enumerate([2, 0]):
        source, prompt, label, image = dataset[i]
        message = build_prompt(QUERIES[row], style=style, task="oar", domain=config.fanout.domain, k=config.fanout.k)
        ids = tokenizer(text=prompt, add_special_tokens=False)["input_ids"]  # as its executor does
        assert ids == encode_prompt(tokenizer, message)
        assert (source, label, image) == ("run", f"q{row}", None)
        assert own.ask(prompt + "x", prompt, label).answer == "x"


def test_without_a_tokenizer_the_prompt_is_the_bare_message(tmp_path: Path) -> None:
    own = reward()
    (row,) = prompt_rows(own.scorer.dataset, configuration(), [1], None)
    assert row == {"prompt": "<broad_query>light lunch</broad_query>", "label": "q1", "datasource": "run"}
    write_prompts(tmp_path / "p.parquet", [row])
    assert pq.read_table(tmp_path / "p.parquet").to_pylist() == [row]
    with pytest.raises(UserError, match=r"\.jsonl or \.parquet"):
        write_prompts(tmp_path / "p.txt", [row])


def test_draws_are_those_of_the_native_loop() -> None:
    dataset = reward().scorer.dataset
    stream = QueryStream(dataset.split("train"), 5)
    assert drawn_rows(dataset, 5, 10) == [stream.row(i) for i in range(10)]
    assert sorted(drawn_rows(dataset, 5, 8)) == sorted([0, 1, 2, 3] * 2)
