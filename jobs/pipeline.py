"""The whole run: prepare -> folm -> sets -> retriever -> distill -> evaluate -> report, each stage once."""

from __future__ import annotations

import fcntl
import importlib
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import IO

from jobs import attempt
from jobs.footprint import PeakMemory
from jobs.mirroring import Mirror, mirroring
from jobs.run import Run, save_config
from r4t.config import Config, flatten, parse_config
from r4t.config.yaml_text import read_yaml
from r4t.errors import UserError
from r4t.full_disk import full_disk_named
from r4t.lean_imports import collector_at_rest, packages_on_demand
from r4t.lineage import clear_partial, is_finished, read_manifest
from r4t.seats import describe
from r4t.storage.record import check_whole
from r4t.tracking import Sink
from r4t.verify import RUN_SEAL, seal_run, verify

STAGES = {
    "prepare": "jobs.prepare",
    "folm": "jobs.train_folm",
    "sets": "jobs.synthesize",
    "retriever": "jobs.train_retriever",
    "distill": "jobs.distill",
    "evaluate": "jobs.evaluate",
    "report": "jobs.report",
}
OPTIONAL = ("distill",)
"""Stages that no later one needs."""
ON_RAY = ("folm", "sets", "retriever", "distill", "evaluate")
# How and where a run computes, not what: a run may go on under other values (checkpoints load on any layout).
RESUMABLE = (
    "data.endpoint.url", "data.endpoint.api_key_env", "data.endpoint.timeout", "data.endpoint.concurrency",
    "learner.ranks", "learner.zero_stage", "learner.micro_tokens", "learner.gradient_checkpointing", "learner.threads",
    "learner.cpus",
    "rollout.engine", "rollout.workers", "rollout.max_num_seqs", "rollout.kv_cache_gib", "rollout.threads",
    "rollout.cpus",
    "scorer.workers", "scorer.threads", "scorer.cpus", "rollout.pool", "learner.pool", "scorer.pool",
    "rl.checkpoint_every", "rl.keep_last", "retriever.threads",
    "sets.min_parsed", "sets.check_after",
    "rl.openrlhf.reward_urls", "rl.openrlhf.micro_batch", "rl.openrlhf.attention",
    "retriever.zero_stage", "distill.threads", "distill.zero_stage", "distill.enabled",
    "encoder.path", "encoder.distribute_above",  # the encoder's fingerprint tells whether its files are the same ones
    "tracking.wandb", "tracking.project", "cluster.placement_timeout", "cluster.call_timeout", "cluster.max_restarts",
    "cluster.mirror", "cluster.mirror_every",
)  # fmt: skip


def run_pipeline(config: Config, folder: Path, stage: str = "all", address: str | None = None) -> None:
    """Runs the stages that are not finished yet, in order, or only `stage`.

    Raises UserError when the directory holds a run of another configuration, when another process works in it, or when
    an earlier stage is missing.
    """
    wanted = check_stage(stage, config)
    mirror = _fetched(folder, config)
    check_same_config(folder, config)
    left = _left(folder, wanted)
    if not left:
        _close(folder, mirror)
        print(f"{folder} is finished, nothing to do: {_where(folder)}")
        return
    _check_inputs(folder, wanted[0])
    _check_finished(folder, left[0])
    _check_late_mistakes(config, wanted)
    started = time.monotonic()
    needs_ray = any(name in ON_RAY for name in left)
    with (
        locked(folder),
        PeakMemory() as memory,
        _session(config, address, needs_ray, folder),
        mirroring(mirror),
    ):
        save_config(folder, config)
        clear_partial(folder)
        with closing(Run(folder, config, _sinks(folder, config, needs_ray, mirror))) as run:
            if mirror is not None:
                mirror.say = run.say
            if needs_ray:
                run.say("\n".join([*_notices(config), *describe(config)]))
            for name in wanted:
                if new := not is_finished(folder / name):
                    run.began(name)
                with collector_at_rest(), packages_on_demand():
                    job = importlib.import_module(_job(name, config))
                job.main(config, run)
                if new:
                    run.finished(name)
            run.say(
                f"done in {time.monotonic() - started:.0f} s, peak memory {memory.bytes / 2**30:.1f} GiB"
                f" (this process and all its actors on this machine)\n{_where(folder)}"
            )
        seal_run(folder)


def _close(folder: Path, mirror: Mirror | None) -> None:
    """What a run that was stopped after its last stage still lacks: its seal, and the end of its mirror."""
    unsealed = not (folder / RUN_SEAL).is_file()
    if not unsealed and mirror is None:
        return
    with locked(folder):
        if unsealed:
            seal_run(folder)
        if mirror is not None:
            mirror.finish()


def _left(folder: Path, wanted: list[str]) -> list[str]:
    """Stages to do. A run that has its report is finished, also where it was made without a student."""
    left = [name for name in wanted if not is_finished(folder / name)]
    return [] if wanted[-1] == "report" and set(left) <= set(OPTIONAL) else left


def check_same_config(folder: Path, config: Config) -> None:
    """Raises UserError that lists the differing keys when `folder` holds results of another configuration.

    Keys in `RESUMABLE` may differ, those of serving, and those of a student that is not made yet.
    """
    path = folder / "config.yaml"
    if path.is_file() and any(is_finished(folder / name) for name in STAGES):
        _refuse_other(path.read_text(), config, folder, str(path))


