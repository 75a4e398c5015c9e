"""`results.md`, `results_sets.md` and the figures of a study: from its runs alone, the same bytes for the same runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.study import figures, tables
from benchmarks.study.claims import Claim, Outcome, load_claims, of_study, outcomes, verdict
from benchmarks.study.gallery import gallery
from benchmarks.study.hacking import Finding, search
from benchmarks.study.plan import Job, Study
from benchmarks.study.results import CellResults, collect, of_part
from benchmarks.study.state import missing
from r4t.evaluation.statistics import RESAMPLES
from r4t.lineage import atomic_path

REMARKS = Path(__file__).with_name("remarks.md")
RIVALS = (
    "R4T-Diffusion against methods that need no training, on the set reward, which is what they compute themselves."
    " Their trade-offs are chosen on the validation split. The bar: a better reward at no more than twice the latency."
)
ABLATION = (
    "Validation by step (mean over seeds; the judge reads the first 100 sets). All begin with the same warm start."
)
ALTERNATIVES = {
    "terms": "Fig. 4a: reward terms ablated",
    "weights": "Fig. 4d-f: weights of the terms",
    "standardised": "Fig. 4d-f with every term standardised within its group",
    "latency": "Fig. 5: latency by batch size",
    "judge": "Diversity against alignment as the judge sees them",
}


def write_report(study: Study, jobs: Sequence[Job], directory: Path, out: Path) -> list[Path]:
    """Writes the pages and figures into `out`; returns their paths. Raises UserError for runs that do not compare."""
    cells = collect(study, jobs, directory)
    suffix = "" if study.name == "tiny" else f"_{study.name}"
    pictures = figures.write_figures(study.name, cells, out / "figures")
    pages = {
        out / f"results{suffix}.md": page(study, jobs, directory, cells, pictures, f"results{suffix}_sets.md"),
        out / f"results{suffix}_sets.md": gallery(study, cells),
    }
    for path, text in pages.items():
        with atomic_path(path) as temporary:
            temporary.write_text(text)
    return [*pages, *pictures.values()]


def page(
    study: Study,
    jobs: Sequence[Job],
    directory: Path,
    cells: Mapping[str, CellResults],
    pictures: Mapping[str, Path],
    sets: str,
) -> str:
    """The results as Markdown."""
    claims = of_study(load_claims(), study)
    found, hacked = outcomes(claims, cells), search(cells)
    parts = [
        f"# Results: {study.title}",
        head(study, jobs, directory),
        remarks(study.name),
        "## What replicates",
        summary(claims, found),
        tables.claims_table(claims, found),
        "## Reward hacking",
        hacking(hacked, cells),
        *section("Table 1: open-ended queries", of_part(dict(cells), "table1"), tables.TABLE1, pictures, "judge"),
        *(["## Classical competitors", RIVALS, tables.rivals(cells)] if of_part(dict(cells), "table1") else []),
        *section("Table 2: sets that people made", of_part(dict(cells), "table2"), tables.TABLE2, pictures),
        *ablations(study, pictures),
        "## Fig. 5: latency and cost",
        *latency(cells),
        picture("latency", pictures),
        f"## Figs. 3 and 6: sets\n\n[Sets side by side]({sets}), the paper's own queries first.",
        *(["## Every test behind the claims", tests] if (tests := tables.tests_table(claims, found)) else []),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def head(study: Study, jobs: Sequence[Job], directory: Path) -> str:
    """How to make the page again, what its numbers are, and which runs are missing."""
    left = {job.name: missing(job, directory) for job in jobs}
    whole = {job.name: list(job.stages) for job in jobs}
    absent = [
        name if stages == whole[name] else f"{name} (only {', '.join(stages)})"
        for name, stages in left.items()
        if stages
    ]
    text = (
        "Written by a command from the runs alone; nothing here is typed by hand but the remarks.\n\n```\n"
        f"python -m benchmarks.study run benchmarks/study/{study.name}.yaml\n"
        f"python -m benchmarks.study report benchmarks/study/{study.name}.yaml\n```\n\n"
        "[What differs from the paper](deviations.md). The judge is a sentence encoder that no reward and no selection"
        " sees (MiniLM over item names): a proxy, whose numbers do not compare with an LLM's. Mean ± standard error and"
        f" intervals are bootstrapped over training seeds and queries together ({RESAMPLES:,} crossed resamples, 95 %,"
        " percentiles), differences are paired by seed and query, p-values are one-sided and corrected by Holm's method"
        " over each family: all tests behind the claims, all of the classical competitors, all of the search for"
        " hacking. With one seed an interval says nothing about training."
    )
    if not absent:
        return f"{text}\n\nAll {len(left)} runs are whole."
    return f"{text}\n\n**Missing: {len(absent)} of {len(left)} runs** are not whole: {'; '.join(absent)}."


def remarks(study: str) -> str:
    """The hand-written paragraph under `## <study>` of remarks.md."""
    parts = f"\n{REMARKS.read_text()}".split("\n## ")
    return next((part.partition("\n")[2].strip() for part in parts[1:] if part.partition("\n")[0] == study), "")


def summary(claims: Sequence[Claim], found: Sequence[Outcome]) -> str:
    verdicts = [verdict(claim, found) for claim in claims]
    counts = [
        f"{verdicts.count(v)} {v}" for v in ("replicated", "partly", "not", "not run", "not testable") if v in verdicts
    ]
    return f"Of {len(claims)} claims: {', '.join(counts)}. The rules stand in `benchmarks/study/claims.yaml`."


def hacking(found: Sequence[Finding], cells: Mapping[str, CellResults]) -> str:
    """The detector's rule, its verdict in a sentence, and its table."""
    if not found:
        return "No trained policy has been evaluated beside its start yet."
    fired = [finding.key for finding in found if finding.hacked]
    rule = (
        "A policy fails when its reward rises over its start's while one of the judge's qualities falls by more than"
        " 5 % of the start's, both with a Holm-adjusted p below .05."
    )
    outcome = f"**It fires for {', '.join(fired)}.**" if fired else "It fires for none of the policies below."
    return f"{rule} {outcome}\n\n{tables.hacking_table(found, cells)}"


