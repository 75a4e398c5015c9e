"""Trains networks that draw sets, several at a time: steps, validation, checkpoints, resume and early stop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from cluster.launch import ActorsLost, gather, launch_group
from cluster.preemption import Notices
from jobs.run import Bar, Run
from jobs.stopping import Stop, stop_at_boundary
from r4t.config import Config, Training
from r4t.diffusion.checkpoint import CONFIG, WEIGHTS
from r4t.errors import UserError
from r4t.lineage import atomic_path, clear_partial, is_finished, read_json, write_json, write_manifest
from r4t.sealed import STEPS, damage, newest_whole, sealed_folder

CHUNK = 25  # steps between two looks at the actors
SHOWN = ("loss", "lr", "held_out_loss", "held_out/reward", "held_out/coverage")
BEST, BEST_RECORD = "best", "best.json"
KEPT = 2  # checkpoints: the one before for where the newest is damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One network to train: ranks of `learner(rank, world, config, *args)`, the folder to write, what it is made of."""

    name: str
    learner: type
    args: tuple[Any, ...]
    settings: Training
    folder: Path
    inputs: Mapping[str, Path]


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
class Job:
    """One network in the making."""

    plan: Plan
    everyone: Everyone
    started: float
    facts: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    ended: bool = False
    values: dict[str, float] = field(default_factory=dict)
    """Of the last validation."""

    @property
    def active(self) -> bool:
        return not self.ended and self.step < self.plan.settings.steps


def train(config: Config, run: Run, plans: Sequence[Plan]) -> None:
    """Trains all of them side by side, from their newest checkpoints on, and writes their folders' manifests.

    When ranks are lost, all start again from there. SIGTERM: a checkpoint, then SystemExit with 143.
    """
    restarts, limit = 0, config.cluster.max_restarts
    with stop_at_boundary() as stop:
        while waiting := [plan for plan in plans if not is_finished(plan.folder)]:
            jobs: list[Job] = []
            try:
                _train(config, run, waiting, jobs, stop)
            except ActorsLost as lost:
                for job in jobs:
                    job.everyone.stop()
                if restarts >= limit:
                    raise RuntimeError(f"{lost}, after {limit} restarts (cluster.max_restarts)") from lost
                restarts += 1
                run.say(f"{plans[0].name}: {lost}: restart {restarts} of at most {limit}")


def _train(config: Config, run: Run, plans: Sequence[Plan], jobs: list[Job], stop: Stop) -> None:
    """Starts a job for each plan, puts them into `jobs`, and trains them to their end."""
    for plan in plans:  # all at once: a start is imports, of one core each
        jobs.append(_launch(config, plan))
    for job in jobs:
        _begin(run, job)
    notices = Notices([actor for job in jobs for actor in job.everyone.actors])
    total, before = sum(plan.settings.steps for plan in plans), sum(job.step for job in jobs)
    with run.progress(plans[0].name, total, before) as bar:
        run.advanced()  # that the ranks have started is progress too
        while active := [job for job in jobs if job.active]:
            _advance(run, active, bar)
            if leaving := notices.leaving():
                run.say(f"{plans[0].name}: {leaving} and holds learner ranks: checkpoint")
            if stop.requested or leaving:
                for job in (job for job in active if job.active):
                    _checkpoint(job.everyone, job.plan.folder, job.step)
            if stop.requested:
                run.say(f"{plans[0].name}: stopped by SIGTERM; the same command resumes the run")
                raise stop.exit
    for job in jobs:
        _finish(config, job)


def _launch(config: Config, plan: Plan) -> Job:
    plan.folder.mkdir(parents=True, exist_ok=True)
    clear_partial(plan.folder)
    started = time.monotonic()
    ranks = launch_group(plan.learner, config, *plan.args, ranks=plan.settings.ranks)
    return Job(plan=plan, everyone=Everyone(ranks, config), started=started)


def _begin(run: Run, job: Job) -> None:
    """Waits for the ranks, and loads the newest checkpoint."""
    plan = job.plan
    job.facts = job.everyone.first("describe")
    job.step = _resume(job.everyone, plan, run)
    run.say(
        f"{plan.name}: {job.facts['parameters']:,} parameters, {job.facts['training_sets']} sets, sigma_data"
        f" {job.facts['sigma_data']:.4f}, steps {job.step} to {plan.settings.steps}"
    )


