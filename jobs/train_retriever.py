"""Stage retriever: trains the set denoiser on the synthesised sets, resuming at the step where it was stopped."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from cluster.launch import gather, launch_group
from cluster.retriever_learner import RetrieverLearner
from jobs.run import Bar, Run
from r4t.config import Config
from r4t.diffusion.checkpoint import CONFIG, WEIGHTS
from r4t.lineage import atomic_folder, clear_partial, is_finished, write_manifest
from r4t.sets.targets import check_rows

CHUNK = 25  # steps between two looks at the actors


def main(config: Config, run: Run) -> None:
    """Compiles the trained policy's sets and, for comparison, the warm-started policy's."""
    check_rows(config.retriever.rows, config.fanout.k)
    train_retriever(config, run, run.stage_folder("sets"), run.stage_folder("retriever"), "retriever")
    if config.evaluate.zero_shot_diffusion:
        sets, folder = run.folder / "sets" / "zero_shot", run.folder / "retriever" / "zero_shot"
        train_retriever(config, run, sets, folder, "retriever/zero_shot")


def train_retriever(config: Config, run: Run, sets: Path, folder: Path, name: str) -> None:
    """Trains on the finished `sets` folder and writes the retriever and its manifest to `folder`."""
    if is_finished(folder):
        run.say(f"{name}: already finished")
        return
    settings, prepare = config.retriever, run.folder / "prepare"
    folder.mkdir(parents=True, exist_ok=True)
    clear_partial(folder)
    started = time.monotonic()
    learners = launch_group(RetrieverLearner, config, prepare, sets, ranks=settings.ranks)
    everyone = _Everyone(learners, config)
    facts = everyone.first("describe")
    step = _resume(everyone, folder, run, name)
    run.say(
        f"{name}: {facts['parameters']:,} parameters, {facts['training_sets']} sets, sigma_data"
        f" {facts['sigma_data']:.4f}, steps {step} to {settings.steps}"
    )
    with run.progress(name, settings.steps) as bar:
        bar.advance(step)
        held_out = _train(everyone, config, run, folder, name, step, bar)
    everyone.first("export", folder)
    everyone.stop()
    write_manifest(
        folder,
        stage=name,
        config=config.model_dump(mode="json"),
        inputs={"prepare": prepare, "sets": sets},
        files=[CONFIG, WEIGHTS],
        metrics={**facts, "steps": settings.steps, "held_out_loss": held_out, "seconds": time.monotonic() - started},
    )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _train(everyone: _Everyone, config: Config, run: Run, folder: Path, name: str, step: int, bar: Bar) -> float:
    """Runs the remaining steps in chunks; validates and checkpoints on the way. Returns the last held-out loss."""
    settings = config.retriever
    held_out = float("nan")
    while step < settings.steps:
        stop = min(
            step + CHUNK,
            settings.steps,
            *(_next(step, n) for n in (settings.validate_every, settings.checkpoint_every)),
        )
        values = everyone.first("train", step, stop)
        bar.advance(stop - step)
        step = stop
        if step % settings.validate_every == 0 or step == settings.steps:
            held_out = values["held_out_loss"] = everyone.first("validate")
            run.log(name, step, values)
        if step % settings.checkpoint_every == 0 and step < settings.steps:
            _checkpoint(everyone, folder, step)
    return held_out


class _Everyone:
    """Calls all ranks at once and hands back rank 0's answer."""

    def __init__(self, actors: list[Any], config: Config) -> None:
        self.actors, self.config = actors, config

    def first(self, method: str, *args: Any) -> Any:
        calls = [getattr(actor, method).remote(*args) for actor in self.actors]
        return gather(calls, self.config, "retriever learner ranks")[0]

    def stop(self) -> None:
        import ray

        for actor in self.actors:
            ray.kill(actor)


def _next(step: int, every: int) -> int:
    return (step // every + 1) * every


def _resume(everyone: _Everyone, folder: Path, run: Run, name: str) -> int:
    """Loads the newest checkpoint, if any. Returns the step to continue at."""
    found = sorted((folder / "checkpoints").glob("step-*"))
    if not found:
        return 0
    step = everyone.first("load", found[-1])
    run.say(f"{name}: resumed at step {step}")
    return int(step)


def _checkpoint(everyone: _Everyone, folder: Path, step: int) -> None:
    """Writes a checkpoint, whole or not at all, then removes the older ones."""
    home = folder / "checkpoints"
    with atomic_folder(home / f"step-{step:08d}") as temporary:
        everyone.first("save", temporary, step)
    for old in sorted(home.glob("step-*"))[:-1]:
        shutil.rmtree(old)
