"""Quality of a finished run's retriever against its number of network calls: every solver, guidance and noise grid.

    python -m benchmarks.retriever_calls runs/quickstart --seeds 0 1 2 --folm 5 --json calls.json --svg calls.svg
    python -m benchmarks.retriever_calls runs/quickstart --solvers dpmpp_2m --steps 8 --students runs/quickstart/distill

Prints JSON, or Markdown with `--markdown`. Each entry gives the means over queries and seeds of the reward, its terms,
the judge, and `folm_share`: the share of a set's items that one of `--folm` answers of the policy also retrieves.
`against` compares with FOLM and with the reference (Euler-Maruyama, 256 points, best guidance of those given): ratios
with their 95 % intervals (paired bootstrap over queries); `kept` is the ratio to the better of the two.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from benchmarks.retriever_figure import METRICS, markdown, picture
from jobs.evaluate import query_rows
from jobs.policies import build_methods
from jobs.retrieve import config_of, local_policies
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.catalog.encoders import run_encoder
from r4t.catalog.index import ExactIndex
from r4t.config import Config, Sampler
from r4t.diffusion.checkpoint import load_denoiser
from r4t.diffusion.sampler import SetSampler
from r4t.diffusion.solvers import SOLVERS
from r4t.evaluation.evaluate import method_values
from r4t.evaluation.judge import Judge, judge_encoder
from r4t.evaluation.measure import Yardstick
from r4t.lineage import write_json
from r4t.methods import Diffusion, QueryBatch
from r4t.types import Floats, Ints, RetrievedSets

REFERENCE = ("euler_maruyama", 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One way of drawing sets. `folder` holds the network."""

    folder: str
    name: str
    steps: int
    guidance: float
    sigma_max: float | None
    rho: float = Sampler().rho
    spread: float = 1.0

    @property
    def curve(self) -> str:
        """Its name in the picture: a student's is its folder's without the training seed."""
        name = re.sub(r"-\d+$", "", Path(self.folder).name) if self.name == "consistency" else self.name
        return name if self.spread == 1 else f"{name}, spread {self.spread:g}"


class Bench:
    """A run's queries, database and yardstick; answers are measured with the same seeds throughout."""

    def __init__(self, run: Path, split: str, queries: int, seeds: Sequence[int], judge: bool) -> None:
        self.run, self.seeds = run, seeds
        config = config_of(run)
        evaluate = config.evaluate.model_copy(update={"split": split, "queries": queries})
        self.config: Config = config.model_copy(update={"evaluate": evaluate})
        facts = (*config.objective.columns, config.objective.category_column)
        self.dataset: Dataset = load_dataset(run / "prepare", facts)
        rows = query_rows(self.config, self.dataset)
        cache = run / "evaluate" / "judge.safetensors"
        self.yardstick = Yardstick(
            dataset=self.dataset,
            query_rows=rows,
            objective=config.objective,
            task=config.task,
            judge=Judge(judge_encoder(config), self.dataset, cache) if judge else None,
        )
        self.queries = QueryBatch.of_rows(self.dataset, rows)
        self.index = ExactIndex(self.dataset.item_vectors)
        self.known: list[set[int]] | None = None

    def folm(self, answers: int) -> dict[str, Floats]:
        """The policy's own values, from one answer per seed; its `answers` next ones become `known`."""
        encoder = run_encoder(self.config, self.run / "prepare")
        policies = local_policies(self.run / "folm", self.config)
        method = build_methods(["r4t_folm"], self.config, self.run, self.dataset, encoder, policies, self.index)[
            "r4t_folm"
        ]
        drawn = [method.retrieve(self.queries, 10_000 + i) for i in range(answers)]
        self.known = [set(np.concatenate([s.items[i, :, 0] for s in drawn]).tolist()) for i in range(len(self.queries))]
        return self.values([method.retrieve(self.queries, seed) for seed in self.seeds])

    def draw(self, choice: Choice) -> tuple[dict[str, Floats], int]:
        """Per-query values of a way of drawing sets, and its network calls."""
        settings = Sampler(
            **{key: value for key, value in asdict(choice).items() if key not in ("folder", "spread")} | end_of(choice)
        )
        sampler = SetSampler(load_denoiser(Path(choice.folder)), settings)
        method = Diffusion("calls", sampler, self.index, self.config.fanout.k, self.config.fanout.n, choice.spread)
        return self.values([method.retrieve(self.queries, seed) for seed in self.seeds]), sampler.nfe

    def values(self, runs: list[RetrievedSets]) -> dict[str, Floats]:
        found = method_values(self.yardstick, runs)
        if self.known is not None:
            found["folm_share"] = np.mean([folm_share(run.items[:, :, 0], self.known) for run in runs], axis=0)
        return found


def end_of(choice: Choice) -> dict[str, float]:
    """A student's last noise level stands in its folder."""
    if choice.name != "consistency":
        return {}
    return {"sigma_end": json.loads((Path(choice.folder) / "config.json").read_text())["sampler"]["sigma_end"]}


def folm_share(items: Ints, known: Sequence[set[int]]) -> Floats:
    """[B] share of the items [B, k] of each set that stand in that query's `known`."""
    return np.array([np.mean([item in one for item in row]) for row, one in zip(items.tolist(), known, strict=True)])