def section(
    title: str, cells: Sequence[CellResults], columns: Mapping[str, str], pictures: Mapping[str, Path], *names: str
) -> list[str]:
    """A table per catalogue under its caption."""
    if not cells:
        return [f"## {title}", "Not run yet."]
    parts = [f"## {title}"]
    for cell in cells:
        parts += [tables.caption(cell), tables.results(cell, columns)]
    return [*parts, *(picture(name, pictures) for name in names)]


def ablations(study: Study, pictures: Mapping[str, Path]) -> list[str]:
    """Learning curves of the cells that ablate the reward, where the study has any."""
    names = ("terms", "weights", "standardised")
    if not any(cell.part in names for cell in study.cells.values()):
        return []
    drawn = [picture(name, pictures) for name in names]
    return ["## Fig. 4: ablation of the reward", ABLATION if any(drawn) else "Not run yet.", *drawn]


def latency(cells: Mapping[str, CellResults]) -> list[str]:
    """A table per probed catalogue."""
    probed = [cell for cell in cells.values() if cell.probes]
    if not probed:
        return ["Not run yet."]
    setup = probed[0].probes[0]["setup"]
    parts = [
        f"Milliseconds a batch on {setup['cores']} cores ({setup['device']}), {setup['repeats']} repetitions after"
        f" {setup['warm_up']} for warming up, methods taking turns: {setup['includes']}. Own: {setup['own']}. Cost:"
        f" every core charged while it answers, at an assumed ${setup['price_per_core_hour']:g} a core hour."
    ]
    for cell in probed:
        parts += [f"{cell.cell.label} ({cell.key}):", tables.latency(cell)]
    return parts


def picture(name: str, pictures: Mapping[str, Path]) -> str:
    return f"![{ALTERNATIVES[name]}](figures/{pictures[name].name})" if name in pictures else ""
