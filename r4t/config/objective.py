"""Keys of the objective: what a good set is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from r4t.config.section import Section
from r4t.errors import did_you_mean

TERMS = (
    "groundedness",
    "diversity",
    "alignment",
    "content_alignment",
    "distinct",
    "coverage",
    "complementarity",
    "coherence",
    "novelty",
    "constraints",
)
"""Terms that ship (docs/objective.md). A term of your own is named by its import path, `package.module:function`."""

PRESETS = {
    "content": {"diversity": 0.3, "content_alignment": 0.7},
    "paper": {"groundedness": 0.6, "diversity": 0.2, "alignment": 0.2},
    "coverage": {"coverage": 1.0},
}
MONOTONE = "the steps of a schedule must ascend, as in [[0, 0.0], [50, 1.0]]"


class Constraint(Section):
    """What the items of a set must satisfy; `column` is one of the items file. The set's total may be bounded too."""

    column: str
    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[str, ...] | None = None
    total_at_most: float | None = None  # of the column's sum over the shown items

    @model_validator(mode="after")
    def _says_something(self) -> Constraint:
        if self.at_least is self.at_most is self.one_of is self.total_at_most is None:
            raise ValueError(
                f"constraint on '{self.column}' demands nothing: give at_least, at_most, one_of or total_at_most"
            )
        return self


class Objective(Section):
    """What a good set is. `content` judges the retrieved items alone and so cannot be gamed by sub-query wording."""

    kind: Literal["content", "paper", "coverage"] = "content"  # where the weights start
    weights: dict[str, float] = Field(default_factory=dict)  # term -> weight, on top of the kind's; 0 switches one off
    # term -> [[step, factor], ...]: what its weight is multiplied by in training, straight lines between
    schedule: dict[str, tuple[tuple[int, float], ...]] = Field(default_factory=dict)
    normalise: Literal["none", "group"] = "none"  # group: terms at unit spread inside a group before they are weighted
    vendi_norm: Literal["by_k", "minus1_over_kminus1", "raw"] = "by_k"
    vendi_order: float = 1.0  # q of the Vendi Score: below 1 rare directions count more, above 1 less; .inf is allowed
    vendi_kernel: Literal["cosine", "gaussian"] = "cosine"
    coverage_weighting: Literal["uniform", "inverse_frequency"] = "uniform"
    category_column: str = "category"  # complementarity: the kind of an item
    slots: tuple[str, ...] = ()  # complementarity: the categories that a set should hold; (): as many as it can
    popularity_column: str | None = None  # novelty; None: how often training sets hold the item (WSCR)
    constraints: tuple[Constraint, ...] = ()
    credit: Literal["set", "row"] = "set"  # row: a sub-query's tokens get that sub-query's marginal contribution
    invalid_reward: float = -1.0

    @model_validator(mode="after")
    def _consistent(self) -> Objective:
        object.__setattr__(self, "weights", PRESETS[self.kind] | self.weights)
        for name in (*self.weights, *self.schedule):
            if name not in TERMS and ":" not in name:
                raise ValueError(
                    f"unknown term '{name}'{did_you_mean(name, TERMS)}: the terms are {', '.join(TERMS)};"
                    " one of your own is written package.module:function"
                )
        if unweighted := sorted(self.schedule.keys() - self.weights.keys()):
            raise ValueError(f"schedule names '{unweighted[0]}', which has no weight: add it to objective.weights")
        if any(
            [step for step, _ in points] != sorted({step for step, _ in points}) for points in self.schedule.values()
        ):
            raise ValueError(MONOTONE)
        if not self.vendi_order > 0:
            raise ValueError("vendi_order must be above 0 (1: Shannon; .inf: Berger-Parker)")
        if self.weighs("constraints") and not self.constraints:
            raise ValueError("the term 'constraints' has a weight and nothing to check: give objective.constraints")
        return self

    def weighs(self, term: str) -> bool:
        """Whether the reward depends on `term`."""
        return bool(self.weights.get(term))

    @property
    def reweighted(self) -> bool:
        """Whether training weighs the terms otherwise than the reward does."""
        return bool(self.schedule) or self.normalise == "group"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the items file that the weighted terms read."""
        names = [self.category_column] if self.weighs("complementarity") else []
        names += [self.popularity_column] if self.weighs("novelty") and self.popularity_column else []
        names += [constraint.column for constraint in self.constraints] if self.weighs("constraints") else []
        return tuple(dict.fromkeys(names))
