"""Training steps of the retriever: the DeepSpeed learner of the job against a plain PyTorch loop on the same batches.

    python -m benchmarks.retriever_throughput runs/quickstart --rounds 9 > throughput.json

The two take turns, 25 steps each, in one process with the same number of threads; each draws its batches, clips, steps
AdamW and averages the weights. Prints JSON: steps per second of either (median, least, most over rounds) and the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.environment import environment
from cluster.devices import role_environment, torch_device, torch_dtype
from cluster.retriever_learner import RetrieverLearner
from jobs.retrieve import config_of
from r4t.config import Config
from r4t.diffusion.denoiser import SetDenoiser
from r4t.diffusion.ema import EMA
from r4t.diffusion.training import DenoisingLoss, learning_rate, noisy_batch
from r4t.sets.reader import TargetSets

STEPS = 25


def plain_loop(config: Config, like: SetDenoiser, training: TargetSets) -> Callable[[int], None]:
    """A training step of a network of the same size, without DeepSpeed."""
    settings, device = config.retriever, torch_device(config)
    denoiser = SetDenoiser(like.config).to(device)
    loss = DenoisingLoss(denoiser, torch_dtype(settings.dtype)).train()
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=settings.lr, weight_decay=0.0)
    ema = EMA(denoiser, settings.ema)

    def step(number: int) -> None:
        batch = noisy_batch(training, settings, step=number, seed=config.seed)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, number)
        optimizer.zero_grad()
        loss(*batch.to(device)).mean().backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), settings.grad_clip)
        optimizer.step()
        ema.update(denoiser.parameters())

    return step


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Steps per second of `STEPS` steps."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return STEPS / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    a = parser.parse_args()
    config = config_of(a.run)
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
    os.environ.update(role_environment("learner", config) | alone)
    learner = RetrieverLearner(0, 1, config, a.run / "prepare", a.run / "sets")
    step = plain_loop(config, learner.denoiser, learner.training)
    rates: dict[str, list[float]] = {"deepspeed": [], "plain": []}
    for turn in range(-1, a.rounds):  # the first turn warms up
        first = (turn + 1) * STEPS
        for name in ("deepspeed", "plain") if turn % 2 else ("plain", "deepspeed"):
            work: Callable[[], object] = (
                (lambda: learner.train(first, first + STEPS))  # noqa: B023  called at once
                if name == "deepspeed"
                else (lambda: [step(number) for number in range(first, first + STEPS)])  # noqa: B023
            )
            rate = timed(learner.device, work)
            if turn >= 0:
                rates[name].append(rate)
    summary = {
        name: {"median": statistics.median(r), "least": min(r), "most": max(r)} for name, r in rates.items()
    }  # steps per second
    result = {"batch": config.retriever.batch, "parameters": learner.describe()["parameters"], "steps_per_s": summary}
    ratio = statistics.median(d / p for d, p in zip(rates["deepspeed"], rates["plain"], strict=True))
    print(
        json.dumps(
            {
                "schema": 1,
                "name": "retriever_throughput",
                "environment": environment() | {"threads": torch.get_num_threads()},
                "results": [result | {"ratio": ratio, "at_least": 0.95, "holds": ratio >= 0.95}],
            }
        )
    )


if __name__ == "__main__":
    main()
