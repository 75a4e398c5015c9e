"""`r4t judge`: a language model behind an OpenAI-compatible server judges an evaluated run -> `judge_llm/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from jobs.run import Run
from r4t.catalog.dataset import load_dataset
from r4t.catalog.endpoint import Client
from r4t.config import Config, Endpoint
from r4t.errors import UserError, did_you_mean
from r4t.evaluation import llm_judge
from r4t.evaluation.rubrics import Verdict
from r4t.evaluation.shown import Shown, read_shown
from r4t.lineage import atomic_path, write_json, write_manifest

FOLDER = "judge_llm"


def endpoint(**settings: Any) -> Endpoint:
    """Raises UserError for an address or a number that `data.endpoint` would refuse too. Repeats no value."""
    try:
        return Endpoint(**settings)
    except ValidationError as error:
        said = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())
        raise UserError(f"the judge's server: {said}") from None


def main(
    config: Config,
    run: Run,
    server: Endpoint,
    methods: Sequence[str] | None = None,
    queries: int = 100,
    with_schema: bool = True,
) -> dict[str, Any]:
    """Judges the sets that the run's evaluation showed, and returns what `judge_llm/metrics.json` then holds.

    Answers are cached one by one, so that an interrupted command goes on where it was. Raises UserError for a run
    without an evaluation, an unknown method, a server that refuses, or a model that mostly answers nonsense.
    """
    shown = read_shown(run.folder / "evaluate")
    names = _methods(shown, methods)
    dataset = load_dataset(run.folder / "prepare")
    asked = llm_judge.cases(shown, names, queries, config.seed)
    run.say(f"judge: {len(asked)} questions about {len(names)} methods to {server.model}")
    client = Client(server, run.progress)
    verdicts = llm_judge.judge(client, dataset, asked, config.seed, with_schema)
    table = llm_judge.summary(asked, verdicts)
    found = {
        "schema": 1,
        "model": server.model,
        "temperature": server.temperature,
        "rubrics": llm_judge.rubric_hash(),
        "scale": "Likert 1 to 5, times 20",
        "n_queries": len({case.shown.query for case in asked}),
        "seed": config.seed,
        "unanswered": client.counts.failed,
        "methods": {name: table[name] for name in names},
    }
    folder = run.stage_folder(FOLDER)
    write_json(folder / "metrics.json", found)
    _write_verdicts(folder / "verdicts.parquet", asked, verdicts)
    write_manifest(
        folder,
        stage=FOLDER,
        config=config.model_dump(mode="json"),
        inputs={"prepare": run.folder / "prepare", "evaluate": run.folder / "evaluate"},
        files=["metrics.json", "verdicts.parquet"],
        metrics={"requests": client.counts.requests, "cached": client.counts.cached},
    )
    run.say(f"judge: {client.counts.requests} requests, {client.counts.cached} from the cache")
    return found


def _methods(shown: Sequence[Shown], wanted: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys(entry.method for entry in shown))
    for name in wanted or []:
        if name not in known:
            raise UserError(f"the evaluation has no method '{name}'{did_you_mean(name, known)}: use {', '.join(known)}")
    return [name for name in known if wanted is None or name in wanted]


def _write_verdicts(path: Path, asked: Sequence[llm_judge.Case], verdicts: Sequence[Verdict | None]) -> None:
    rows = [
        {
            "method": case.shown.method,
            "query": case.shown.query,
            "dimension": case.dimension,
            "score": verdict.score if verdict else None,
            "reasoning": verdict.reasoning if verdict else None,
        }
        for case, verdict in zip(asked, verdicts, strict=True)
    ]
    rows.sort(key=lambda row: (row["method"], row["query"], row["dimension"]))
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary, compression="zstd")
