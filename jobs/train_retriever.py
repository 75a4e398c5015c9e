"""Stage retriever: trains the set denoiser on the synthesised sets, resuming at the step where it was stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.devices import gpus
from cluster.launch import gather, launch_group
from cluster.retriever_learner import RetrieverLearner
from jobs.run import Bar, Run
from r4t.config import Config
from r4t.diffusion.checkpoint import CONFIG, WEIGHTS
from r4t.lineage import atomic_folder, clear_partial, is_finished, write_manifest
from r4t.sets.targets import check_rows

CHUNK = 25  # steps between two looks at the actors


class Everyone:
    """Calls all ranks of one group at once and hands back rank 0's answer."""

    def __init__(self, actors: list[Any], config: Config) -> None:
        self.actors, self.config = actors, config

    def ask(self, method: str, *args: Any) -> list[Any]:
        return [getattr(actor, method).remote(*args) for actor in self.actors]

    def answer(self, calls: list[Any]) -> Any:
        return gather(calls, self.config, "retriever learner ranks")[0]

    def first(self, method: str, *args: Any) -> Any:
        return self.answer(self.ask(method, *args))

    def stop(self) -> None:
        for actor in self.actors:
            ray.kill(actor)


@dataclass(slots=True, kw_only=True)
class Training:
    """One retriever in the making."""

    name: str
    sets: Path
    folder: Path
    everyone: Everyone
    facts: dict[str, Any]
    step: int
    started: float
    held_out: float = float("nan")


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
    trainings = [_start(config, run, *one) for one in wanted]
    steps = config.retriever.steps
    with run.progress("retriever", steps * len(trainings)) as bar:
        bar.advance(sum(training.step for training in trainings))
        while active := [training for training in trainings if training.step < steps]:
            _advance(config, run, active, bar)
    for training in trainings:
        _finish(config, run, training)


def _start(config: Config, run: Run, name: str, sets: Path, folder: Path) -> Training:
    settings = config.retriever
    folder.mkdir(parents=True, exist_ok=True)
    clear_partial(folder)
    started = time.monotonic()
    everyone = Everyone(
        launch_group(RetrieverLearner, config, run.folder / "prepare", sets, ranks=settings.ranks), config
    )
    facts = everyone.first("describe")
    step = _resume(everyone, folder, run, name)
    run.say(
        f"{name}: {facts['parameters']:,} parameters, {facts['training_sets']} sets, sigma_data"
        f" {facts['sigma_data']:.4f}, steps {step} to {settings.steps}"
    )
    return Training(name=name, sets=sets, folder=folder, everyone=everyone, facts=facts, step=step, started=started)


def _advance(config: Config, run: Run, active: list[Training], bar: Bar) -> None:
    """One chunk of steps of every active training at the same time; validates and checkpoints where it is due."""
    settings = config.retriever
    regular = (settings.validate_every, settings.checkpoint_every)
    stops = [min(t.step + CHUNK, settings.steps, *(_next(t.step, every) for every in regular)) for t in active]
    calls = [t.everyone.ask("train", t.step, stop) for t, stop in zip(active, stops, strict=True)]
    for training, stop, call in zip(active, stops, calls, strict=True):
        values = training.everyone.answer(call)
        bar.advance(stop - training.step)
        training.step = stop
        if stop % settings.validate_every == 0 or stop == settings.steps:
            training.held_out = values["held_out_loss"] = training.everyone.first("validate")
            run.log(training.name, stop, values)
        if stop % settings.checkpoint_every == 0 and stop < settings.steps:
            _checkpoint(training.everyone, training.folder, stop)


def _finish(config: Config, run: Run, training: Training) -> None:
    training.everyone.first("export", training.folder)
    training.everyone.stop()
    write_manifest(
        training.folder,
        stage=training.name,
        config=config.model_dump(mode="json"),
        inputs={"prepare": run.folder / "prepare", "sets": training.sets},
        files=[CONFIG, WEIGHTS],
        metrics={
            **training.facts,
            "steps": config.retriever.steps,
            "held_out_loss": training.held_out,
            "seconds": time.monotonic() - training.started,
        },
    )
    shutil.rmtree(training.folder / "checkpoints", ignore_errors=True)


def _next(step: int, every: int) -> int:
    return (step // every + 1) * every


def _resume(everyone: Everyone, folder: Path, run: Run, name: str) -> int:
    """Loads the newest checkpoint, if any. Returns the step to continue at."""
    found = sorted((folder / "checkpoints").glob("step-*"))
    if not found:
        return 0
    step = everyone.first("load", found[-1])
    run.say(f"{name}: resumed at step {step}")
    return int(step)


def _checkpoint(everyone: Everyone, folder: Path, step: int) -> None:
    """Writes a checkpoint, whole or not at all, then removes the older ones."""
    home = folder / "checkpoints"
    with atomic_folder(home / f"step-{step:08d}") as temporary:
        everyone.first("save", temporary, step)
    for old in sorted(home.glob("step-*"))[:-1]:
        shutil.rmtree(old)
