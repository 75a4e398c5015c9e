"""The terms of an objective by name: those that ship, and a user's own by import path.

A term is a function of `SetInputs` that returns its values [B] and, where it knows a shortcut, what each sub-query
adds [B, k]. Where it does not, the credit is the set's value minus its value without the sub-query.
docs/objective.md states range, cost, gaming risk and source of each.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from r4t.config import Objective
from r4t.errors import UserError
from r4t.objective import terms
from r4t.objective.inputs import SetInputs
from r4t.objective.vendi import normalise_vendi, vendi, vendi_without
from r4t.types import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """Values of one term for B sets."""

    value: Floats
    """[B]"""
    credit: Floats | None = None
    """[B, k] `shares` times what the value owes to each sub-query, up to a constant of the set; None: leave one out."""
    shares: int = 1


Function = Callable[[SetInputs, Objective, bool], Term]
"""Inputs, switches, and whether credit is wanted."""


def _mean(rows: Floats) -> Term:
    """A term that is the mean over its rows."""
    return Term(value=rows.mean(axis=1), credit=rows, shares=rows.shape[1])


def _sum(rows: Floats) -> Term:
    """A term to which rows add what none before them has."""
    return Term(value=rows.sum(axis=1), credit=rows)


def _diversity(inputs: SetInputs, objective: Objective, want_credit: bool) -> Term:
    content, how = inputs.content, objective.vendi_norm
    k = content.shape[1]
    score = vendi(content, objective.vendi_order, objective.vendi_kernel)
    value = normalise_vendi(score, k, how)
    if not want_credit or k == 1:
        return Term(value=value, credit=np.zeros(content.shape[:2], dtype=np.float32))
    lost = score[:, None] - vendi_without(content, objective.vendi_order, objective.vendi_kernel)
    # `vendi_norm` shifts a score as well as scaling it; a difference of scores must only be scaled.
    return Term(value=value, credit=normalise_vendi(1 + lost, k, how) - normalise_vendi(np.ones_like(lost), k, how))


def _coverage(inputs: SetInputs, _: Objective, __: bool) -> Term:
    if inputs.references is None:
        raise UserError("the term 'coverage' needs reference sets: set task to 'wscr', or give it the weight 0")
    weights = inputs.item_weights
    if weights is None:
        weights = np.ones(len(inputs.item_vectors), dtype=np.float32)
    return _sum(terms.coverage_credit(inputs.items, inputs.references, weights))


def _complementarity(inputs: SetInputs, objective: Objective, _: bool) -> Term:
    facts = inputs.facts
    assert facts.kinds is not None  # noqa: S101  # item_facts refuses the term without categories
    counted = np.isin(facts.categories, objective.slots) if objective.slots else None
    wanted = len(set(objective.slots)) or min(inputs.items.shape[1], len(facts.categories))
    return _sum(terms.first_of_kind(facts.kinds[inputs.shown], wanted, counted))


def _novelty(inputs: SetInputs, _: Objective, __: bool) -> Term:
    assert inputs.facts.novelty is not None  # noqa: S101  # item_facts refuses the term without popularity
    return _mean(inputs.facts.novelty[inputs.shown])


def _constraints(inputs: SetInputs, _: Objective, __: bool) -> Term:
    facts = inputs.facts
    assert facts.satisfied is not None  # noqa: S101  # item_facts fills it wherever there are constraints
    rows = facts.satisfied[inputs.shown]
    if not facts.budgets:
        return _mean(rows)
    kept = [terms.within_budget(amounts[inputs.shown], limit) for amounts, limit in facts.budgets]
    return Term(value=rows.mean(axis=1) * np.prod(kept, axis=0, dtype=np.float32))


SHIPPED: dict[str, Function] = {
    "groundedness": lambda inputs, _, __: _mean(terms.groundedness_rows(inputs.top_cosine)),
    "alignment": lambda inputs, _, __: _mean(terms.cosine_rows(inputs.directions, inputs.query)),
    "content_alignment": lambda inputs, _, __: _mean(terms.cosine_rows(inputs.content, inputs.query)),
    "distinct": lambda inputs, _, __: _mean(terms.first_finds(inputs.shown)),
    "diversity": _diversity,
    "coverage": _coverage,
    "complementarity": _complementarity,
    "coherence": lambda inputs, _, __: Term(value=terms.mean_cosine_rows(inputs.content).mean(axis=1)),
    "novelty": _novelty,
    "constraints": _constraints,
}


def evaluate(name: str, inputs: SetInputs, objective: Objective, want_credit: bool) -> Term:
    """One term of B sets, checked; with credit [B, k] if `want_credit`.

    Raises UserError when a term cannot be imported, or returns another shape or values that are not finite.
    """
    function = SHIPPED[name] if name in SHIPPED else _own(name)
    term = _checked(name, function(inputs, objective, want_credit), inputs)
    if not want_credit or term.credit is not None:
        return term
    k = inputs.items.shape[1]
    if k == 1:
        return Term(value=term.value, credit=term.value[:, None])
    rest = [_checked(name, function(inputs.without(i), objective, False), inputs).value for i in range(k)]
    return Term(value=term.value, credit=term.value[:, None] - np.stack(rest, axis=1))


def import_term(path: str) -> Callable[[SetInputs], Any]:
    """The function at `package.module:function`. Raises UserError when there is none.

    Whatever an installed package offers can be named, so a configuration is as trusted as the code it names.
    """
    module, _, attribute = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"objective.weights names the term '{path}', which cannot be imported ({error}): install its package where"
            " the scorers run, or put its folder on PYTHONPATH"
        ) from None
    if not callable(function):
        raise UserError(f"objective.weights names '{path}', which is a {type(function).__name__}, not a function")
    return function


def _own(path: str) -> Function:
    function = import_term(path)

    def call(inputs: SetInputs, _: Objective, __: bool) -> Term:
        try:
            result = function(inputs)
        except Exception as error:
            raise UserError(f"the term '{path}' failed: {type(error).__name__}: {error}") from error
        value, credit = result if isinstance(result, tuple) else (result, None)
        return Term(value=np.asarray(value), credit=None if credit is None else np.asarray(credit))

    return call


def _checked(name: str, term: Term, inputs: SetInputs) -> Term:
    batch, k = inputs.items.shape[:2]
    for what, array, shape in (("values", term.value, (batch,)), ("credit", term.credit, (batch, k))):
        if array is None:
            continue
        if array.shape != shape or array.dtype.kind not in "fiub":
            raise UserError(
                f"the term '{name}' returned {what} of {array.dtype} {array.shape} for {batch} sets of {k}: it must"
                f" return numbers of shape {shape}"
            )
        if bad := int((~np.isfinite(array)).sum()):
            raise UserError(
                f"the term '{name}' returned {bad} {what} that are NaN or infinite: make it finite for every set"
            )
    credit = None if term.credit is None else term.credit.astype(np.float32, copy=False)
    return Term(value=term.value.astype(np.float32, copy=False), credit=credit, shares=term.shares)
