"""Weights & Biases as a sink: offline into the run directory, or online with the key from WANDB_API_KEY."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import wandb

from r4t.config import Config
from r4t.errors import UserError


class WandbSink:
    """One W&B run per run directory; a resumed run continues it under the same id."""

    def __init__(self, folder: Path, config: Config) -> None:
        mode = config.tracking.wandb
        if mode == "online" and not os.environ.get("WANDB_API_KEY"):
            raise UserError(
                "tracking.wandb is 'online' but WANDB_API_KEY is not set: set it in the environment, or use"
                " --set tracking.wandb=offline and `wandb sync` later"
            )
        self._run = wandb.init(
            project=config.tracking.project,
            name=config.name,
            id=_run_id(folder),
            dir=str(folder),
            mode=mode,
            resume="allow",
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
        self._stages: set[str] = set()

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Logs `stage/name` values against that stage's own step, so that stages do not share one axis."""
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/step", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in values.items()}})

    def close(self) -> None:
        self._run.finish()


def _run_id(folder: Path) -> str:
    path = folder / "wandb-id.txt"
    if not path.is_file():
        path.write_text(secrets.token_hex(4))
    return path.read_text()
