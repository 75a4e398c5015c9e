"""Keys of stage 1: the policy, its warm start and its reinforcement learning."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from r4t.config.section import Section


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
    in_order: bool = False  # sets: excerpts of names in the set's own order, not whole names in any order

    @model_validator(mode="after")
    def _order_needs_sets(self) -> WarmStart:
        if self.in_order and self.source != "sets":
            raise ValueError(
                "in_order is the order of a training set: set warm_start.source to 'sets', or in_order to false"
            )
        return self


class Alarms(Section):
    """Signs of collapse: the least share of the warm start's value that a policy may show and still be kept."""

    distinct: float = Field(0.9, ge=0, le=1)  # share of distinct items in a set
    distinct_items: float = Field(0.5, ge=0, le=1)  # different items over all validation sets
    type_token: float = Field(0.5, ge=0, le=1)  # different words over all words of the sub-queries
    spread: float = Field(0.6, ge=0, le=1)  # 1 - mean pairwise cosine of a set's sub-query embeddings
    valid: float = Field(0.9, ge=0, le=1)  # share of answers that parse


class OpenRLHF(Section):
    """What `rl.backend: openrlhf` decides beside the keys of `rl` (docs/openrlhf.md)."""

    reward_urls: tuple[str, ...] = ()  # servers of `r4t serve-reward`; (): each rollout engine scores for itself
    micro_batch: int = Field(8, ge=1)  # sequences of one forward pass, at most
    attention: str = "flash_attention_2"  # --ds.attn_implementation
    extra: tuple[str, ...] = ()  # further flags, as they are; the last word on any flag

    @field_validator("reward_urls")
    @classmethod
    def _without_keys(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.startswith(("http://", "https://")) or "@" in url or "," in url:
                raise ValueError(
                    "give http or https URLs as `r4t serve-reward` prints them, one an entry; a key belongs into the"
                    " environment variable R4T_REWARD_KEY"
                )
        return urls


class RL(Section):
    """Soft-GRPO (paper Eq. 6-8)."""

    backend: Literal["native", "openrlhf"] = "native"  # who trains: R4T's own loop, or OpenRLHF's trainer
    openrlhf: OpenRLHF = OpenRLHF()
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
    judge_queries: int = Field(32, ge=0)  # validation queries whose sets evaluate.judge reads too, to watch; 0: none
    checkpoint_every: int = Field(20, ge=1)
    keep_last: int = Field(2, ge=1)
    alarms: Alarms = Alarms()


class Rollout(Section):
    engine: Literal["auto", "vllm", "hf"] = "auto"  # auto: vLLM, or transformers (hf, on CPU) where vLLM cannot run
    workers: int = Field(1, ge=1)
    tensor_parallel: int = Field(1, ge=1)  # GPUs (processes on CPU) over which vLLM splits the policy of one worker
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_num_seqs: int = Field(128, ge=1)
    kv_cache_gib: float = Field(0.5, gt=0)
    threads: int | None = Field(None, ge=1)  # of one engine on CPU; None: every core
    cpus: float = Field(1, gt=0)
    pool: str | None = None  # only Ray nodes with the label pool=NAME may seat a worker, e.g. spot; None: any node
    colocate: bool = False  # on cuda: worker i shares the GPU of learner rank i, and its memory


class Learner(Section):
    ranks: int = Field(2, ge=1)
    zero_stage: Literal[0, 1, 2, 3] = 2
    dtype: Literal["float32", "bfloat16"] = "float32"
    micro_tokens: int = Field(4096, ge=1)  # padded tokens per rank and forward pass
    gradient_checkpointing: bool = False  # recompute activations in the backward pass: less memory, a third more work
    threads: int | None = Field(None, ge=1)  # of one rank on CPU; None: the cores, shared out to the ranks
    cpus: float = Field(0.25, gt=0)
    pool: str | None = None  # as rollout.pool


class Scorer(Section):
    workers: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)  # of one scorer on CPU; None: the cores, shared out to the scorers
    cpus: float = Field(0.25, gt=0)
    gpus: float = Field(0, ge=0, le=1)  # on cuda: share of a GPU that each holds and searches on; 0: on the CPU
    pool: str | None = None  # as rollout.pool, for the shards of the index too
