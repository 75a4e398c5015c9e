"""Keys of the objective: what a good set is."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from r4t.config.section import Section


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
