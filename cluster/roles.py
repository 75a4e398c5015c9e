"""Roles and where they run: one placement group for the whole reinforcement-learning stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.devices import Role, gpus, shares_gpus
from r4t.config import Config
from r4t.errors import UserError

POOL = "pool"  # the label of Ray nodes that `rollout.pool` and its like select


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One actor's place: its bundle in the group and what it holds."""

    role: Role
    bundle: int
    cpus: float
    gpus: float
    pool: str | None = None
    """Value of the label `pool` that its node must have; None: any node."""

    @property
    def resources(self) -> dict[str, float]:
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    group: PlacementGroup
    seats: tuple[Seat, ...]

    def options(self, seat: Seat, env: dict[str, str]) -> dict[str, Any]:
        """Ray actor options that put an actor on its seat with its environment."""
        return {
            "num_cpus": seat.cpus,
            "num_gpus": seat.gpus,
            "runtime_env": {"env_vars": env},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self.group, placement_group_bundle_index=seat.bundle
            ),
        }

    def of(self, role: Role) -> list[Seat]:
        return [seat for seat in self.seats if seat.role == role]

    def release(self) -> None:
        remove_placement_group(self.group)


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


def bundles(wanted: tuple[Seat, ...]) -> list[dict[str, float]]:
    """Resources of every bundle: the sum of its seats."""
    by_index: dict[int, list[Seat]] = {}
    for seat in wanted:
        by_index.setdefault(seat.bundle, []).append(seat)
    return [_total(tuple(by_index[i])) for i in sorted(by_index)]


def pools(wanted: tuple[Seat, ...]) -> list[str | None]:
    """The pool of every bundle, in the order of `bundles`."""
    by_index = {seat.bundle: seat.pool for seat in wanted}
    return [by_index[i] for i in sorted(by_index)]


def place(config: Config) -> Placement:
    """Reserves all seats at once. Raises UserError that names what is missing when the cluster is too small."""
    wanted = seats(config)
    demand = _total(wanted)
    available = ray.cluster_resources()
    for resource, amount in demand.items():
        have = available.get(resource, 0.0)
        if amount > have + 1e-9:
            raise UserError(
                f"the run needs {amount:g} {resource}s ({_explain(config, resource)}), the cluster has {have:g}:"
                f" lower rollout.workers, learner.ranks, index.shards or their cpus, or add nodes"
            )
    selectors = [{POOL: pool} if pool else {} for pool in pools(wanted)]
    group = placement_group(bundles(wanted), strategy="PACK", bundle_label_selector=selectors)
    if not group.wait(config.cluster.placement_timeout):
        remove_placement_group(group)
        asked = sorted({pool for pool in pools(wanted) if pool})
        where = (
            f" on nodes labelled {', '.join(f'{POOL}={pool}' for pool in asked)} (rollout.pool, ...)" if asked else ""
        )
        raise UserError(
            f"no place for {demand}{where} within {config.cluster.placement_timeout:g} s, free:"
            f" {ray.available_resources()}; wait for other jobs to end or raise cluster.placement_timeout"
        )
    return Placement(group=group, seats=wanted)


def _total(wanted: tuple[Seat, ...]) -> dict[str, float]:
    demand: dict[str, float] = {}
    for seat in wanted:
        for name, amount in seat.resources.items():
            demand[name] = demand.get(name, 0.0) + amount
    return demand


def _explain(config: Config, resource: str) -> str:
    parts = [
        f"{len(members)} x {role} at {getattr(members[0], 'cpus' if resource == 'CPU' else 'gpus'):g}"
        for role in ("rollout", "learner", "scorer", "shard")
        if (members := [seat for seat in seats(config) if seat.role == role])
    ]
    return ", ".join(parts)
