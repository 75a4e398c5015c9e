"""Stage retriever: trains the set denoiser on the synthesised sets, resuming at the step where it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ray

from cluster.retriever_learner import RetrieverLearner
from jobs.denoiser_training import Plan, train
from jobs.run import Run
from r4t.config import Config
from r4t.lineage import is_finished
from r4t.seats import gpus
from r4t.sets.targets import check_rows


def main(config: Config, run: Run) -> None:
    """Compiles the trained policy's sets and, for comparison, the warm-started policy's, side by side."""
    check_rows(config.retriever.rows, config.fanout.k)
    wanted = [("retriever", run.stage_folder("sets"), run.stage_folder("retriever"))]
    if config.evaluate.zero_shot_diffusion:
        wanted.append(
            ("retriever/zero_shot", run.folder / "sets" / "zero_shot", run.folder / "retriever" / "zero_shot")
        )
    for name, _, folder in wanted:
        if is_finished(folder):
            run.say(f"{name}: already finished")
    missing = [one for one in wanted if not is_finished(one[2])]
    together = bool(missing) and fits(config, len(missing))
    for group in [missing] if together else [[one] for one in missing]:
        train_retrievers(config, run, group)


def fits(config: Config, groups: int) -> bool:
    """Whether the cluster has the GPUs for so many retrievers at once."""
    return groups * config.retriever.ranks * gpus("learner", config) <= ray.cluster_resources().get("GPU", 0.0)


def train_retrievers(config: Config, run: Run, wanted: Sequence[tuple[str, Path, Path]]) -> None:
    """Trains one retriever for each (name, finished sets folder, folder to write) and writes its manifest."""
    prepare = run.folder / "prepare"
    plans = [
        Plan(
            name=name,
            learner=RetrieverLearner,
            args=(prepare, sets),
            settings=config.retriever,
            folder=folder,
            inputs={"prepare": prepare, "sets": sets},
        )
        for name, sets, folder in wanted
    ]
    train(config, run, plans)
