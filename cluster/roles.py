"""Roles and where they run: one placement group for the whole reinforcement-learning stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from r4t.config import Config
from r4t.errors import UserError
from r4t.placement import Machine, hopeless, refusal
from r4t.seats import Role, Seat, bundles, pools, seats

POOL = "pool"  # the label of Ray nodes that `rollout.pool` and its like select


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


def place(config: Config) -> Placement:
    """Reserves all seats at once.

    Raises UserError that says what is missing and the smallest change that fits: at once where the nodes that are up
    can never hold the run, and after `cluster.placement_timeout` where others hold what it needs.
    """
    wanted = seats(config)
    whole = machines(free=False)
    if hopeless(config, whole):
        raise UserError(f"no place for this run: {refusal(config, whole)}")
    selectors = [{POOL: pool} if pool else {} for pool in pools(wanted)]
    group = placement_group(bundles(wanted), strategy="PACK", bundle_label_selector=selectors)
    if not group.wait(config.cluster.placement_timeout):
        free = machines(free=True)
        remove_placement_group(group)
        said = refusal(config, free, kind="and free are")
        raise UserError(
            f"no place for this run: {said}\nwaited {config.cluster.placement_timeout:g} s"
            " (cluster.placement_timeout): raise it, or let other jobs end"
        )
    return Placement(group=group, seats=wanted)


def machines(free: bool) -> list[Machine]:
    """The nodes that are up, with what each has in all, or free at this moment."""
    left = available_resources_per_node()
    return [
        Machine(
            resources={
                name: amount
                for name, amount in (left.get(node["NodeID"], {}) if free else node["Resources"]).items()
                if name in ("CPU", "GPU")
            },
            pool=node["Labels"].get(POOL),
            name=node["NodeManagerAddress"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
