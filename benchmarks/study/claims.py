"""Which of the paper's claims hold, decided by rules that stand in `claims.yaml`, from the runs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import Field, model_validator

from benchmarks.study.plan import Part, Study
from benchmarks.study.results import CellResults, of_part
from r4t.config.section import Section
from r4t.evaluation.labels import in_words, method_name
from r4t.evaluation.statistics import Estimate, difference, holm, share

LEVEL = 0.05
RULES = Path(__file__).with_name("claims.yaml")
Verdict = Literal["replicated", "partly", "not", "not run", "not testable"]


class Test(Section):
    """One comparison; see the head of `claims.yaml`. Exactly one of better, kept, faster and curve."""

    __test__ = False  # no test of pytest's

    better: str | None = None
    kept: str | None = None
    faster: str | None = None
    curve: str | None = None
    than: str | None = None
    of: str | None = None
    metric: str = "reward"
    against: str | None = None  # the other side's metric, where it is another one
    share: float | None = None
    times: float | None = None
    cell: str | None = None
    below: float | None = None
    above: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> Test:
        kinds = [name for name in ("better", "kept", "faster", "curve") if getattr(self, name) is not None]
        needed = {"better": ("than",), "kept": ("of", "share"), "faster": ("than", "times"), "curve": ("cell",)}
        if len(kinds) != 1 or any(getattr(self, name) is None for name in needed[kinds[0]]):
            raise ValueError("a test is one of better/than, kept/of/share, faster/than/times, curve/cell")
        if self.curve is not None and (self.below is None) == (self.above is None):
            raise ValueError("a test of a curve needs one of below and above")
        return self


class Claim(Section):
    id: str
    says: str
    part: Part | None = None  # whose cells are tested; None: the tests name their cell
    tests: tuple[Test, ...] = ()
    untestable: str | None = None  # why

    @model_validator(mode="after")
    def _tested_or_not(self) -> Claim:
        if bool(self.tests) == bool(self.untestable):
            raise ValueError(f"claim {self.id} needs tests, or a reason why it is not testable")
        if self.part is None and any(test.curve is None for test in self.tests):
            raise ValueError(f"claim {self.id} compares methods: name its part")
        return self


class Claims(Section):
    claims: tuple[Claim, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One test in one cell. `holds` is None where there are no numbers yet."""

    claim: str
    test: str
    where: str
    holds: bool | None = None
    estimate: Estimate | None = None
    p_adjusted: float | None = None
    says: str = ""


def load_claims(path: Path = RULES) -> tuple[Claim, ...]:
    """The claims in the file's order. Raises pydantic's ValidationError for a rule that says nothing."""
    return Claims.model_validate({"claims": yaml.safe_load(path.read_text())}).claims


def of_study(claims: Sequence[Claim], study: Study) -> list[Claim]:
    """The claims that cells of the study can test, and those that nothing can."""
    parts = {cell.part for cell in study.cells.values()}
    return [
        claim
        for claim in claims
        if claim.untestable or claim.part in parts or any(test.cell in study.cells for test in claim.tests)
    ]


def outcomes(claims: Sequence[Claim], cells: Mapping[str, CellResults]) -> list[Outcome]:
    """Every test of every claim. The p-values of all tests of differences are one family (Holm)."""
    found = [outcome for claim in claims for test in claim.tests for outcome in _outcomes(claim, test, cells)]
    tested = {str(i): o.estimate.p for i, o in enumerate(found) if o.estimate is not None and o.holds is None}
    adjusted = holm(tested)
    return [_decided(o, adjusted[str(i)]) if str(i) in adjusted else o for i, o in enumerate(found)]


def verdict(claim: Claim, found: Sequence[Outcome]) -> Verdict:
    """Replicated: every test holds. Partly: some do. Tests without numbers do not count; if none has any: not run."""
    if claim.untestable:
        return "not testable"
    known = [outcome.holds for outcome in found if outcome.claim == claim.id and outcome.holds is not None]
    if not known:
        return "not run"
    return "replicated" if all(known) else "partly" if any(known) else "not"


