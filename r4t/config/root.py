"""The configuration: one typed YAML file. Unknown keys are errors that suggest the nearest known key."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from r4t.config.data import SHIPPED_FAMILIES, Data, Encoder, Fanout, Index
from r4t.config.objective import Objective
from r4t.config.policy import RL, Learner, Policy, Rollout, Scorer, WarmStart
from r4t.config.retriever import Distill, Evaluate, Retriever, Sets
from r4t.config.section import Section
from r4t.config.serving import Serve
from r4t.config.yaml_text import read_yaml, read_yaml_file
from r4t.errors import UserError, did_you_mean
from r4t.storage.urls import check_mirror, may_hold_secrets, url_of

Task = Literal["oar", "wscr"]
# By a user's mistake only: what was given for these keys is not repeated in a message.
MAY_HOLD_SECRETS = ("data.endpoint.url", "data.endpoint.api_key_env", "rl.openrlhf.reward_urls")


class Tracking(Section):
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "r4t"


class Cluster(Section):
    """Where it runs. `device` is the one switch between CPU and GPU."""

    device: Literal["cpu", "cuda"] = "cpu"
    placement_timeout: float = 120.0  # seconds
    call_timeout: float = 900.0  # seconds any single remote call may take
    max_restarts: int = Field(3, ge=0)  # of one rollout worker, one scorer or the learner group, in one start of a run
    mirror: str | None = None  # s3://bucket/folder or gs://...: the run is kept there, under its directory's name
    mirror_every: float = Field(60.0, ge=1)  # seconds between two looks for what is new, beside those after each stage

    _checked_mirror = field_validator("mirror")(check_mirror)


class Config(Section):
    name: str = "run"
    seed: int = 0
    task: Task = "oar"
    data: Data = Data()
    encoder: Encoder = Encoder()
    fanout: Fanout = Fanout()
    index: Index = Index()
    objective: Objective = Objective()
    policy: Policy = Policy()
    warm_start: WarmStart = WarmStart()
    rl: RL = RL()
    rollout: Rollout = Rollout()
    learner: Learner = Learner()
    scorer: Scorer = Scorer()
    sets: Sets = Sets()
    retriever: Retriever = Retriever()
    distill: Distill = Distill()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()
    tracking: Tracking = Tracking()
    cluster: Cluster = Cluster()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not 0 < len(name.encode()) <= 200 or name.startswith(".") or "/" in name or not name.isprintable():
            raise ValueError(
                "runs/<name> is where the run goes: give 1 to 200 printable characters without '/' and no dot in front"
            )
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        sequences = self.rl.queries_per_step * self.rl.group_size
        if sequences % self.rl.updates_per_batch or sequences < self.rl.updates_per_batch * self.learner.ranks:
            raise ValueError(
                f"rl.queries_per_step x rl.group_size = {sequences} sequences do not divide into rl.updates_per_batch ="
                f" {self.rl.updates_per_batch} equal parts of one or more for each of learner.ranks ="
                f" {self.learner.ranks}: change one of them"
            )
        if self.rollout.colocate and self.rollout.workers != self.learner.ranks:
            raise ValueError(
                f"rollout.colocate pairs each of {self.rollout.workers} rollout.workers with one of"
                f" {self.learner.ranks} learner.ranks on a GPU: make them equal"
            )
        if self.rollout.tensor_parallel > 1 and (self.rollout.colocate or self.rollout.engine == "hf"):
            raise ValueError(
                f"rollout.tensor_parallel = {self.rollout.tensor_parallel} has vLLM split a policy over GPUs of a"
                " worker's own: set rollout.colocate to false and rollout.engine to vllm, or that key to 1"
            )
        if self.rollout.engine == "hf" and self.cluster.device != "cpu":
            raise ValueError(
                "rollout.engine 'hf' samples on the CPU: set cluster.device to cpu, or rollout.engine to auto"
            )
        if self.objective.weighs("coverage") and self.task != "wscr":
            raise ValueError("objective.kind 'coverage' needs reference sets: set task to 'wscr'")
        if self.data.queries and self.task != "oar":
            raise ValueError("data.queries are for task 'oar': in 'wscr' the titles of the sets are the queries")
        if self.data.augment.copies and self.task != "wscr":
            raise ValueError("data.augment recomposes sets that people made: set task to 'wscr', or copies to 0")
        if self.data.sources and self.task == "wscr" and not any(table.sets for table in self.data.sources.values()):
            raise ValueError("task 'wscr' needs the sets of at least one of data.sources")
        if self.encoder.image_column is not None and self.data.items is None:
            raise ValueError("encoder.image_column names a column of data.items: give items of your own")
        if self.encoder.image_column is not None and self.data.items is not None and url_of(self.data.items):
            raise ValueError("encoder.image_column names files beside data.items: give items of this machine, no URL")
        return self


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Reads a YAML file, applies `a.b=c` overrides (values are YAML) and validates.

    Raises UserError naming the key and the fix. Relative paths inside the file are relative to the file's folder.
    """
    try:
        raw = read_yaml_file(path)
    except FileNotFoundError:
        raise UserError(
            f"no config at {path}: give the path of a YAML file, for example configs/quickstart.yaml"
        ) from None
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold a mapping of sections, not a {type(raw).__name__}")
    return _anchor_paths(parse_config(raw, overrides), path.parent)


