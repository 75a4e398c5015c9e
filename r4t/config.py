"""The configuration: one typed YAML file. Unknown keys are errors that suggest the nearest known key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from r4t.errors import UserError, did_you_mean

Task = Literal["oar", "wscr"]


class Section(BaseModel):
    """A part of the configuration. Immutable, and closed: it accepts the keys below and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, validate_default=True)


class Data(Section):
    """Items, and either human-made sets (their titles are the queries) or generated broad queries."""

    kind: Literal["recipes", "parquet"] = "recipes"
    items: Path | None = None  # Parquet: item_id, text, ...
    sets: Path | None = None  # Parquet: set_id, title, item_ids, split
    clean_column: str | None = None  # keep only the sets where this boolean column is true
    families: Literal["food", "fashion", "music"] = "food"  # vocabulary of generated OAR queries
    seed: int = 0  # of the generated queries and the split; runs that differ in the top-level seed share their data
    n_queries: int = Field(3000, ge=10)  # generated OAR queries, before the 8:1:1 split
    min_item_words: int = Field(1, ge=1)  # items with fewer words are left out of the database
    min_set_size: int = Field(2, ge=1)
    max_item_share: float = Field(
        1.0, gt=0, le=1
    )  # WSCR: items in a larger share of the training sets are staples, removed


class Encoder(Section):
    """Frozen text encoder of the shared space. Vectors are cut to `dim` and then normalised."""

    name: str = "wordllama"  # wordllama | minilm
    dim: int = Field(128, ge=8)


class Fanout(Section):
    """What the policy writes and how deep each sub-query retrieves."""

    k: int = Field(10, ge=1)  # sub-queries per query
    n: int = Field(1, ge=1)  # items retrieved per sub-query
    prompt: Literal["compact", "paper"] = "compact"
    domain: str = "recipe"


class Weights(Section):
    """Weights of the reward terms. `groundedness`, `diversity`, `alignment` are the paper's (Eq. 1)."""

    groundedness: float = 0.6
    diversity: float = 0.2
    alignment: float = 0.2
    content_alignment: float = 0.0
    distinct: float = 0.0  # share of sub-queries whose nearest item none before them retrieved; also adds to coverage


class Objective(Section):
    """What a good set is. `content` judges the retrieved items alone and so cannot be gamed by sub-query wording."""

    kind: Literal["content", "paper", "coverage"] = "content"
    weights: Weights = Weights(groundedness=0.0, diversity=0.3, alignment=0.0, content_alignment=0.7)
    vendi_norm: Literal["by_k", "minus1_over_kminus1", "raw"] = "by_k"
    coverage_weighting: Literal["uniform", "inverse_frequency"] = "uniform"
    credit: Literal["set", "row"] = "set"  # row: a sub-query's tokens get that sub-query's marginal contribution
    invalid_reward: float = -1.0

    @model_validator(mode="after")
    def _paper_weights(self) -> Objective:
        if self.kind == "paper" and "weights" not in self.model_fields_set:
            object.__setattr__(self, "weights", Weights())
        return self


class Lora(Section):
    """Low-rank adapters (peft): the learners train these alone, with the optimiser state that small."""

    rank: int = Field(0, ge=0)  # 0: every weight trains
    alpha: int = Field(32, ge=1)  # an adapter counts alpha / rank
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Policy(Section):
    """A causal language model: a directory in Hugging Face format, or (None) a small Llama trained from scratch."""

    model: Path | None = None
    vocab_size: int = Field(2048, ge=320)
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    max_length: int = Field(192, ge=32)  # prompt + response, tokens
    embeddings: Literal["encoder", "random"] = "encoder"  # how a fresh policy's token embeddings start
    fold_words: bool = False  # a fresh policy reads and writes one form of each word, lower-case
    lora: Lora = Lora()

    @model_validator(mode="after")
    def _lora_needs_a_model(self) -> Policy:
        if self.lora.rank and self.model is None:
            raise ValueError("lora adapts a trained model: give policy.model, or set policy.lora.rank to 0")
        return self


class WarmStart(Section):
    """Supervised start: the policy learns the answer format from fan-outs that a teacher composes."""

    source: Literal["neighbours", "sets"] = "neighbours"
    steps: int = Field(1000, ge=0)
    batch: int = Field(16, ge=1)
    lr: float = 3e-3
    fanouts_per_query: int = Field(5, ge=1)
    pool: int = Field(200, ge=1)  # items near the query from which the teacher draws
    noise: float = 1.0  # scale of the Gumbel noise on the teacher's scores
    redundancy: float = 0.5  # penalty on similarity to the rows already chosen


