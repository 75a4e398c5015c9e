"""Which actors a configuration asks for, what each holds, and which of them share a bundle. Plain arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from r4t.config import Config
from r4t.errors import UserError

Role = Literal["rollout", "learner", "scorer", "shard"]
Amounts = dict[str, float]  # of CPU and GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One actor's place: its bundle in the placement group and what it holds."""

    role: Role
    bundle: int
    cpus: float
    gpus: float
    pool: str | None = None
    """Value of the label `pool` that its node must have; None: any node."""

    @property
    def resources(self) -> Amounts:
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


def gpus(role: Role, config: Config) -> float:
    """GPUs one actor of `role` holds; colocated, a learner rank and a rollout worker share one."""
    if config.cluster.device == "cpu":
        return 0.0
    if role in ("scorer", "shard"):
        return config.scorer.gpus
    if shares_gpus(config):
        return 0.5
    return float(config.rollout.tensor_parallel) if role == "rollout" else 1.0


def shares_gpus(config: Config) -> bool:
    """Whether each learner rank has a rollout worker on its GPU."""
    return config.cluster.device != "cpu" and config.rollout.colocate


def seats(config: Config) -> tuple[Seat, ...]:
    """Every actor of the reinforcement-learning stage, one bundle each; colocated, learner i joins rollout worker i."""
    rollout, learner, scorer = config.rollout, config.learner, config.scorer
    plan: list[tuple[Role, int, float, str | None]] = [
        ("rollout", rollout.workers, rollout.cpus, rollout.pool),
        ("learner", learner.ranks, learner.cpus, learner.pool),
        ("scorer", scorer.workers, scorer.cpus, scorer.pool),
        ("shard", config.index.shards if config.index.shards > 1 else 0, scorer.cpus, scorer.pool),
    ]
    roles = [(role, cpus, pool) for role, count, cpus, pool in plan for _ in range(count)]
    shared = rollout.workers if shares_gpus(config) else 0
    if shared and rollout.pool != learner.pool:
        raise UserError(
            f"rollout.colocate seats learner ranks beside rollout workers, but rollout.pool is {rollout.pool!r} and"
            f" learner.pool {learner.pool!r}: make them equal"
        )
    return tuple(
        Seat(role=r, bundle=i if i < shared else i - shared, cpus=c, gpus=gpus(r, config), pool=p)
        for i, (r, c, p) in enumerate(roles)
    )


def bundles(wanted: Sequence[Seat]) -> list[Amounts]:
    """Resources of every bundle: the sum of its seats."""
    return [total([seat.resources for seat in held]) for held in _by_bundle(wanted)]


def pools(wanted: Sequence[Seat]) -> list[str | None]:
    """The pool of every bundle, in the order of `bundles`."""
    return [held[0].pool for held in _by_bundle(wanted)]


def total(amounts: Sequence[Amounts]) -> Amounts:
    """The sum, resource by resource."""
    names = sorted({name for one in amounts for name in one})
    return {name: sum(one.get(name, 0.0) for one in amounts) for name in names}


def describe(config: Config) -> list[str]:
    """How the configuration becomes bundles of one placement group, for people: a line per kind of bundle."""
    wanted = seats(config)
    lines: dict[str, list[int]] = {}
    for index, held in enumerate(_by_bundle(wanted)):
        pool = f", on nodes labelled pool={held[0].pool}" if held[0].pool else ""
        what = f"{' + '.join(seat.role for seat in held)}: {amounts(total([s.resources for s in held]))}{pool}"
        lines.setdefault(what, []).append(index)
    demand = [seat.resources for seat in wanted]
    count = sum(len(indices) for indices in lines.values())
    head = f"placement group: {count} bundles, {amounts(total(demand))} in all, packed onto few nodes (PACK)"
    return [head, *(f"  {_range(indices)}  {what}" for what, indices in lines.items())]


def amounts(of: Amounts) -> str:
    """`1.5 CPUs, 1 GPU`."""
    return ", ".join(f"{value:g} {name}{'' if value == 1 else 's'}" for name, value in of.items())


def gpus_held(config: Config) -> int:
    """Whole GPUs that stage folm needs: shares of less than one lie beside each other on a GPU."""
    whole, spare = 0, 0.0
    for share in sorted((bundle.get("GPU", 0.0) for bundle in bundles(seats(config))), reverse=True):
        if share > spare + 1e-9:  # shares are 1 or that of scorers and shards, so the last GPU alone has room
            whole, spare = whole + 1, 1.0
        spare -= share
    return whole


def retriever_ranks(config: Config) -> int:
    """Ranks of the retrievers that train at once: without GPUs the one to compare trains beside the other."""
    alone = gpus("learner", config) > 0 or not config.evaluate.zero_shot_diffusion
    return config.retriever.ranks * (1 if alone else 2)


def _by_bundle(wanted: Sequence[Seat]) -> list[list[Seat]]:
    found: dict[int, list[Seat]] = {}
    for seat in wanted:
        found.setdefault(seat.bundle, []).append(seat)
    return [found[index] for index in sorted(found)]


def _range(indices: list[int]) -> str:
    first, last = indices[0], indices[-1]
    return f"{first}" if first == last else f"{first}-{last}" if last - first + 1 == len(indices) else f"{indices}"