def _outcomes(claim: Claim, test: Test, cells: Mapping[str, CellResults]) -> Iterator[Outcome]:
    if test.curve is not None:
        yield (
            _curve(claim, test, cells[test.cell or ""]) if test.cell in cells else _blank(claim, test, test.cell or "")
        )
        return
    assert claim.part is not None  # the model refuses it
    named = [cell for cell in cells.values() if cell.cell.part == claim.part]
    measured = of_part(dict(cells), claim.part)
    for cell in named:
        blank = _blank(claim, test, cell.cell.label)
        if cell not in measured:
            yield blank
        elif test.faster is not None:
            yield _faster(blank, test, cell)
        else:
            yield _compared(blank, test, cell)


def _blank(claim: Claim, test: Test, where: str) -> Outcome:
    return Outcome(claim=claim.id, test=describe(test), where=where, says="no numbers yet")


def _compared(blank: Outcome, test: Test, cell: CellResults) -> Outcome:
    first = cell.matrix(test.better or test.kept or "", test.metric)
    second = cell.matrix(test.than or test.of or "", test.against or test.metric)
    if first is None or second is None:
        return blank
    if test.better is not None:
        gap = difference(first, second)
        return replace(blank, estimate=gap, says=f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]")
    assert test.share is not None  # the model refuses it
    if not np.nanmean(second) > 0:
        return replace(blank, says="the whole is zero")
    kept = share(first, second, threshold=test.share)
    return replace(
        blank, estimate=kept, holds=kept.value >= test.share, says=f"{kept.value:.2f} [{kept.low:.2f}, {kept.high:.2f}]"
    )


def _decided(outcome: Outcome, p: float) -> Outcome:
    assert outcome.estimate is not None  # only tested outcomes get here
    return replace(outcome, p_adjusted=p, holds=bool(outcome.estimate.value > 0 and p < LEVEL))


def _faster(blank: Outcome, test: Test, cell: CellResults) -> Outcome:
    pairs = [(b, cell.latency(test.than or "", b), cell.latency(test.faster or "", b)) for b in cell.batches]
    ratios = {batch: slow / fast for batch, slow, fast in pairs if slow and fast}
    if not ratios:
        return blank
    says = ", ".join(f"{ratio:.1f} at {batch}" for batch, ratio in ratios.items())
    return replace(blank, holds=min(ratios.values()) >= (test.times or 1.0), says=f"times as fast: {says}")


def _curve(claim: Claim, test: Test, cell: CellResults) -> Outcome:
    blank = _blank(claim, test, f"{cell.cell.label}")
    points = cell.curve(test.curve or "")
    if len(points) < 2 or points[0][1] <= 0:
        return blank
    ratio = points[-1][1] / points[0][1]
    holds = ratio < test.below if test.below is not None else ratio > (test.above or 0.0)
    says = f"{points[0][1]:.3f} at step {points[0][0]:g}, {points[-1][1]:.3f} at step {points[-1][0]:g}"
    return replace(blank, holds=holds, says=says)


def describe(test: Test) -> str:
    """A test in words."""
    if test.curve is not None:
        bound = f"under {test.below:g}" if test.below is not None else f"over {test.above:g}"
        return f"{in_words(test.curve)} ends {bound} times its start"
    metric = in_words(test.metric.replace("+", " and ")).lower()
    if test.better is not None:
        other = f" on {in_words(test.against).lower()}" if test.against else ""
        return f"{method_name(test.better)} > {method_name(test.than or '')}{other}: {metric}"
    if test.kept is not None:
        return f"{method_name(test.kept)} ≥ {test.share:g} x {method_name(test.of or '')}: {metric}"
    return f"{method_name(test.faster or '')} {test.times:g} times as fast as {method_name(test.than or '')}"
