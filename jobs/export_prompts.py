"""`r4t export-prompts`: a run's queries as a prompt dataset for other trainers."""

from __future__ import annotations

from pathlib import Path

from r4t.catalog.dataset import load_dataset
from r4t.config import load_config
from r4t.errors import UserError
from r4t.interop.prompts import LABEL, PROMPT, prompt_rows, write_prompts
from r4t.policy import check_policy, load_tokenizer


def main(run: Path, file: Path, split: str, model: Path | None) -> None:
    """Writes the prompts of a split to `file`, for the tokenizer of `model`: given, the run's warm-started policy, or
    the configuration's model; else bare messages. Raises UserError for a run whose stage prepare has not finished."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run directory (it has no config.yaml): give the folder that `r4t run` made")
    config = load_config(run / "config.yaml")
    dataset = load_dataset(run / "prepare")
    warm_started = run / "folm" / "warm_start"
    model = model or (warm_started if (warm_started / "config.json").is_file() else config.policy.model)
    if model is not None:
        check_policy(model)
    rows = prompt_rows(dataset, config, dataset.split(split).tolist(), load_tokenizer(model) if model else None)
    if not rows:
        raise UserError(f"{run} has no queries in the split '{split}'")
    write_prompts(file, rows)
    reads = f"as {model} reads them" if model else "as bare messages (--data.apply_chat_template)"
    print(f"{len(rows)} prompts {reads}: {file}\n  --data.input_key {PROMPT} --data.label_key {LABEL}")
