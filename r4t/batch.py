"""Token batches for the learner: padded arrays of prompts and answers with everything the loss needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from r4t.types import Bools, Completion, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """S sequences of T tokens, padded on the right. Targets are shifted: column t predicts `tokens[:, t + 1]`."""

    tokens: Ints
    """[S, T]"""
    lengths: Ints
    """[S] tokens before the padding."""
    mask: Bools
    """[S, T-1] true where the *predicted* token belongs to a trained answer; prompts and padding are false."""
    advantages: Floats
    """[S, T-1]"""
    engine_logprobs: Floats
    """[S, T-1] of the rollout engine, 0 outside answers."""

    @property
    def attention(self) -> Bools:
        """[S, T] true before the padding."""
        return np.arange(self.tokens.shape[1]) < self.lengths[:, None]

    def take(self, rows: Ints) -> TokenBatch:
        """The sequences at `rows`, cut to their longest."""
        longest = int(self.lengths[rows].max())
        return TokenBatch(
            tokens=self.tokens[rows, :longest],
            lengths=self.lengths[rows],
            mask=self.mask[rows, : longest - 1],
            advantages=self.advantages[rows, : longest - 1],
            engine_logprobs=self.engine_logprobs[rows, : longest - 1],
        )

    def filler(self) -> TokenBatch:
        """The shortest sequence without loss: what a rank runs when its partners have one micro-batch more."""
        shortest = self.take(np.array([self.lengths.argmin()]))
        return replace(shortest, mask=np.zeros_like(shortest.mask))


def token_batch(
    completions: Sequence[Completion], advantages: Sequence[Floats], trained: Bools, pad_id: int
) -> TokenBatch:
    """Packs completions with their per-token advantages; answers where `trained` is false carry no loss."""
    lengths = np.array([len(c.prompt_ids) + len(c.token_ids) for c in completions])
    size, longest = len(completions), int(lengths.max())
    tokens = np.full((size, longest), pad_id, dtype=np.int64)
    mask = np.zeros((size, longest - 1), dtype=bool)
    advantage = np.zeros((size, longest - 1), dtype=np.float32)
    engine = np.zeros((size, longest - 1), dtype=np.float32)
    for s, completion in enumerate(completions):
        start = len(completion.prompt_ids)
        stop = int(lengths[s])
        tokens[s, :start] = completion.prompt_ids
        tokens[s, start:stop] = completion.token_ids
        mask[s, start - 1 : stop - 1] = trained[s]
        advantage[s, start - 1 : stop - 1] = advantages[s]
        engine[s, start - 1 : stop - 1] = completion.logprobs
    return TokenBatch(tokens=tokens, lengths=lengths, mask=mask, advantages=advantage, engine_logprobs=engine)


def supervised_batch(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_id: int) -> TokenBatch:
    """The same shape for the warm start: every answer token is trained, advantages are 1."""
    completions = [
        Completion(
            query=-1,
            sample=0,
            prompt_ids=tuple(prompt),
            token_ids=tuple(answer),
            logprobs=(0.0,) * len(answer),
            text="",
            policy_version=0,
            finished=True,
        )
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    ones = [np.ones(len(answer), dtype=np.float32) for answer in answers]
    return token_batch(completions, ones, np.ones(len(answers), dtype=bool), pad_id)
