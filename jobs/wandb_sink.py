"""Weights & Biases as a sink: offline into the run directory, or online with the key from WANDB_API_KEY.

Numbers, sample sets as tables, and what the stages made as artifacts. Artifacts are references: names, digests and
lineage go to W&B, the files stay where they are.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import wandb

from r4t.config import Config
from r4t.errors import UserError
from r4t.evaluation.training_samples import read_samples
from r4t.lineage import MANIFEST, file_hash, read_json

MADE = {  # stage -> (artifact, the files of the stage's manifest that it holds)
    "folm": ("policy", "policy/"),
    "sets": ("sets", ""),
    "retriever": ("retriever", ""),
    "distill": ("retriever-distilled", ""),
}
SAMPLES = ("stage", "step", "query", "method", "reward", "items")


class WandbSink:
    """One W&B group per run directory, one W&B run per stage; a resumed stage continues its run under the same id."""

    def __init__(self, folder: Path, config: Config) -> None:
        if config.tracking.wandb == "online" and not os.environ.get("WANDB_API_KEY"):
            raise UserError(
                "tracking.wandb is 'online' but WANDB_API_KEY is not set: set it in the environment, or use"
                " --set tracking.wandb=offline and `wandb sync` later"
            )
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):  # else in the home folder, which pods cannot write to
            os.environ.setdefault(name, str(folder / "wandb"))
        self._folder, self._config, self._id = folder, config, _group_id(folder)
        self._run: wandb.Run | None = None
        self._seen: set[str] = set()

    def began(self, stage: str) -> None:
        """Opens the stage's own run, and closes the one before it."""
        self.close()
        name = f"{self._config.name}-{self._id}"
        self._run = wandb.init(
            project=self._config.tracking.project,
            group=name,
            job_type=stage,
            name=f"{name}-{stage}",
            id=f"{self._id}-{stage}",
            dir=str(self._folder),
            mode=self._config.tracking.wandb,
            resume="allow",
            config=self._config.model_dump(mode="json"),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Logs `stage/name` values against their own step: a stage's loops (warm_start, folm, valid) count apart."""
        run = self._open()
        if stage not in self._seen:
            self._seen.add(stage)
            run.define_metric(f"{stage}/step", hidden=True)
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in values.items()}})

    def advanced(self) -> None:
        """Nothing: only numbers are sent."""

    def finished(self, stage: str, folder: Path) -> None:
        """Logs what the stage made as an artifact, and its sample sets as a table."""
        if stage in MADE:
            self._open().log_artifact(self._artifact(stage, folder))
        if rows := list(_samples(stage, folder)):
            self._open().log({f"samples/{stage}": wandb.Table(columns=list(SAMPLES), data=rows)})

    def _artifact(self, stage: str, folder: Path) -> wandb.Artifact:
        name, prefix = MADE[stage]
        manifest = read_json(folder / MANIFEST)
        lineage: dict[str, Any] = {key: manifest[key] for key in ("stage", "finished", "code", "inputs", "metrics")}
        held = [path for path in manifest["files"] if path.startswith(prefix)]
        lineage |= {"manifest_sha256": file_hash(folder / MANIFEST)}
        lineage |= {"sha256": {path: manifest["files"][path]["sha256"] for path in held}}
        artifact = wandb.Artifact(f"{name}-{self._id}", type=name, metadata=lineage)
        artifact.add_reference((folder / MANIFEST).absolute().as_uri(), name=MANIFEST)
        for path in held:
            artifact.add_reference((folder / path).absolute().as_uri(), name=path)
        return artifact

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
        self._run, self._seen = None, set()

    def _open(self) -> wandb.Run:
        if self._run is None:
            raise RuntimeError("no stage has begun")
        return self._run


def _samples(stage: str, folder: Path) -> Iterator[list[Any]]:
    """Rows of the table: sets of validation queries while the policy trained, and of every method at the end."""
    if stage == "folm":
        for sample in read_samples(folder):
            for at in sample["steps"]:
                yield [stage, at["step"], sample["query"], "r4t_folm", at["reward"], "\n".join(at["items"])]
    elif stage == "evaluate":
        for sample in read_json(folder / "samples.json"):
            for method, found in sample["methods"].items():
                yield [stage, None, sample["query"], method, None, "\n".join(found["items"])]


def _group_id(folder: Path) -> str:
    path = folder / "wandb-id.txt"
    if not path.is_file():
        path.write_text(secrets.token_hex(4))
    return path.read_text()
