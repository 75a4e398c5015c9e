"""The training reward of a prepared dataset, for answers that another trainer sampled."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r4t.catalog.dataset import load_dataset
from r4t.catalog.encoders import run_encoder
from r4t.catalog.index import open_index
from r4t.config import Config, load_config
from r4t.errors import UserError
from r4t.fanout import QUERY_CLOSE, format_answer, unmarked
from r4t.lineage import MANIFEST, file_hash, is_finished
from r4t.scoring import SetScorer

LABEL_HELP = "train on the file that `r4t export-prompts` wrote, with --data.input_key prompt --data.label_key label"
PREFIX = "r4t/"  # of every logged name, so that none is also one of the trainer's own


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer to score."""

    row: int
    """Of the query in the dataset."""
    answer: str
    """What the policy wrote, without the prompt."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What an answer is worth."""

    reward: float
    logs: dict[str, float]
    """The unweighted terms under their names, and `valid`: 1 where the answer could be read. Terms of an unreadable
    answer are 0, so that a mean over answers divided by the mean of `valid` is that of the readable ones."""


class SetReward:
    """Scores answers to the queries of a dataset, which labels name by `query_id`. Pure: it keeps nothing of them."""

    def __init__(self, scorer: SetScorer, fingerprint: str = "") -> None:
        self.scorer = scorer
        self.fingerprint = fingerprint
        self._queries = scorer.dataset.queries
        self._rows = {query.query_id: row for row, query in enumerate(self._queries)}
        self.example = int(scorer.dataset.split("train")[0])  # a query with all that the objective needs
        self.names = tuple(scorer.score([self.example], [format_answer([self._queries[self.example].text])]).terms)

    def row(self, label: Any) -> int:
        """Row of the query that a label names. Raises UserError for a missing or unknown one."""
        if label is None or label == "":
            raise UserError(f"the prompt came without a label, so nothing says which query it asks: {LABEL_HELP}")
        if not isinstance(label, str) or label not in self._rows:
            raise UserError(
                f"the label {_short(label)} names no query of this dataset of {len(self._rows)}: {LABEL_HELP}"
            )
        return self._rows[label]

    def ask(self, whole: str, prompt: str, label: Any) -> Asked:
        """The answer in `whole`, the trainer's decoded prompt and answer together.

        Raises UserError when the prompt does not hold the label's query, or `whole` not the prompt.
        """
        row = self.row(label)
        text = self._queries[row].text
        if _plain(unmarked(text)) not in _plain(prompt):
            raise UserError(
                f"the prompt {_short(prompt)} does not hold the query {_short(text)} that its label {_short(label)}"
                " names: a prompt template hides it (--data.input_template must contain {}), or labels and prompts are"
                f" of different rows; {LABEL_HELP}"
            )
        return Asked(row, answer_in(whole, prompt))

    def score(self, asked: Sequence[Asked]) -> list[Judged]:
        """Judges answers together: one encoder call, one search. Raises RuntimeError for a reward that is no number."""
        scored = self.scorer.score([one.row for one in asked], [one.answer for one in asked])
        judged = []
        for i, fanout in enumerate(scored.fanouts):
            reward = float(scored.rewards[i])
            if not math.isfinite(reward):
                raise RuntimeError(f"the reward of the answer {_short(asked[i].answer)} is {reward}")
            logs = {PREFIX + name: float(scored.terms[name][i]) if fanout.valid else 0.0 for name in self.names}
            judged.append(Judged(reward, logs | {PREFIX + "valid": float(fanout.valid)}))
        return judged


def answer_in(whole: str, prompt: str) -> str:
    """The answer behind the prompt in decoded text.

    A tokenizer need not give its prompt back letter by letter (it may fold case or add spaces), so the prompt ends with
    its last `</broad_query>` where it does not begin `whole`. An example of an answer inside the prompt must not count.
    Raises UserError when the prompt's end cannot be found.
    """
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    marks = prompt.count(QUERY_CLOSE)
    parts = whole.split(QUERY_CLOSE, marks)
    if not marks or len(parts) <= marks:
        raise UserError(
            f"the sampled text {_short(whole)} does not hold its prompt to the end, so the answer cannot be told from"
            f" it: keep the query in {QUERY_CLOSE} as `r4t export-prompts` writes it, and raise --data.max_len if"
            " prompts are cut"
        )
    return parts[-1]


def open_reward(source: Path, run: Path | None = None) -> SetReward:
    """The reward of a run directory, or of a configuration whose stage prepare has finished in `run` (runs/<name>).

    Raises UserError when `source` is neither, or the stage has not finished.
    """
    if source.is_dir():
        if not (source / "config.yaml").is_file():
            raise UserError(f"{source} is no run directory (it has no config.yaml): give one, or a configuration")
        config, run = load_config(source / "config.yaml"), run or source
    else:
        config = load_config(source)
        run = run or Path("runs") / config.name
    return run_reward(config, run / "prepare")


def run_reward(config: Config, prepare: Path) -> SetReward:
    """The reward of a finished prepare folder under `config`. Raises UserError when it has not finished."""
    if not is_finished(prepare):
        raise UserError(f"{prepare} holds no finished dataset: run `r4t run CONFIG --stage prepare` first")
    dataset = load_dataset(prepare, config.objective.columns)
    index = open_index(prepare, dataset.item_vectors, config.index)
    scorer = SetScorer(dataset, run_encoder(config, prepare), config, index)
    return SetReward(scorer, reward_fingerprint(config, prepare))


def reward_fingerprint(config: Config, prepare: Path) -> str:
    """Of everything that decides a reward: the dataset, the objective, how a fan-out is read and searched for."""
    judged_by = {name: getattr(config, name).model_dump(mode="json") for name in ("objective", "fanout", "index")}
    text = json.dumps([file_hash(prepare / MANIFEST), config.task, judged_by], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:50]}...{shown[-25:]}"
