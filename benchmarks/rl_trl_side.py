"""TRL's side of `benchmarks.rl_throughput`: runs in TRL's own environment, prints one line of JSON.

    python -m benchmarks.rl_trl_side RUN CONFIG.json BATCHES

The same prompts, policy, group size, lengths, temperature, learning rate and reward (R4T's own scorer) as the R4T side.
TRL's `steps_per_generation` equals R4T's `rl.updates_per_batch`: one batch of completions, as many optimiser steps.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from datasets import Dataset as Table
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from r4t.catalog.dataset import load_dataset
from r4t.catalog.encoders import run_encoder
from r4t.config import parse_config
from r4t.fanout import build_prompt
from r4t.scoring import SetScorer


class Clock(TrainerCallback):
    """The time at the end of every optimiser step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    run, batches = Path(sys.argv[1]), int(sys.argv[3])
    config = parse_config(json.loads(Path(sys.argv[2]).read_text()))
    rl, fanout = config.rl, config.fanout
    torch.set_num_threads(os.cpu_count() or 1)
    dataset = load_dataset(run / "prepare")
    scorer = SetScorer(dataset, run_encoder(config, run / "prepare"), config)
    rows = np.random.default_rng(config.seed).permutation(dataset.split("train"))[: batches * rl.queries_per_step]
    prompts = [
        build_prompt(dataset.queries[row].text, style=fanout.prompt, task=config.task, domain=fanout.domain, k=fanout.k)
        for row in rows
    ]
    lengths: list[int] = []

    def reward(completions: list[str], row: list[int], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        lengths.extend(len(ids) for ids in completion_ids)
        return [float(value) for value in scorer.score(row, completions).rewards]

    folder = run / "folm" / "warm_start"
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        settings = GRPOConfig(
            output_dir=out,
            use_cpu=True,
            bf16=False,
            seed=config.seed,
            learning_rate=rl.lr,
            lr_scheduler_type="constant",
            max_grad_norm=rl.grad_clip,
            per_device_train_batch_size=rl.queries_per_step * rl.group_size // rl.updates_per_batch,
            steps_per_generation=rl.updates_per_batch,
            num_generations=rl.group_size,
            max_completion_length=rl.max_tokens,
            temperature=rl.temperature,
            top_p=1.0,
            top_k=0,
            epsilon=rl.clip,
            beta=0.0,
            max_steps=batches * rl.updates_per_batch,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            dataloader_pin_memory=False,
            gradient_checkpointing=False,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(folder),
            reward_funcs=reward,
            args=settings,
            train_dataset=Table.from_dict({"prompt": prompts, "row": rows.tolist()}),
            callbacks=[clock],
        )
        trainer.train()
    whole = clock.ends[rl.updates_per_batch - 1 :: rl.updates_per_batch]  # the end of every batch
    seconds = np.diff(whole).tolist()
    print(json.dumps({"seconds": seconds, "tokens": float(np.mean(lengths))}))


if __name__ == "__main__":
    main()
