"""Trains a run's small policy with TRL's GRPOTrainer on a CPU; the reward is R4T's objective over whole sets.

    r4t run configs/quickstart.yaml --stage prepare
    r4t run configs/quickstart.yaml --stage folm            # or any policy that writes fan-outs: --model DIR
    python examples/trl_policy.py runs/quickstart trained   # needs trl and datasets (locks/dev.txt)

`r4t import-policy OTHER_RUN trained --start runs/quickstart/folm/warm_start --trainer trl` brings the result back.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from r4t.interop.prompts import prompt_rows
from r4t.interop.reward import open_reward
from r4t.interop.trl import trl_reward


def train(run: Path, output: Path, model: Path | None = None, steps: int = 20) -> list[dict[str, float]]:
    """Trains for `steps` optimiser steps and saves the policy to `output`. Returns what TRL logged at each step."""
    reward = open_reward(run)
    config, dataset = reward.scorer.config, reward.scorer.dataset
    rl, start = config.rl, model or run / "folm" / "warm_start"
    tokenizer = AutoTokenizer.from_pretrained(start)
    rows = prompt_rows(dataset, config, dataset.split("train").tolist(), tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        settings = GRPOConfig(
            output_dir=scratch,
            use_cpu=True,
            bf16=False,
            seed=config.seed,
            learning_rate=rl.lr,
            max_grad_norm=rl.grad_clip,
            per_device_train_batch_size=rl.queries_per_step * rl.group_size // rl.updates_per_batch,
            steps_per_generation=rl.updates_per_batch,
            num_generations=rl.group_size,
            max_completion_length=rl.max_tokens,
            temperature=rl.temperature,
            top_k=0,
            epsilon=rl.clip,
            beta=0.0,
            max_steps=steps,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            gradient_checkpointing=False,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32),
            processing_class=tokenizer,
            reward_funcs=trl_reward(reward),
            args=settings,
            train_dataset=Dataset.from_list(rows),
        )
        trainer.train()
        trainer.save_model(str(output))
        return [line for line in trainer.state.log_history if "reward" in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory whose stage prepare has finished")
    parser.add_argument("output", type=Path, help="where the trained policy goes")
    parser.add_argument("--model", type=Path, help="the policy to start from; default: the run's warm-started one")
    parser.add_argument("--steps", type=int, default=20)
    a = parser.parse_args()
    for line in train(a.run, a.output, a.model, a.steps):
        print(f"reward {line['reward']:.4f}  diversity {line.get('r4t/diversity', float('nan')):.4f}")


if __name__ == "__main__":
    main()
