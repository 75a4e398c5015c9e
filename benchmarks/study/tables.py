"""The study's tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.study.claims import Claim, Outcome, verdict
from benchmarks.study.hacking import Finding
from benchmarks.study.results import CellResults, of_part
from r4t.evaluation.labels import in_words, method_name
from r4t.evaluation.statistics import difference, holm, mean

TABLE1 = {
    "reward": "reward",
    "diversity": "diversity",
    "content_alignment": "alignment",
    "groundedness": "groundedness (sub-queries)",
    "judge.diversity": "judge: diversity",
    "judge.alignment": "judge: alignment",
    "judge.groundedness": "judge: groundedness",
    "judge.diversity+judge.alignment": "judge: mean of diversity and alignment",
    "distinct_items": "distinct in a set",
}
TABLE2 = {
    "recall_5k": "recall@5K, scaled",
    "hit_5k": "hit@5K, scaled",
    "recall": "recall",
    "hit": "hit",
    "recall_shuffled": "recall, queries shuffled",
    "vendi_runs": "VS of run means",
    "vendi_rows": "VS of all rows",
    "diversity": "diversity",
    "distinct_items": "distinct in a set",
    "invalid": "unusable answers",
}
LABELS = {
    "categories": "categories in a set",
    "category_coverage": "the set's categories found",
    "fill_in_blank": "fill in the blank",
}
"""Checks against labels, where the catalogue has them."""
RIVALS = ("no_fanout", "mmr", "dpp", "kmeans", "prf", "bm25")
SHOWN_BATCHES = (1, 8, 64, 1024)
MOST_TIMES = 2.0
FEW_SEEDS = 3


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def results(cell: CellResults, columns: Mapping[str, str]) -> str:
    """A row per method, mean ± standard error; empty where a metric does not apply."""
    columns = {**columns, **LABELS}
    cells = {
        (method, metric): found
        for method in cell.methods
        for metric in columns
        if (found := cell.matrix(method, metric)) is not None
    }
    shown = [metric for metric in columns if any(name == metric for _, name in cells)]
    rows = []
    for method in cell.methods:
        texts = [spread(*_mean(cells[method, m])) if (method, m) in cells else "" for m in shown]
        overall = [metrics["methods"][method].get("distinct_overall") for metrics in cell.metrics]
        known = [value for value in overall if value is not None]
        rows.append([method_name(method), *texts, f"{sum(known) / len(known):,.0f}" if known else ""])
    return grid(["method", *(columns[m] for m in shown), "different items over all queries"], rows)


def caption(cell: CellResults) -> str:
    """What was measured, with what."""
    first = cell.metrics[0]
    text = (
        f"{cell.cell.label}: {first['database_items']:,} items, {first['n_queries']} test queries, seeds"
        f" {', '.join(map(str, cell.seeds))} (n = {len(cell.seeds)}), k = {first['k']}, n = {first['n']} items a"
        f" sub-query, temperature {first['temperature']:g} for every sampled method; judge: {first['judge_encoder']}."
    )
    floors = [f"{in_words(name)} {value:.3f}" for name, value in first.get("floors", {}).items()]
    return text + (f" What drawing at random expects: {', '.join(floors)}." if floors else "")


def spread(value: float, error: float) -> str:
    return f"{value:.3f} ± {error:.3f}"


def _mean(matrix: object) -> tuple[float, float]:
    estimate = mean(matrix)  # type: ignore[arg-type]
    return estimate.value, estimate.stderr


def claims_table(claims: Sequence[Claim], found: Sequence[Outcome]) -> str:
    """Claim -> verdict, with how many of its tests hold."""
    rows = []
    for claim in claims:
        own = [outcome for outcome in found if outcome.claim == claim.id]
        known = [outcome.holds for outcome in own if outcome.holds is not None]
        count = claim.untestable or (f"{sum(known)} of {len(known)} tests hold" if known else "")
        if known and len(known) < len(own):
            count += f", {len(own) - len(known)} have no numbers yet"
        seeds = [outcome.estimate.seeds for outcome in own if outcome.estimate is not None]
        if seeds and min(seeds) < FEW_SEEDS:
            count += f"; {min(seeds)} training seed{'s' if min(seeds) > 1 else ''} only"
        rows.append([claim.says, f"**{verdict(claim, found)}**", count])
    return grid(["claim", "verdict", "evidence"], rows)


def tests_table(claims: Sequence[Claim], found: Sequence[Outcome]) -> str:
    """Every test with its numbers."""
    rows = []
    for claim in claims:
        for outcome in (o for o in found if o.claim == claim.id and o.holds is not None):
            p = "" if outcome.p_adjusted is None else f"{outcome.p_adjusted:.4f}"
            rows.append([outcome.test, outcome.where, outcome.says, p, "yes" if outcome.holds else "no"])
    return grid(["test", "where", "difference or share [95 % interval]", "p (Holm)", "holds"], rows) if rows else ""


def rivals(cells: Mapping[str, CellResults]) -> str:
    """R4T-Diffusion against what needs no training: the set reward, and how much longer a query waits."""
    compared, times = {}, {}
    for cell in of_part(dict(cells), "table1"):
        own = cell.matrix("r4t_diffusion", "reward")
        for rival in RIVALS:
            other = cell.matrix(rival, "reward")
            if own is None or other is None:
                continue
            key = f"{cell.key}/{rival}"
            compared[key] = difference(own, other)
            pairs = [(b, cell.latency("r4t_diffusion", b), cell.latency(rival, b)) for b in (1, 8, 64)]
            times[key] = {batch: mine / theirs for batch, mine, theirs in pairs if mine and theirs}
    adjusted = holm({key: gap.p for key, gap in compared.items()})
    rows = []
    for key, gap in compared.items():
        name, _, rival = key.partition("/")
        wins, ratios = gap.value > 0 and adjusted[key] < 0.05, times[key]
        slower = ", ".join(f"{ratio:.1f} at {batch}" for batch, ratio in ratios.items())
        outcome = "beats" if wins else f"loses by {-gap.value:.3f}" if gap.value < 0 else "no difference shown"
        if wins and ratios and max(ratios.values()) > MOST_TIMES:
            outcome += f", but slower than {MOST_TIMES:g} times"
        rows.append(
            [cells[name].cell.label, method_name(rival), f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]",
             f"{adjusted[key]:.4f}", slower, outcome]
        )  # fmt: skip
    head = [
        "catalogue",
        "against",
        "reward [95 % interval]",
        "p (Holm)",
        "times its latency, by batch",
        "R4T-Diffusion",
    ]
    return grid(head, rows) if rows else ""


def latency(cell: CellResults) -> str:
    """Median and 95th percentile by batch size, the medians without encoding and search, and what queries cost."""
    shown = [batch for batch in SHOWN_BATCHES if batch in cell.batches]
    rows = []
    for method in cell.probes[0]["latency_ms"]:
        texts = []
        for batch in shown:
            p50, p95, own = (cell.latency(method, batch, what) for what in ("p50", "p95", "own_p50"))
            texts.append("" if p50 is None or p95 is None or own is None else f"{p50:,.1f} / {p95:,.1f} ({own:,.1f})")
        prices = [cell.latency(method, batch, "cost_per_1000") for batch in (shown[0], shown[-1])]
        rows.append([method_name(method), *texts, *("" if price is None else f"{price:.6f}" for price in prices)])
    times = [f"ms at {b}: p50 / p95 (own p50)" for b in shown]
    return grid(["method", *times, *(f"dollars per 1,000 queries at {b}" for b in (shown[0], shown[-1]))], rows)


def hacking_table(found: Sequence[Finding], cells: Mapping[str, CellResults]) -> str:
    """What each trained policy gained in reward, and what the judge says of it."""
    rows = []
    for finding in found:
        judged = [f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]" for gap in finding.judged.values()]
        reward = f"{finding.reward.value:+.3f} [{finding.reward.low:+.3f}, {finding.reward.high:+.3f}]"
        lost = ", ".join(in_words(name).lower() for name in finding.lost)
        verdict_of = f"**FAILURE: reward hacked** ({lost} lost)" if finding.hacked else "clean"
        if not finding.gained:
            verdict_of = "no gain of reward shown" + (f", {lost} lost" if lost else "")
        cell = cells[finding.key].cell
        rows.append([f"{finding.key} ({cell.label})", reward, *judged, verdict_of])
    head = ["cell", "reward, R4T-FOLM − start", "judge: diversity", "judge: alignment", "verdict"]
    return grid(head, rows) if rows else ""
