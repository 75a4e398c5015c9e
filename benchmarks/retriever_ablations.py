"""Retrievers and students trained in other ways on the sets of one finished run, measured alike: a table of ablations.

    python -m benchmarks.retriever_ablations runs/quickstart runs/ablations --variants base matching_noise rows_10
    python -m benchmarks.retriever_ablations runs/quickstart runs/ablations --train-seeds 0 1 2 --folm 5 > ablations.md

Every variant is trained by the job of its stage into `OUT/<variant>-<seed>`, resumes there, and is measured on the
run's held-out queries with `--seeds` draws. Students have the run's retriever as their teacher; `student_of_<variant>`
has that variant of the same training seed, which is trained first. Prints Markdown; the spread is over training
seeds. `--json FILE` keeps all numbers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from benchmarks.retriever import SIZES
from benchmarks.retriever_calls import Bench, Choice, means
from benchmarks.retriever_figure import METRICS
from cluster.retriever_learner import RetrieverLearner
from cluster.session import session
from cluster.student_learner import StudentLearner
from jobs.denoiser_training import Plan, train
from jobs.retrieve import config_of
from jobs.run import Run
from r4t.config import Config, parse_config
from r4t.diffusion.checkpoint import load_sampler_settings
from r4t.lineage import is_finished, read_manifest, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Changed keys of the run's configuration, and the folder of sets."""

    changes: Mapping[str, Any]
    sets: str = "sets"
    student: bool = False
    teacher: str = ""  # a variant; without one the run's own retriever


BETTER_HALF = {"top_fraction": 0.5}
LONG = {"endpoints": 0.0, "sets": 1.0, "steps": 3000}
LONGEST = LONG | {"steps": 10_000}
VARIANTS = {
    "base": Variant(changes={}),
    "rows_10": Variant(changes={"retriever": {"rows": 10}}),  # no fillers
    "no_register": Variant(changes={"retriever": {"register_token": False}}),
    "matching_noise": Variant(changes={"retriever": {"matching": "noise"}}),
    "matching_output": Variant(changes={"retriever": {"matching": "output"}}),
    "filtered": Variant(changes={"sets": {"top_fraction": 0.5}}),
    "log_normal": Variant(changes={"retriever": {"sigma_law": "log_normal"}}),
    "zero_shot": Variant(changes={}, sets="sets/zero_shot"),
    **{name: Variant(changes={"retriever": size}) for name, size in SIZES.items()},
    "student_sets": Variant(changes={"distill": {"endpoints": 0.0, "sets": 1.0}}, student=True),
    "student_long": Variant(changes={"distill": LONG}, student=True),
    "student_endpoints": Variant(changes={"distill": {"endpoints": 1.0, "sets": 0.0}}, student=True),
    "student_both": Variant(changes={"distill": {"endpoints": 1.0, "sets": 10.0}}, student=True),
    "student_filtered": Variant(
        changes={"distill": {"endpoints": 0.0, "sets": 1.0}, "sets": BETTER_HALF}, student=True
    ),
    "student_long_filtered": Variant(changes={"distill": LONG, "sets": BETTER_HALF}, student=True),
    "student_longest_filtered": Variant(changes={"distill": LONGEST, "sets": BETTER_HALF}, student=True),
    "student_calls": Variant(changes={"distill": LONG | {"calls": (1, 2, 4)}, "sets": BETTER_HALF}, student=True),
    **{
        f"{student}_of_{name}": Variant(changes={"distill": steps, "sets": BETTER_HALF}, student=True, teacher=name)
        for student, steps in (("student", LONG), ("student_longest", LONGEST))
        for name in ("base", *SIZES)
    },
}


def changed(config: Config, variant: Variant, seed: int) -> Config:
    """The run's configuration with a variant's keys and another training seed."""
    raw = config.model_dump(mode="json")
    for section, keys in variant.changes.items():
        raw[section] |= keys
    return parse_config(raw | {"seed": seed})


def plan_of(run: Path, out: Path, name: str, seed: int) -> tuple[Config, Plan]:
    """How a variant is trained."""
    variant = VARIANTS[name]
    config = changed(config_of(run), variant, seed)
    inputs = {"prepare": run / "prepare", "sets": run / variant.sets}
    if variant.student:
        inputs["retriever"] = out / f"{variant.teacher}-{seed}" if variant.teacher else run / "retriever"
    plan = Plan(
        name=f"{name}-{seed}",
        learner=StudentLearner if variant.student else RetrieverLearner,
        args=tuple(inputs.values()),
        settings=config.distill if variant.student else config.retriever,
        folder=out / f"{name}-{seed}",
        inputs=inputs,
    )
    return config, plan


def with_teachers(names: Sequence[str]) -> list[str]:
    """The variants, each once and after its teacher."""
    return list(dict.fromkeys(one for name in names for one in (VARIANTS[name].teacher, name) if one))


def choice_of(folder: Path) -> Choice:
    """The sampler that a trained network is meant to be used with."""
    sampler = load_sampler_settings(folder)
    return Choice(
        folder=str(folder),
        name=sampler.name,
        steps=sampler.steps,
        guidance=sampler.guidance,
        sigma_max=sampler.sigma_max,
        rho=sampler.rho,
    )


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Mean ± standard deviation over training seeds."""
    names = list(dict.fromkeys(r["variant"] for r in results))
    shown = [m for m in METRICS if all(m in r["metrics"] for r in results)]
    lines = [f"| variant | parameters | calls | seconds | {' | '.join(shown)} |", "|---" * (len(shown) + 4) + "|"]
    for name in names:
        same = [r for r in results if r["variant"] == name]
        cells = [spread([r["metrics"][m]["mean"] for r in same]) for m in shown]
        seconds = statistics.fmean(r["seconds"] for r in same)
        size = f"{same[0]['parameters']:,}"
        lines.append(f"| {name} | {size} | {same[0]['nfe']} | {seconds:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--train-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--queries", type=int, default=1500)
    parser.add_argument("--folm", type=int, default=0, help="answers of the policy per query behind folm_share")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    run, out = a.run.resolve(), a.out.resolve()
    plans = [plan_of(run, out, name, seed) for name in with_teachers(a.variants) for seed in a.train_seeds]
    missing = [one for one in plans if not is_finished(one[1].folder)]
    if missing:
        with redirect_stdout(sys.stderr), session(config_of(run), None):  # the table alone goes to stdout
            for config, plan in missing:
                train(config, Run(out, config), [plan])
    bench = Bench(run, "test", a.queries, a.seeds, judge=True)
    folm = means(bench.folm(a.folm)) if a.folm else None
    results: list[dict[str, Any]] = []
    for _, plan in plans:
        found, nfe = bench.draw(choice_of(plan.folder))
        trained = (read_manifest(plan.folder) or {})["metrics"]
        name, _, seed = plan.name.rpartition("-")
        entry = {"variant": name, "seed": int(seed), "nfe": nfe, "metrics": means(found)}
        results.append(entry | {key: trained[key] for key in ("parameters", "seconds")})
    if a.json:
        head = {"schema": 1, "name": "retriever_ablations", "environment": environment(), "run": str(run)}
        write_json(a.json, head | {"n_queries": len(bench.queries), "folm": folm, "results": results})
    print(table(results))


if __name__ == "__main__":
    main()
