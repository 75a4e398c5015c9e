"""The controls of every comparison: one temperature, and a judge that no training and no choice ever sees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.policies import POLICY_OF, PolicySwitch, build_methods
from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import load_encoder
from r4t.collapse import alarms
from r4t.config import Alarms, parse_config
from r4t.fanout import format_answer
from r4t.methods import QueryBatch
from r4t.types import Completion, Query
from tests.support import ROOT

NAMES = ["apple pie", "bean stew", "fish soup", "green salad", "rye bread", "plum jam"]
MAY_READ_THE_JUDGE = {"jobs/train_folm.py", "jobs/evaluate.py", "r4t/evaluation/measure.py"}
"""Training logs what the judge says; evaluation reports it."""


def test_every_method_that_writes_text_is_sampled_at_the_same_temperature(tmp_path: Path) -> None:
    encoder = load_encoder("wordllama", 64)
    queries = [Query(query_id=str(i), text=text, split="test") for i, text in enumerate(("dinner", "lunch"))]
    dataset = Dataset(
        item_ids=NAMES,
        item_texts=NAMES,
        item_names=NAMES,
        item_vectors=encoder.encode(NAMES),
        queries=queries,
        query_vectors=encoder.encode([query.text for query in queries]),
    )
    config = parse_config({"fanout": {"k": 2}, "encoder": {"dim": 64}, "evaluate": {"temperature": 0.7}})
    used = []

    def engine(asked: Sequence[tuple[int, str]], samples: int, temperature: float, seed: int) -> list[Completion]:
        used.append(temperature)
        return [
            Completion(
                query=row, sample=sample, prompt_ids=(), token_ids=(), logprobs=(), finished=True,
                text=format_answer(NAMES[seed : seed + 2]), policy_version=policies.loaded,
            )
            for row, _ in asked
            for sample in range(samples)
        ]  # fmt: skip

    policies = PolicySwitch(tmp_path, engine, lambda _, __: None)
    for method in build_methods(list(POLICY_OF), config, tmp_path, dataset, encoder, policies).values():
        method.retrieve(QueryBatch.of_rows(dataset, [0, 1]), seed=1)
    assert used == [0.7] * len(POLICY_OF)


def test_only_the_log_of_training_and_evaluation_read_the_judge() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for layer in ("r4t", "cluster", "jobs")
        for path in (ROOT / layer).rglob("*.py")
        if re.search(r"^\s*(from|import) r4t\.evaluation\.judge\b", path.read_text(), re.MULTILINE)
    }
    assert readers == MAY_READ_THE_JUDGE


def test_no_alarm_that_decides_which_policy_is_kept_hears_the_judge() -> None:
    start = dict.fromkeys(Alarms.model_fields, 1.0) | {"judge/diversity": 1.0, "judge/alignment": 1.0}
    worse = start | {"judge/diversity": 0.0, "judge/alignment": 0.0}
    assert alarms(worse, start, Alarms()) == alarms(start, start, Alarms()) == []


@pytest.mark.parametrize("name", ["judge_llm", "shown.parquet"])
def test_no_training_reads_what_judges_read_or_wrote(name: str) -> None:
    stages = [ROOT / "jobs" / f"{stage}.py" for stage in ("train_folm", "synthesize", "train_retriever", "distill")]
    assert not [path for path in (*stages, *(ROOT / "cluster").rglob("*.py")) if name in path.read_text()]
