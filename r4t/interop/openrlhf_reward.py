"""R4T's objective as OpenRLHF's reward: give this file's path to `--reward.remote_url`.

    R4T_REWARD=runs/shop python -m openrlhf.cli.train_ppo_ray --reward.remote_url .../r4t/interop/openrlhf_reward.py ...

R4T_REWARD names a run directory whose stage prepare has finished, wherever the rollout engines run. OpenRLHF asks for
one sample per call, from many threads: calls of the same few milliseconds are scored together.

OpenRLHF catches whatever a reward raises and goes on with a reward of None; `r4t.interop.openrlhf_patch` has it stop
there instead.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from r4t.errors import UserError
from r4t.interop.reward import Judged, open_reward
from r4t.interop.service import RewardService
from r4t.interop.waiting import WaitingPool, then

VARIABLE = "R4T_REWARD"
THREADS = 512  # for whatever else the loop hands out
_opening = threading.Lock()


def reward_func(queries: list[str], prompts: list[str], labels: list[Any]) -> dict[str, Any]:
    """Rewards [B] of decoded prompts with their answers, and the unweighted terms as `extra_logs`, each [B].

    Raises UserError for a missing label, a prompt that hides its query, or a run that is not there.
    """
    return _answer(service().judge(queries, prompts, labels))


def begin(queries: list[str], prompts: list[str], labels: list[Any]) -> Future[dict[str, Any]]:
    """As `reward_func`, pending."""
    return then(service().begin(queries, prompts, labels), _answer)


def _answer(judged: list[Judged]) -> dict[str, Any]:
    rewards = torch.tensor([one.reward for one in judged])
    logs = {name: torch.tensor([one.logs[name] for one in judged]) for name in judged[0].logs} if judged else {}
    return {"rewards": rewards, "scores": rewards, "extra_logs": logs}


def service() -> RewardService:
    """The reward of the run in R4T_REWARD, opened once per process. Raises UserError where it cannot be."""
    with _opening:
        return _service()


@lru_cache(maxsize=1)
def _service() -> RewardService:
    named = os.environ.get(VARIABLE)
    if not named:
        raise UserError(
            f"{VARIABLE} is not set where the rollout engines run: name the run directory whose objective is the reward"
            f' (ray job submit --runtime-env-json \'{{"env_vars": {{"{VARIABLE}": "/shared/runs/shop"}}}}\')'
        )
    return RewardService(open_reward(Path(named)))


def widen_threads() -> None:
    """Lets any number of rewards wait at once in the running event loop, which by default has as few as six threads.

    OpenRLHF gives every call a thread of the loop's pool, so the pool would bound the batch. Does nothing without a
    loop.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    loop.set_default_executor(WaitingPool(reward_func, begin, THREADS))


if __name__ == "reward_func":  # the name under which OpenRLHF loads it: what is wrong shows before training begins
    widen_threads()
    service()