def _refuse_other(text: str, config: Config, folder: Path, path: str) -> None:
    there, here = flatten(parse_config(read_yaml(text, path))), flatten(config)
    differing = [
        f"  {key}: {there.get(key)!r} there, {here.get(key)!r} now"
        for key in sorted((there | here).keys() - set(RESUMABLE))
        if there.get(key) != here.get(key)
        and not key.startswith("serve.")
        and not (key.startswith("distill.") and not (folder / "distill").exists())
    ]
    if differing:
        raise UserError(
            f"{folder} was started with another configuration:\n" + "\n".join(differing) + "\n"
            "Give the run a new directory with --run-dir, or use the configuration it was started with"
            f" ({path}); nothing was changed"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the run directory for this process; the system lets go of it when the process ends, however it ends.

    An attempt (`jobs.attempt`) takes it over from an older one.
    """
    path = folder / ".lock"
    with full_disk_named(path):
        folder.mkdir(parents=True, exist_ok=True)
        patience = attempt.claim(folder)
        handle = path.open("a+")
    with handle:
        if not _lock(handle, patience):
            handle.seek(0)
            raise UserError(
                f"another process ({handle.read().strip() or 'unknown'}) is running in {folder}: wait for it to end,"
                " stop it, or give this run another --run-dir"
            )
        with full_disk_named(path):
            handle.truncate(0)
            os.write(handle.fileno(), f"pid {os.getpid()}".encode())
        yield


def _lock(handle: IO[str], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)
        else:
            return True


def _fetched(folder: Path, config: Config) -> Mirror | None:
    """The mirror of the configuration, once the run directory is as new as it."""
    if config.cluster.mirror is None:
        check_whole(folder)
        return None
    mirror = Mirror(folder, config.cluster.mirror, config.cluster.mirror_every)
    if text := mirror.config_text():
        _refuse_other(text, config, folder, mirror.store.url)
    with locked(folder):
        mirror.fetch()
    return mirror


def _session(config: Config, address: str | None, needed: bool, folder: Path) -> AbstractContextManager[None]:
    if not needed:
        return nullcontext()
    from cluster.session import session  # Ray takes a second to import

    return session(config, address, folder)


def _notices(config: Config) -> list[str]:
    """What makes this machine slower at `config` than another might be."""
    from cluster.devices import bfloat16_notice
    from cluster.engine import fallback_notice

    return [notice for notice in (fallback_notice(config), bfloat16_notice(config)) if notice]


def _job(stage: str, config: Config) -> str:
    """The module that does a stage."""
    other = stage == "folm" and config.rl.backend == "openrlhf"
    return "jobs.train_folm_openrlhf" if other else STAGES[stage]


def stages_of(config: Config) -> list[str]:
    """Those of `--stage all`, in order."""
    return [name for name in STAGES if name not in OPTIONAL or config.distill.enabled]


def check_stage(stage: str, config: Config) -> list[str]:
    """The stages that `--stage` names, in order. Raises UserError for an unknown one."""
    if stage == "all":
        return stages_of(config)
    if stage not in STAGES:
        raise UserError(f"unknown stage '{stage}': use all, {', '.join(STAGES)}")
    return [stage]


def _earlier(stage: str) -> list[str]:
    names = list(STAGES)
    return names[: names.index(stage)]


def _check_inputs(folder: Path, first: str) -> None:
    missing = [name for name in _earlier(first) if name not in OPTIONAL and not is_finished(folder / name)]
    if missing:
        raise UserError(f"stage '{first}' needs {', '.join(missing)} in {folder}: run with --stage all, or those first")


def _check_finished(folder: Path, stage: str) -> None:
    """`stage` builds on the ones before it: a byte that has changed since would be in every result from here on."""
    stood = [name for name in _earlier(stage) if name not in OPTIONAL or is_finished(folder / name)]
    problems = [problem for name in stood for problem in verify(folder / name)]
    if problems:
        raise UserError(
            "a finished stage is not as it was written:\n  " + "\n  ".join(problems) + "\n"
            "Restore what changed, or remove the folder of that stage, and of those after it, to make them again"
        )


def _check_late_mistakes(config: Config, wanted: list[str]) -> None:
    """What the stages would refuse too, but only after the work of the stages before them."""
    from r4t.sets.targets import check_rows

    if config.encoder.name == "precomputed" and wanted != ["prepare"]:
        raise UserError(
            "encoder 'precomputed' only knows the texts of its table, and a policy writes sub-queries of its own: set"
            " encoder.name to an encoder that reads any text, and keep your items' vectors with data.item_vectors or"
            " data.columns.vector; --stage prepare runs as it is"
        )
    check_rows(config.retriever.rows, config.fanout.k)
    if config.rl.backend == "openrlhf":
        from jobs.openrlhf_command import check_backend

        check_backend(config)
    if config.policy.model is not None:
        from cluster.model_check import check_model

        check_model(config.policy.model, config)


def _sinks(folder: Path, config: Config, on_ray: bool, mirror: Mirror | None) -> tuple[Sink, ...]:
    """Beside the metrics file: Prometheus through Ray, where it runs, and W&B and the mirror, where they are wanted."""
    sinks: list[Sink] = []
    if config.tracking.wandb != "disabled":
        from jobs.wandb_sink import WandbSink

        sinks.append(WandbSink(folder, config))
    if on_ray:
        from cluster.gauges import Gauges

        sinks.append(Gauges())
    if mirror is not None:
        sinks.append(mirror)
    return tuple(sinks)


def _where(folder: Path) -> str:
    page = folder / "report" / "index.html"
    if page.is_file():
        return f"report: {page.resolve()}"
    finished = [name for name in STAGES if read_manifest(folder / name)]
    return f"finished stages: {', '.join(finished) or 'none'}"
