"""Two changes to OpenRLHF, made as its modules are imported, in every process of a training job.

`openrlhf.models.loss` gets Soft-GRPO's policy loss; `openrlhf.utils.agent` stops at a sample whose reward failed, which
it else trains on as None. Everything else of the trainer is as released. Ray calls `install` as each worker starts
(`worker_process_setup_hook`), before anything is imported, so it must itself import nothing heavy: a vLLM engine's
process must not load DeepSpeed.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from r4t.interop.urls import shown

VARIABLE = "R4T_SOFT_GRPO"  # beta_1,beta_2 of Eq. 8
HOOK = "r4t.interop.openrlhf_patch.install"


def install() -> None:
    """Makes both changes wherever OpenRLHF is imported from here on; once. Without R4T_SOFT_GRPO the loss stays."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name, change in CHANGES.items():
        if name in sys.modules:
            change(sys.modules[name])


def extend_loss(module: Any) -> None:
    """Puts the extended policy loss in the place of OpenRLHF's."""
    if (betas := os.environ.get(VARIABLE)) and not hasattr(module, "_r4t"):
        from r4t.interop.openrlhf_loss import soft_grpo_policy_loss

        beta_policy_old, beta_old_policy = map(float, betas.split(","))
        module.PolicyLoss = soft_grpo_policy_loss(module, beta_policy_old, beta_old_policy)
        module._r4t = True


def raise_without_reward(module: Any) -> None:
    """Has the single-turn executor raise where a reward was asked for and none came."""
    executor = module.SingleTurnAgentExecutor
    execute = executor.execute
    if hasattr(execute, "_r4t"):
        return

    @functools.wraps(execute)
    async def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = await execute(self, *args, **kwargs)
        if self.reward_endpoints and output["reward"] is None:
            raise RuntimeError(
                f"no reward came back from {', '.join(map(shown, self.reward_endpoints))}: the lines 'Failed to fetch"
                " reward' and 'Request error' above, in the rollout engine's log, say why"
            )
        return output

    checked._r4t = True  # type: ignore[attr-defined]
    executor.execute = checked


CHANGES: dict[str, Callable[[Any], None]] = {
    "openrlhf.models.loss": extend_loss,
    "openrlhf.utils.agent": raise_without_reward,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules in CHANGES as ever, and has them changed as soon as they are executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in CHANGES:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) and spec.loader:
                spec.loader = _Changed(spec.loader, CHANGES[name])
                return spec
        return None


class _Changed(importlib.abc.Loader):
    def __init__(self, loader: Any, change: Callable[[Any], None]) -> None:
        self._loader, self._change = loader, change

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._change(module)