class Alarms(Section):
    """Signs of collapse: the least share of the warm start's value that a policy may show and still be kept."""

    distinct: float = Field(0.9, ge=0, le=1)  # share of distinct items in a set
    distinct_items: float = Field(0.5, ge=0, le=1)  # different items over all validation sets
    type_token: float = Field(0.5, ge=0, le=1)  # different words over all words of the sub-queries
    spread: float = Field(0.6, ge=0, le=1)  # 1 - mean pairwise cosine of a set's sub-query embeddings
    valid: float = Field(0.9, ge=0, le=1)  # share of answers that parse


class RL(Section):
    """Soft-GRPO (paper Eq. 6-8)."""

    steps: int = Field(100, ge=0)  # rollout batches
    queries_per_step: int = Field(16, ge=1)
    group_size: int = Field(8, ge=2)
    staleness: int = Field(0, ge=0)  # policy versions an answer may lag behind; 0: synchronous, 1: one step off
    max_refill: int = Field(1, ge=0)  # x queries_per_step: groups a step may draw to replace filtered ones
    updates_per_batch: int = Field(4, ge=1)  # optimiser steps on one rollout batch
    lr: float = 4e-4
    final_lr: float | None = Field(None, gt=0)  # reached in a straight line at the last step; None: lr throughout
    warmup_steps: int = Field(0, ge=0)  # rollout batches
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    clip: float = 0.2
    beta_policy_old: float = 0.05  # coefficient of KL(policy || old), beta_1 of Eq. 8
    beta_old_policy: float = 0.05  # coefficient of KL(old || policy), beta_2 of Eq. 8
    advantage_eps: float = 1e-6
    std_tolerance: float = 1e-6  # groups whose rewards spread no more than this are dropped and replaced
    importance_cap: float = 2.0  # truncated importance sampling, learner against rollout engine
    mismatch_limit: float = 0.3  # mean |log-probability| difference of learner and engine that stops the run
    temperature: float = 1.0
    max_tokens: int = Field(112, ge=8)
    validate_every: int = Field(20, ge=1)
    validate_queries: int = Field(64, ge=1)
    checkpoint_every: int = Field(20, ge=1)
    keep_last: int = Field(2, ge=1)
    alarms: Alarms = Alarms()


