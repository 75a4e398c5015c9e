"""How long publishing a policy's weights takes, from the learner's memory to an engine that answers with them.

    python -m benchmarks.rl_weight_sync [--layers 30] [--repeats 5]

A randomly initialised Llama of SmolLM2-135M's shape, one learner rank, one rollout worker, on this machine's CPU.
`publish` is the whole transfer: `export` writes the version, then the engine loads it and cannot generate (`pause`).
Prints JSON with medians over the repetitions; the first publish, which warms up, is apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.environment import environment
from cluster.launch import gather, launch_group
from cluster.learner import Phase, PolicyLearner
from cluster.rollout_actor import start_rollout
from cluster.self_test import self_test
from cluster.session import session
from cluster.weights import WeightChannel
from r4t.config import Config, parse_config
from r4t.policy import train_tokenizer


def make_policy(folder: Path, layers: int) -> int:
    """Writes the policy and a small tokenizer. Returns the number of parameters."""
    tokenizer = train_tokenizer(["a recipe", "a menu", "dinner for two"], 400)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49_152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=layers,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def measure(config: Config, model_dir: Path, shared: Path, repeats: int) -> dict[str, float]:
    """Seconds of each transfer, with the self-test after the first."""
    (learner,) = learners = launch_group(PolicyLearner, config, ranks=1, cpus=config.learner.cpus)
    worker = start_rollout(config, model_dir)
    phase = Phase(lr=config.rl.lr, betas=config.rl.betas)
    gather([learner.begin.remote(model_dir, phase)], config, "the learner")
    exports, pauses, publishes = [], [], []
    with WeightChannel(config, learners, [worker], shared) as channel:
        started = time.perf_counter()
        first = channel.publish(1)
        channel.wait()
        first_seconds = time.perf_counter() - started
        gap = self_test(config, learners, [worker], (0, "dinner for two"), 0)
        for version in range(2, 2 + repeats):
            started = time.perf_counter()
            exports.append(channel.publish(version).seconds)
            channel.wait()
            publishes.append(time.perf_counter() - started)
            pauses.append(publishes[-1] - exports[-1])
    return {
        "bytes": first.bytes,
        "seconds_first_publish": first_seconds,
        "seconds_publish": statistics.median(publishes),
        "seconds_export": statistics.median(exports),
        "seconds_pause": statistics.median(pauses),
        "self_test_gap_nats": gap,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    config = parse_config(
        {
            "policy": {"max_length": 256},
            "rl": {"max_tokens": 32},
            "rollout": {"kv_cache_gib": 0.25, "max_num_seqs": 8, "cpus": 0.5},
            "learner": {"ranks": 1, "cpus": 0.5},
        }
    )
    with tempfile.TemporaryDirectory() as folder, session(config, "local"):
        parameters = make_policy(Path(folder), arguments.layers)
        measured = measure(config, Path(folder), Path(folder), arguments.repeats)
    result = {
        "parameters": parameters,
        "dtype": "float32",
        "transport": "file",
        "repeats": arguments.repeats,
    } | measured
    print(json.dumps({"schema": 1, "name": "rl_weight_sync", "environment": environment(), "results": [result]}))


if __name__ == "__main__":
    main()
