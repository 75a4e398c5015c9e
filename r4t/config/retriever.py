"""Keys of stages 2 and 3: training sets, the diffusion retriever, evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from r4t.config.section import Section


class Sets(Section):
    """Synthesis of training sets (paper section 2.4)."""

    samples_per_query: int = Field(2, ge=1)  # the paper's 128 suits a policy that is worth as many answers
    temperature: float = 0.9  # the paper's
    shard_queries: int = Field(256, ge=1)  # queries per shard, at most
    shard_answers: int = Field(8192, ge=1)  # answers per shard, at most; a query with more is split over shards
    write_tensors: bool = False  # keep the targets themselves too: 4 L d bytes for every set
    min_parsed: float = Field(0.01, ge=0, le=1)  # stop where a smaller share of the answers can be read ...
    check_after: int = Field(64, ge=1)  # ... of at least this many queries
    min_reward: float | None = None  # filters are off by default
    top_fraction: float | None = Field(None, gt=0, le=1)
    near_duplicate: float | None = Field(None, gt=0, le=1)  # Jaccard similarity from which a query's set is one
    item_cap: int | None = Field(None, ge=1)  # training sets that may hold the same item


class Sampler(Section):
    """How the retriever draws sets. `steps` solver points; the report counts network calls (guidance doubles them)."""

    name: Literal[
        "euler_maruyama", "ode_euler", "heun", "dpmpp_2m", "exponential_sde", "sde_dpmpp_2m", "consistency"
    ] = "dpmpp_2m"  # consistency is for distilled students alone
    steps: int = Field(8, ge=1)
    guidance: float = Field(0.1, ge=0)
    sigma_max: float | None = None  # None: the training range
    sigma_end: float = 1e-3
    rho: float = 7.0


class Training(Section):
    """How a network that draws sets is trained: the retriever, and a student of it."""

    ranks: int = Field(1, ge=1)
    threads: int = Field(1, ge=1)  # of each rank on CPU; at this size a second one waits more than it works
    zero_stage: Literal[0, 1, 2] = 0  # 1: the ranks share out the optimiser's state, 2: the gradients too
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the network; loss, weights and optimiser are float32
    steps: int = Field(800, ge=1)
    batch: int = Field(64, ge=1)
    lr: float = 3e-3
    warmup_steps: int = 40
    final_lr: float = 1e-5
    grad_clip: float = 1.0
    ema: float = Field(0.99, ge=0, lt=1)
    validate_every: int = Field(200, ge=1)
    validate_queries: int = Field(32, ge=0)  # held-out queries whose sets are drawn and scored to watch; 0: none
    checkpoint_every: int = Field(200, ge=1)
    early_stop: int = Field(0, ge=0)  # validations in a row without a better one that end training; 0: never
    early_stop_on: Literal["held_out_loss", "reward"] = "held_out_loss"  # and what better means


class Retriever(Training):
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
    # Rows of a target stand in random order (none), in the order nearest to their noise, or to the network's output.
    matching: Literal["none", "noise", "output"] = "none"
    validation_share: float = Field(0.05, gt=0, lt=1)  # of the training queries
    sampler: Sampler = Sampler()


class Distill(Training):
    """A student of the retriever that draws a set in few network calls, guidance included (`--stage distill`)."""

    enabled: bool = True  # part of --stage all, and with it what is exported and served unless another is asked for
    calls: tuple[int, ...] = Field((1,), min_length=1)  # numbers of calls it is trained for; the first is its default
    sets: float = Field(1.0, ge=0)  # weight of the energy score against the training sets
    endpoints: float = Field(0.0, ge=0)  # weight of the distance to the teacher's sets from the same noise
    guidance: float | None = Field(None, ge=0)  # of the teacher; None: its own
    teacher_steps: int = Field(8, ge=1)  # of DPM-Solver++(2M)
    sigma_end: float = Field(0.15, gt=0)  # level of the last of several calls
    pool_steps: int = Field(0, ge=0)  # batches repeat after so many steps, their noise included; 0: never
    lr: float = 1e-3

    @model_validator(mode="after")
    def _trains_something(self) -> Distill:
        if not self.endpoints + self.sets:
            raise ValueError("endpoints and sets are both 0: a student needs one of them to learn from")
        if min(self.calls) < 1:
            raise ValueError("a student takes at least one call: give numbers from 1")
        return self


class Evaluate(Section):
    split: Literal["valid", "test"] = "test"
    queries: int = Field(300, ge=1)  # at most
    seeds: tuple[int, ...] = (0,)
    temperature: float = 1.0
    best_of: int = Field(5, ge=1)
    # Trade-offs of the classical rivals: weight of relevance (mmr, dpp), of the feedback (prf, bm25).
    mmr_lambda: float = Field(0.5, ge=0, le=1)
    dpp_quality: float = Field(0.8, ge=0, lt=1)
    prf_weight: float = Field(0.5, ge=0, le=1)
    bm25_feedback: float = Field(0.5, ge=0, le=1)
    tune_rivals: bool = True  # choose these four on the validation split, by the reward
    latency_batches: tuple[int, ...] = (1, 8, 64)
    latency_repeats: int = Field(10, ge=1)
    price_per_core_hour: float = Field(0.05, ge=0)  # of the machine, in your currency: the cost of 1,000 queries
    fill_in_blank: Path | None = None  # WSCR: questions in Polyvore's layout; None: made from the evaluated sets
    judge: Literal["minilm", "wordllama", "sentence_transformers"] = "minilm"  # another encoder than the reward's
    judge_path: Path | None = None  # of a sentence-transformers directory
    zero_shot_diffusion: bool = True  # also compile the warm-started policy, to show what RL adds
    diffusion_reference: bool = False  # also draw with the paper's 256 guided SDE steps, which takes many times longer

    @model_validator(mode="after")
    def _judge_has_its_files(self) -> Evaluate:
        if (self.judge == "sentence_transformers") != (self.judge_path is not None):
            raise ValueError("evaluate.judge 'sentence_transformers' and evaluate.judge_path go together")
        return self
