"""From scored groups to a token batch: advantages per set or per sub-query, zero-variance groups without loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from r4t.batch import TokenBatch, token_batch
from r4t.config import Config
from r4t.credit import piece_ends, token_rows
from r4t.grpo import group_advantages, informative_groups, row_advantages, token_advantages
from r4t.objective.training import training_rewards
from r4t.types import Completion, Floats, ScoredBatch


def assemble(
    completions: Sequence[Completion], scored: ScoredBatch, tokenizer: PreTrainedTokenizerBase, config: Config
) -> TokenBatch:
    """Token batch of Q groups of G answers, query-major. Answers of uninformative groups stay in place, untrained."""
    rl = config.rl
    versions = [completion.policy_version for completion in completions[:: rl.group_size]]
    weighed, credit = training_rewards(scored, config.objective, versions)
    rewards = weighed.reshape(-1, rl.group_size)
    set_advantages = group_advantages(rewards, rl.advantage_eps).ravel()
    trained = np.repeat(informative_groups(rewards, rl.std_tolerance), rl.group_size)
    if config.objective.credit == "set":
        advantages = [
            np.full(len(c.token_ids), a, dtype=np.float32) for c, a in zip(completions, set_advantages, strict=True)
        ]
    else:
        advantages = _per_row(completions, scored, credit, set_advantages, tokenizer, config)
    return token_batch(completions, advantages, trained, tokenizer.pad_token_id)


def _per_row(
    completions: Sequence[Completion],
    scored: ScoredBatch,
    row_credit: Floats,
    set_advantages: Floats,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
) -> list[Floats]:
    valid = np.array([fanout.valid for fanout in scored.fanouts]).reshape(-1, config.rl.group_size)
    credit = row_credit.reshape(*valid.shape, -1)
    rows = row_advantages(credit, valid, config.rl.advantage_eps).reshape(len(completions), -1)
    advantages = []
    for completion, fanout, own, whole in zip(completions, scored.fanouts, rows, set_advantages, strict=True):
        ends = piece_ends(tokenizer, completion.token_ids, completion.text)
        advantages.append(token_advantages(float(whole), own, token_rows(ends, fanout)))
    return advantages
