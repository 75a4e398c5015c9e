"""R4T's objective as a reward function of TRL's trainers (`GRPOTrainer(reward_funcs=...)`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from r4t.errors import UserError
from r4t.interop.reward import Asked, SetReward

RewardFunction = Callable[..., list[float]]


def trl_reward(reward: SetReward) -> RewardFunction:
    """A reward function over completions whose dataset has the columns `prompt` and `label` of `r4t export-prompts`.

    It scores a whole batch at once and logs the mean of every unweighted term. Raises UserError without labels.
    """

    def r4t(
        completions: Sequence[Any],
        label: Sequence[str] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        if label is None:
            raise UserError("the training dataset has no column 'label': load the file that `r4t export-prompts` wrote")
        texts = [_text(completion) for completion in completions]
        judged = reward.score([Asked(reward.row(own), text) for own, text in zip(label, texts, strict=True)])
        if log_metric is not None and judged:
            for name in judged[0].logs:
                log_metric(name, fmean(one.logs[name] for one in judged))
        return [one.reward for one in judged]

    return r4t


def _text(completion: Any) -> str:
    """A completion is a string, or the messages of a conversation, of which the last one answers."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