class Rollout(Section):
    workers: int = Field(1, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_num_seqs: int = Field(128, ge=1)
    kv_cache_gib: float = Field(0.5, gt=0)
    threads: int | None = Field(None, ge=1)  # of one engine on CPU; None: every core
    cpus: float = Field(1, gt=0)
    colocate: bool = False  # on cuda: worker i shares the GPU of learner rank i, and its memory


class Learner(Section):
    ranks: int = Field(2, ge=1)
    zero_stage: Literal[0, 1, 2, 3] = 2
    dtype: Literal["float32", "bfloat16"] = "float32"
    micro_tokens: int = Field(4096, ge=1)  # padded tokens per rank and forward pass
    gradient_checkpointing: bool = False  # recompute activations in the backward pass: less memory, a third more work
    cpus: float = Field(0.25, gt=0)


class Scorer(Section):
    workers: int = Field(1, ge=1)
    cpus: float = Field(0.25, gt=0)


class Sets(Section):
    """Synthesis of training sets (paper section 2.4)."""

    samples_per_query: int = Field(2, ge=1)
    temperature: float = 0.9
    shard_queries: int = Field(256, ge=1)  # queries per shard
    min_reward: float | None = None  # filters are off by default
    top_fraction: float | None = Field(None, gt=0, le=1)


class Sampler(Section):
    """How the retriever draws sets. `steps` solver points; the report counts network calls (guidance doubles them)."""

    name: Literal["euler_maruyama", "ode_euler", "heun", "dpmpp_2m"] = "dpmpp_2m"
    steps: int = Field(8, ge=1)
    guidance: float = Field(0.1, ge=0)
    sigma_max: float | None = None  # None: the training range
    sigma_end: float = 1e-3
    rho: float = 7.0


class Retriever(Section):
    """Set denoiser and its training (paper section 5, Table 3)."""

    rows: int = Field(12, ge=1)  # L
    hidden: int = 128
    mlp: int = 256
    layers: int = 3
    heads: int = 4
    dropout: float = Field(0.0, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    noise_dim: int = 64
    register_token: bool = True  # a second context token, so that cross-attention is not degenerate
    sigma_min: float = 1e-4
    sigma_max: float = 7.0
    sigma_data: float | None = None  # None: measured on the training sets
    sigma_law: Literal["log_uniform", "log_normal"] = "log_uniform"
    sigma_log_mean: float = -0.9  # of ln sigma, log_normal only
    sigma_log_std: float = 1.1
    p_drop: float = Field(0.1, ge=0, lt=1)
    ranks: int = Field(1, ge=1)
    threads: int = Field(1, ge=1)  # of each rank on CPU; at this size a second one waits more than it works
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the network; loss, weights and optimiser are float32
    steps: int = Field(800, ge=1)
    batch: int = Field(64, ge=1)
    lr: float = 3e-3
    warmup_steps: int = 40
    final_lr: float = 1e-5
    grad_clip: float = 1.0
    ema: float = Field(0.99, ge=0, lt=1)
    validation_share: float = Field(0.05, gt=0, lt=1)  # of the training queries
    validate_every: int = 200
    checkpoint_every: int = 200
    sampler: Sampler = Sampler()


class Evaluate(Section):
    split: Literal["valid", "test"] = "test"
    queries: int = Field(300, ge=1)  # at most
    seeds: tuple[int, ...] = (0,)
    temperature: float = 1.0
    best_of: int = Field(5, ge=1)
    mmr_lambda: float = Field(0.5, ge=0, le=1)
    latency_batches: tuple[int, ...] = (1, 8, 64)
    latency_repeats: int = Field(10, ge=1)
    judge: str = "minilm"
    zero_shot_diffusion: bool = True  # also compile the warm-started policy, to show what RL adds


class Tracking(Section):
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "r4t"


class Cluster(Section):
    """Where it runs. `device` is the one switch between CPU and GPU."""

    device: Literal["cpu", "cuda"] = "cpu"
    placement_timeout: float = 120.0  # seconds
    call_timeout: float = 900.0  # seconds any single remote call may take
    max_restarts: int = Field(3, ge=0)  # of one rollout worker, one scorer or the learner group, in one start of a run


class Config(Section):
    name: str = "run"
    seed: int = 0
    task: Task = "oar"
    data: Data = Data()
    encoder: Encoder = Encoder()
    fanout: Fanout = Fanout()
    objective: Objective = Objective()
    policy: Policy = Policy()
    warm_start: WarmStart = WarmStart()
    rl: RL = RL()
    rollout: Rollout = Rollout()
    learner: Learner = Learner()
    scorer: Scorer = Scorer()
    sets: Sets = Sets()
    retriever: Retriever = Retriever()
    evaluate: Evaluate = Evaluate()
    tracking: Tracking = Tracking()
    cluster: Cluster = Cluster()

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
        if self.objective.kind == "coverage" and self.task != "wscr":
            raise ValueError("objective.kind 'coverage' needs reference sets: set task to 'wscr'")
        if self.data.kind == "parquet" and self.data.items is None:
            raise ValueError("data.kind 'parquet' needs data.items, the path of a Parquet file with item_id and text")
        return self


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Reads a YAML file, applies `a.b=c` overrides (values are YAML) and validates.

    Raises UserError naming the key and the fix. Relative paths inside the file are relative to the file's folder.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"no config at {path}: give the path of a YAML file, for example configs/quickstart.yaml"
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold a mapping of sections, not a {type(raw).__name__}")
    for override in overrides or []:
        _apply(raw, override)
    config = parse_config(raw)
    return _anchor_paths(config, path.parent)


def parse_config(raw: dict[str, Any]) -> Config:
    """Validates a mapping. Raises UserError that lists every offending key."""
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
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {override!r}: the value is not valid YAML") from None


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *sections, last = error["loc"]
        known = _known_keys([str(s) for s in sections])
        return f"unknown config key '{where}'{did_you_mean(str(last), known)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"config key '{where}': {message} (got {error['input']!r})" if where else message


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
        return path if path is None or path.is_absolute() else (folder / path).resolve()

    data = config.data.model_copy(update={"items": anchor(config.data.items), "sets": anchor(config.data.sets)})
    policy = config.policy.model_copy(update={"model": anchor(config.policy.model)})
    return config.model_copy(update={"data": data, "policy": policy})