def parse_config(raw: dict[str, Any], overrides: list[str] | None = None) -> Config:
    """Applies overrides to a mapping, in place, and validates it. Raises UserError that lists every offending key."""
    for override in overrides or []:
        _apply(raw, override)
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(_explain(e) for e in error.errors())) from None


def flatten(config: Config) -> dict[str, Any]:
    """`{"rl.lr": 0.0004, ...}`: what run directories compare to tell two configurations apart."""

    def walk(prefix: str, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for key, sub in value.items() for k, v in walk(f"{prefix}{key}.", sub).items()}
        return {prefix[:-1]: value}

    return walk("", config.model_dump(mode="json"))


def _apply(raw: dict[str, Any], override: str) -> None:
    key, sep, value = override.partition("=")
    if not sep:
        raise UserError(f"--set {override!r} has no '=': write it as section.key=value")
    *sections, last = key.strip().split(".")
    node = raw
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {override!r}: {section} is a value, not a section")
        node = child
    node[last] = read_yaml(value, f"--set {override!r}: the value")


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *sections, last = error["loc"]
        known = _known_keys([str(s) for s in sections])
        return f"unknown config key '{where}'{did_you_mean(str(last), known)}"
    message = error["msg"].removeprefix("Value error, ")
    if where in MAY_HOLD_SECRETS or may_hold_secrets(error["input"]):
        return f"config key '{where}': {message}"
    return f"config key '{where}': {message} (got {reprlib.repr(error['input'])})" if where else message


def _known_keys(sections: list[str]) -> list[str]:
    model: Any = Config
    for section in sections:
        field = model.model_fields.get(section)
        if field is None:
            return []
        model = field.annotation
    return list(getattr(model, "model_fields", {}))


def _anchor_paths(config: Config, folder: Path) -> Config:
    def anchor(path: Path | None) -> Path | None:
        return path if path is None or path.is_absolute() or url_of(path) else (folder / path).resolve()

    paths = ("items", "sets", "item_vectors", "queries")
    families = config.data.families
    sources = {
        name: table.model_copy(update={"items": anchor(table.items), "sets": anchor(table.sets)})
        for name, table in config.data.sources.items()
    }
    data = config.data.model_copy(
        update={name: anchor(getattr(config.data, name)) for name in paths}
        | {"sources": sources}
        | {"families": families if families in SHIPPED_FAMILIES else str(anchor(Path(families)))}
    )
    encoder = config.encoder.model_copy(update={"path": anchor(config.encoder.path)})
    policy = config.policy.model_copy(update={"model": anchor(config.policy.model)})
    files = ("judge_path", "fill_in_blank")
    evaluate = config.evaluate.model_copy(update={name: anchor(getattr(config.evaluate, name)) for name in files})
    serve = config.serve.model_copy(update={"encoder_path": anchor(config.serve.encoder_path)})
    sections = {"data": data, "encoder": encoder, "policy": policy, "evaluate": evaluate, "serve": serve}
    return config.model_copy(update=sections)
