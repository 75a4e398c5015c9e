"""A tiny language model that has learned one answer by heart, so that what it writes can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from jobs.run import save_config
from r4t.config import load_config
from r4t.fanout import build_prompt, format_answer
from r4t.lineage import write_manifest
from r4t.policy import create_policy, encode_prompt, load_tokenizer, train_tokenizer

SHAPE = {"vocab_size": 384, "hidden": 64, "layers": 1, "heads": 2, "max_length": 128}
SETTINGS = [f"policy.{name}={value}" for name, value in SHAPE.items()]
STEPS = 60


def teach(run: Path, queries: list[str], answer: list[str]) -> None:
    """Gives a run a finished stage folm whose policy answers `queries` with the sub-queries of `answer`."""
    config = load_config(run / "config.yaml", [*SETTINGS, "rollout.engine=hf", "rollout.threads=1"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more cost minutes where others want the cores too
    save_config(run, config)
    folder = run / "folm" / "policy"
    create_policy(folder, train_tokenizer([*queries, *answer] * 4, 384), config.policy, seed=0)
    tokenizer = load_tokenizer(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    written = [*tokenizer.encode(format_answer(answer), add_special_tokens=False), tokenizer.eos_token_id]
    style, domain, k = config.fanout.prompt, config.fanout.domain, config.fanout.k
    asked = [build_prompt(text, style=style, task=config.task, domain=domain, k=k) for text in queries]
    prompts = [encode_prompt(tokenizer, text) for text in asked]
    width = max(map(len, prompts)) + len(written)
    ids = torch.full((len(queries), width), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for row, prompt in enumerate(prompts):
        whole = torch.tensor([*prompt, *written])
        ids[row, : len(whole)] = whole
        labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    for _ in range(STEPS):
        loss = model(input_ids=ids, attention_mask=(labels >= 0) | (ids != tokenizer.pad_token_id), labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.02, "it has learned its answer"
    torch.set_num_threads(threads)
    model.save_pretrained(folder)
    files = ["policy/config.json", "policy/model.safetensors", "policy/tokenizer.json"]
    write_manifest(run / "folm", stage="folm", config={}, inputs={}, files=files, metrics={})
