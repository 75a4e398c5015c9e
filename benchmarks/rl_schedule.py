"""SIMULATION: what one-step-off training gains on clusters that this machine is not, from phase times measured on it.

    python -m benchmarks.rl_throughput RUN > throughput.json
    python -m benchmarks.rl_schedule throughput.json [--machines 4 8 16 32 64] [--steps 40]

M machines like the measured one: some sample, the others train, and a step has M times the measured batch. For every M
and both modes the best split is searched. The schedule is the loop's own: its slot buffer decides what may be sampled.
Sampling a query's group takes the measured seconds, spread log-normally (`--spread`: the standard deviation of the
logarithm); training divides evenly over its machines. `shared` is the third way to use M machines: all sample, then
all train, and nothing overlaps or idles. Prints JSON, labelled as simulation.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r4t import schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Seconds of the whole measured machine for one batch of `groups`."""

    groups: int
    rollout: float
    train: float
    sync: float


def simulate(phases: Phases, samplers: int, learners: int, staleness: int, steps: int, spread: float) -> float:
    """Seconds per step when `samplers` machines sample and `learners` train, after the first two steps."""
    machines = samplers + learners
    loop = schedule.Loop(
        groups=phases.groups * machines,
        group=phases.rollout / phases.groups,
        train=phases.train * machines / learners,
        sync=phases.sync,
    )
    return schedule.simulate(loop, samplers, staleness, steps, spread).step


def best(phases: Phases, machines: int, staleness: int, steps: int, spread: float) -> dict[str, Any]:
    """The split of `machines` with the shortest step."""
    seconds = {s: simulate(phases, s, machines - s, staleness, steps, spread) for s in range(1, machines)}
    samplers = min(seconds, key=seconds.__getitem__)
    return {"samplers": samplers, "learners": machines - samplers, "seconds_per_step": seconds[samplers]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("throughput", type=Path)
    parser.add_argument("--machines", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--spread", type=float, default=0.3)
    a = parser.parse_args()
    measured = json.loads(a.throughput.read_text())["results"][0]
    side = measured["r4t_synchronous"]
    wall = side["seconds_per_batch"]
    phases = Phases(
        groups=measured["queries_per_step"],
        rollout=wall * side["share/rollout"],
        train=wall * side["share/train"],
        sync=wall * side["share/sync"],
    )
    rows = []
    for machines in a.machines:
        synchronous, one_off = (best(phases, machines, staleness, a.steps, a.spread) for staleness in (0, 1))
        rows.append(
            {
                "machines": machines,
                "synchronous": synchronous,
                "one_step_off": one_off,
                "ratio": synchronous["seconds_per_step"] / one_off["seconds_per_step"],
                "shared_seconds_per_step": phases.rollout + phases.train + phases.sync,
            }
        )
    setting = {"simulation": True, "phases": {name: getattr(phases, name) for name in Phases.__slots__}}
    setting |= {"steps": a.steps, "spread": a.spread}
    print(json.dumps({"schema": 1, "name": "rl_schedule", "results": [setting | {"clusters": rows}]}))


if __name__ == "__main__":
    main()