def choices(a: argparse.Namespace) -> Iterator[Choice]:
    """The reference at every guidance, the grid, and the students."""
    retriever = str(a.run / "retriever")
    grid = [(name, steps) for name in a.solvers for steps in a.steps]
    seen: set[Choice] = set()
    for (name, steps), guidance, top, rho in product([REFERENCE, *grid], a.guidance, a.sigma_max, a.rho):
        choice = Choice(folder=retriever, name=name, steps=steps, guidance=guidance, sigma_max=top, rho=rho)
        if choice not in seen and not ((name, steps) == REFERENCE and a.no_reference):
            seen.add(choice)
            yield choice
    for folder, calls, spread in product(a.students, a.student_calls, a.student_spreads):
        yield Choice(folder=str(folder), name="consistency", steps=calls, guidance=0.0, sigma_max=None, spread=spread)


def bootstrap_ratio(values: Floats, base: Floats, samples: int = 1000, seed: int = 0) -> dict[str, float]:
    """mean(values) / mean(base) over the same queries, with its 95 % interval over resampled queries."""
    picked = np.random.default_rng(seed).integers(0, len(base), (samples, len(base)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = values[picked].mean(axis=1) / base[picked].mean(axis=1)
        low, high = np.percentile(ratios, [2.5, 97.5])
        return {"ratio": float(values.mean() / base.mean()), "low": float(low), "high": float(high)}


def compare(results: list[dict[str, Any]], values: Sequence[Mapping[str, Floats]]) -> None:
    """Adds to every result its ratios `against` the policy and the reference, and those `kept` of the better of them.

    The reference is taken at the guidance of its best reward; which of the two is better is asked metric by metric. A
    metric that has no ratio, such as one that is zero for all queries of a resample, is left out.
    """
    head = "reward" if all("reward" in one for one in values) else "recall"
    references = [i for i, r in enumerate(results) if (r.get("name"), r.get("steps")) == REFERENCE]
    rivals = {r["name"]: values[i] for i, r in enumerate(results) if r.get("name") == "r4t_folm"}
    if references:
        rivals["reference"] = values[max(references, key=lambda i: values[i][head].mean())]
    for result, own in zip(results, values, strict=True):
        result["against"] = {name: ratios(own, rival) for name, rival in rivals.items()}
        found = {metric: [one[metric] for one in result["against"].values() if metric in one] for metric in METRICS}
        result["kept"] = {metric: min(each, key=lambda r: r["ratio"]) for metric, each in found.items() if each}


def ratios(own: Mapping[str, Floats], rival: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """`bootstrap_ratio` of every metric that has one."""
    shared = [m for m in METRICS if m in own and m in rival and not np.isnan(rival[m]).any()]
    found = {metric: bootstrap_ratio(own[metric], rival[metric]) for metric in shared}
    return {metric: ratio for metric, ratio in found.items() if np.isfinite(list(ratio.values())).all()}


def means(values: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """Mean and standard error over queries of every metric that applies."""
    kept = {name: v[~np.isnan(v)] for name, v in values.items()}
    return {
        name: {"mean": float(v.mean()), "stderr": float(v.std(ddof=1) / math.sqrt(len(v)))}
        for name, v in kept.items()
        if len(v) > 1
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--solvers", nargs="+", default=[name for name in SOLVERS if name != "consistency"])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--guidance", type=float, nargs="+", default=[0.0, 0.1, 0.5])
    parser.add_argument("--sigma-max", type=float, nargs="+", default=[None], help="default: the training range")
    parser.add_argument(
        "--rho", type=float, nargs="+", default=[Sampler().rho], help="how a solver's points are spaced"
    )
    parser.add_argument("--students", type=Path, nargs="*", default=[])
    parser.add_argument("--student-calls", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--student-spreads", type=float, nargs="+", default=[1.0], help="docs/retriever.md; costs no call"
    )
    parser.add_argument("--folm", type=int, default=0, help="answers of the policy per query behind folm_share")
    parser.add_argument("--no-reference", action="store_true")
    parser.add_argument("--no-judge", action="store_true")
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=["reward", "diversity"],
        choices=METRICS,
        metavar="METRIC",
        help="of the picture",
    )
    parser.add_argument("--markdown", action="store_true")
    a = parser.parse_args()
    bench = Bench(a.run, a.split, a.queries, a.seeds, judge=not a.no_judge)
    results: list[dict[str, Any]] = []
    values: list[dict[str, Floats]] = []
    if a.folm:
        values.append(bench.folm(a.folm))
        results.append({"name": "r4t_folm", "metrics": means(values[-1])})
    for choice in choices(a):
        found, nfe = bench.draw(choice)
        values.append(found)
        results.append(asdict(choice) | {"curve": choice.curve, "nfe": nfe, "metrics": means(found)})
    compare(results, values)
    head = {"schema": 1, "name": "retriever_calls", "environment": environment(), "run": str(a.run), "split": a.split}
    report = head | {"n_queries": len(bench.queries), "seeds": a.seeds, "folm_answers": a.folm, "results": results}
    if a.json:
        write_json(a.json, report)
    if a.svg:
        a.svg.parent.mkdir(parents=True, exist_ok=True)
        a.svg.write_text(picture(results, a.metrics))
    print(markdown(results) if a.markdown else json.dumps(report))


if __name__ == "__main__":
    main()