def _advance(run: Run, active: list[Job], bar: Bar) -> None:
    """One chunk of steps of every active job at the same time; validates and checkpoints where it is due."""
    stops = [_next_stop(job) for job in active]
    calls = [job.everyone.ask("train", job.step, stop) for job, stop in zip(active, stops, strict=True)]
    for job, stop, call in zip(active, stops, calls, strict=True):
        settings = job.plan.settings
        values = job.everyone.answer(call)
        bar.advance(stop - job.step)
        job.step = stop
        if stop % settings.validate_every == 0 or stop == settings.steps:
            job.values = job.everyone.first("validate")
            _log(run, job, values | job.values)
            if settings.early_stop:
                _judge(run, job)
        if job.active and stop % settings.checkpoint_every == 0:
            _checkpoint(job.everyone, job.plan.folder, stop)


def _next_stop(job: Job) -> int:
    settings = job.plan.settings
    due = [(job.step // every + 1) * every for every in (settings.validate_every, settings.checkpoint_every)]
    return min(job.step + CHUNK, settings.steps, *due)


def _log(run: Run, job: Job, values: dict[str, float]) -> None:
    shown = "  ".join(f"{name.rpartition('/')[2]} {values[name]:.4g}" for name in SHOWN if name in values)
    run.log(job.plan.name, job.step, values, f"{job.plan.name} {job.step}  {shown}")


def _judge(run: Run, job: Job) -> None:
    """Keeps the network where it is the best so far, and ends the job when it has not been for too long.

    All that decides stands in `best.json`: a resumed job validates at the same steps to the same values.
    """
    settings, folder = job.plan.settings, job.plan.folder
    on_reward = settings.early_stop_on == "reward"
    name = "held_out/reward" if on_reward else "held_out_loss"
    if name not in job.values:
        raise UserError(f"early_stop_on '{settings.early_stop_on}' is not measured: raise validate_queries")
    value = job.values[name]
    best = _best(folder)
    if not best or (value > best["value"] if on_reward else value < best["value"]):
        with sealed_folder(folder / BEST) as temporary:
            job.everyone.first("export", temporary)
            write_json(temporary / BEST_RECORD, {"step": job.step, "value": value, "metric": name})
    elif job.step - best["step"] >= settings.early_stop * settings.validate_every:
        job.ended = True
        found = f"the best {name} ({best['value']:.4g}) was at step {best['step']}"
        run.say(f"{job.plan.name}: stopped at step {job.step}, {found}")


def _best(folder: Path) -> dict[str, Any]:
    """What stands in `best`, empty for nothing. Raises UserError when it is damaged."""
    if problem := damage(folder / BEST):
        raise UserError(
            f"{folder / BEST} is damaged ({problem}) and holds the best network so far: restore it, or remove it and"
            f" {folder / 'checkpoints'} to train it again"
        )
    record = folder / BEST / BEST_RECORD
    found: dict[str, Any] = read_json(record) if record.is_file() else {}
    return found


def _finish(config: Config, job: Job) -> None:
    plan = job.plan
    kept: dict[str, Any] = {}
    if plan.settings.early_stop:
        kept = {"best_step": _best(plan.folder)["step"]}
        for name in (WEIGHTS, CONFIG):
            with atomic_path(plan.folder / name) as temporary:
                shutil.copyfile(plan.folder / BEST / name, temporary)
    else:
        job.everyone.first("export", plan.folder)
    job.everyone.stop()
    write_manifest(
        plan.folder,
        stage=plan.name,
        config=config.model_dump(mode="json"),
        inputs=plan.inputs,
        files=[CONFIG, WEIGHTS],
        metrics={**job.facts, "steps": job.step, **kept, **job.values, "seconds": time.monotonic() - job.started},
    )
    for leftover in ("checkpoints", BEST):
        shutil.rmtree(plan.folder / leftover, ignore_errors=True)


def _resume(everyone: Everyone, plan: Plan, run: Run) -> int:
    """Loads the newest whole checkpoint, if any. Returns the step to continue at."""
    found = newest_whole(plan.folder / "checkpoints", run.say)
    if found is None:
        return 0
    step = everyone.first("load", found)
    run.say(f"{plan.name}: resumed at step {step}")
    return int(step)


def _checkpoint(everyone: Everyone, folder: Path, step: int) -> None:
    """Writes a checkpoint, whole or not at all, and keeps the last `KEPT`."""
    home = folder / "checkpoints"
    with sealed_folder(home / f"step-{step:08d}") as temporary:
        everyone.first("save", temporary, step)
    for old in sorted(home.glob(STEPS))[:-KEPT]:
        shutil.rmtree(old)
