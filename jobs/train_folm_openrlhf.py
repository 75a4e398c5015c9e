"""Stage 1 by OpenRLHF's trainer (`rl.backend: openrlhf`): R4T's warm start, prompts, reward and loss around its loop.

prepare -> warm start (R4T's learners) -> prompts.jsonl, labels -> train_ppo_ray (OpenRLHF) -> policy, adopted
                                                 reward file or servers ^   ^ loss with both KL terms
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ray

from jobs import warm_start as warm
from jobs.import_policy import finish
from jobs.openrlhf_command import TESTED, arguments, check_backend
from jobs.run import Run
from jobs.train_folm import started_actors
from r4t.catalog.dataset import Dataset
from r4t.config import Config
from r4t.errors import UserError
from r4t.interop import openrlhf_patch, openrlhf_reward
from r4t.interop.probe import check_server
from r4t.interop.prompts import drawn_rows, prompt_rows, write_prompts
from r4t.interop.reward import run_reward
from r4t.interop.server import KEY_VARIABLE
from r4t.interop.urls import with_key
from r4t.lineage import is_finished
from r4t.policy import load_tokenizer

LOOK_EVERY = 10.0  # seconds
FOLDER = "openrlhf"  # below folm/: prompts, checkpoints and what OpenRLHF printed


def main(config: Config, run: Run) -> None:
    """Warm-starts the policy, has OpenRLHF train it, and leaves it in `folm/policy`.

    Raises UserError for a setting OpenRLHF cannot train, a version that was not tested, and reward servers that are
    down or serve another run. RuntimeError when its trainer fails.
    """
    folder = run.stage_folder("folm")
    if is_finished(folder):
        run.say("folm: finished, nothing to do")
        return
    started = time.perf_counter()
    check_backend(config)
    reward = run_reward(config, run.folder / "prepare")
    for url in reward_urls(config):
        check_server(url, reward)
    dataset = reward.scorer.dataset
    warm_started(config, run, dataset, folder)
    work = folder / FOLDER
    command = prepare_training(config, folder, dataset)
    run.say(f"folm: OpenRLHF {TESTED} trains; its output is in {work / 'output.txt'}")
    train(command, environment(config, run.folder), work / "output.txt", run.advanced)
    finish(config, run.folder, work / "policy", f"openrlhf {TESTED}", {"seconds": time.perf_counter() - started})
    run.say(f"folm: OpenRLHF trained {config.rl.steps} rollout batches in {time.perf_counter() - started:.0f} s")


def prepare_training(config: Config, folder: Path, dataset: Dataset) -> list[str]:
    """Writes the prompts and returns the command that trains on them. `folder` holds the warm-started policy.

    The file holds the queries of every step, so one episode over it is `rl.steps` rollout batches.
    """
    policy, work = folder / "warm_start", (folder / FOLDER).resolve()
    rows = drawn_rows(dataset, config.seed, config.rl.steps * config.rl.queries_per_step)
    write_prompts(work / "prompts.jsonl", prompt_rows(dataset, config, rows, load_tokenizer(policy)))
    reward = ",".join(reward_urls(config)) or str(Path(openrlhf_reward.__file__).resolve())
    flags = arguments(
        config, policy=policy.resolve(), prompts=work / "prompts.jsonl", reward=reward, output=work / "policy"
    )
    return [sys.executable, "-m", "jobs.openrlhf_trainer", *flags]


def reward_urls(config: Config) -> list[str]:
    """The reward servers, with the key of R4T_REWARD_KEY where it is set."""
    return [with_key(url, os.environ.get(KEY_VARIABLE) or None) for url in config.rl.openrlhf.reward_urls]


def environment(config: Config, run: Path) -> dict[str, str]:
    """Variables of the training process beside those of this one."""
    rl = config.rl
    return {
        openrlhf_patch.VARIABLE: f"{rl.beta_policy_old!r},{rl.beta_old_policy!r}",
        openrlhf_reward.VARIABLE: str(run.resolve()),
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # below `ray job submit`: added to the job's own, which else is refused
    }


def warm_started(config: Config, run: Run, dataset: Dataset, folder: Path) -> None:
    """The supervised start, by R4T's own learners, which leave the GPUs again."""
    if warm.is_whole(folder / "warm_start", run.say):
        return
    lessons = warm.lessons_for(config, dataset)
    base = warm.initial_policy(config, dataset, lessons, run.folder / "prepare", folder / "initial", run.say)
    with started_actors(config, run, base) as actors:
        corpus = warm.corpus(config, dataset, lessons, base)
        actors.surviving(lambda: warm.warm_start(config, run, actors.learners, corpus, base, folder / "warm_start"))


def train(
    command: list[str], variables: dict[str, str], output: Path, advanced: Callable[[], None] = lambda: None
) -> None:
    """Runs the trainer to its end; what it prints goes to `output`. Stopping this process stops it too.

    advanced: called while it prints, for the trainer logs no numbers here.

    Raises UserError where its own checks refuse the command, RuntimeError with its last lines when it fails.
    """
    with output.open("a") as log:
        before = log.tell()
        process = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=subprocess.STDOUT)
        try:
            code = _wait(process, output, advanced)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code:
        said = output.read_bytes()[before:].decode(errors="replace")  # not what an earlier start said
        last = "\n".join(said.splitlines()[-20:])
        if "error: " in last and "usage: " in last:
            raise UserError(f"OpenRLHF does not accept its command (rl.openrlhf.extra?):\n{last}")
        raise RuntimeError(f"OpenRLHF's trainer ended with code {code}; all it said is in {output}:\n{last}")


def _wait(process: subprocess.Popen[bytes], output: Path, advanced: Callable[[], None]) -> int:
    size = output.stat().st_size
    while True:
        try:
            return process.wait(timeout=LOOK_EVERY)
        except subprocess.TimeoutExpired:
            if (now := output.stat().st_size) != size:
                size = now
                advanced()
