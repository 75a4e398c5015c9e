"""Whether a configuration's bundles fit the nodes that there are, and the smallest change with which they would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from r4t.config import Config, flatten, parse_config
from r4t.errors import UserError
from r4t.seats import Amounts, amounts, bundles, describe, pools, seats, total

COUNTS = ("rollout.workers", "learner.ranks", "scorer.workers", "index.shards")
SHARES = ("rollout.cpus", "learner.cpus", "scorer.cpus", "scorer.gpus")
GRID = 0.05  # of the shares that are tried
SLACK = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What one node has, or has free."""

    resources: Amounts
    pool: str | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One bundle to place."""

    resources: Amounts
    pool: str | None = None
    roles: tuple[str, ...] = field(default=())


def wanted(config: Config) -> list[Wanted]:
    """The bundles of stage folm."""
    held = seats(config)
    roles: dict[int, list[str]] = {}
    for seat in held:
        roles.setdefault(seat.bundle, []).append(seat.role)
    return [
        Wanted(resources=resources, pool=pool, roles=tuple(roles[i]))
        for i, (resources, pool) in enumerate(zip(bundles(held), pools(held), strict=True))
    ]


def pack(asked: Sequence[Wanted], machines: Sequence[Machine]) -> list[int | None]:
    """The machine of every bundle; None where none had room for it.

    The largest bundle first, those bound to a pool before others, each onto the machine that it fills most, GPUs
    before CPUs: nearly what Ray does.
    """
    free = [dict(machine.resources) for machine in machines]
    found: list[int | None] = [None] * len(asked)
    order = sorted(range(len(asked)), key=lambda i: (*(-x for x in _size(asked[i].resources)), asked[i].pool is None))
    for i in order:
        one = asked[i]
        able = [m for m in range(len(machines)) if _allowed(one, machines[m]) and _holds(free[m], one.resources)]
        if able:
            found[i] = best = min(able, key=lambda m: _size(free[m]))
            free[best] = {name: amount - one.resources.get(name, 0.0) for name, amount in free[best].items()}
    return found


def fits(config: Config, machines: Sequence[Machine]) -> bool:
    """Whether every bundle finds room."""
    asked = wanted(config)
    whole = total([machine.resources for machine in machines])
    return _holds(whole, total([one.resources for one in asked])) and None not in pack(asked, machines)


def hopeless(config: Config, machines: Sequence[Machine]) -> bool:
    """Whether even empty machines cannot hold it however it is dealt: a bundle larger than each, or too much in all."""
    asked = wanted(config)
    have = total([machine.resources for machine in machines])
    if not _holds(have, total([one.resources for one in asked])):
        return True
    return any(not any(_allowed(one, m) and _holds(m.resources, one.resources) for m in machines) for one in asked)


def refusal(config: Config, machines: Sequence[Machine], kind: str = "the cluster has") -> str:
    """What is asked for, what there is, the first bundle without a place, and the smallest changes that fit."""
    asked = wanted(config)
    have = amounts(total([machine.resources for machine in machines])) or "nothing"
    lines = [
        f"it needs {amounts(total([one.resources for one in asked]))}, {kind} {have}"
        f" on {len(machines)} node{'' if len(machines) == 1 else 's'}",
        *describe(config),
    ]
    index = next((i for i, place in enumerate(pack(asked, machines)) if place is None), None)
    if index is not None:
        one = asked[index]
        where = f" on a node labelled pool={one.pool}" if one.pool else ""
        lines.append(
            f"bundle {index} ({' + '.join(one.roles)}) finds no {amounts(one.resources)}{where};"
            f" {_largest(one, machines)}"
        )
    else:
        lines.append("every bundle would find room now, but Ray did not give it in time: try again")
    return "\n".join([*lines, f"the smallest changes that fit: {' | '.join(changes(config, machines))}"])


def changes(config: Config, machines: Sequence[Machine]) -> list[str]:
    """Settings of one key (colocated, of both counts) with which it would fit, the least reduction first; then the
    nodes to add."""
    found = []
    for key in (*COUNTS, *SHARES):
        now = float(flatten(config)[key])
        step = 1.0 if key in COUNTS else GRID
        for n in range(int((now - SLACK) / step), 0 if step == 1.0 or key != "scorer.gpus" else -1, -1):
            names, other = _with(config, key, round(n * step, 2))
            if fits(other, machines) and _taken(other):
                settings = " ".join(f"--set {name}={n * step:g}" for name in names)
                found.append((1 - n * step / now, f"{settings} (now {now:g})"))
                break
    return [text for _, text in sorted(found)[:3]] + [more for more in [nodes_to_add(config, machines)] if more]


def nodes_to_add(config: Config, machines: Sequence[Machine]) -> str:
    """`add 2 nodes of 8 CPUs, 1 GPU`: as large as the largest there is, or as the largest bundle without a place.

    Empty where nothing is missing.
    """
    asked, added = wanted(config), []
    here = list(machines)
    places = pack(asked, here)
    while None in places:
        without = [one for one, place in zip(asked, places, strict=True) if place is None]
        pool = without[0].pool
        size = max((m.resources for m in machines if _allowed(without[0], m)), key=_size, default={})
        need = [one.resources for one in without if one.pool == pool]
        size = {name: max(size.get(name, 0.0), *(one.get(name, 0.0) for one in need)) for name in ("CPU", "GPU")}
        new = Machine(resources={name: amount for name, amount in size.items() if amount}, pool=pool)
        most = max(total(need).get(name, 0.0) / amount for name, amount in new.resources.items())
        count = max(1, math.ceil(most - SLACK))  # fewer cannot do
        here += [new] * count
        added += [f"{amounts(new.resources)}{f', labelled pool={pool}' if pool else ''}"] * count
        places = pack(asked, here)
    kinds = {what: added.count(what) for what in added}
    if not added:
        return ""
    return "add " + " and ".join(f"{n} node{'s' if n > 1 else ''} of {what}" for what, n in kinds.items())


def _with(config: Config, key: str, value: float) -> tuple[list[str], Config]:
    """The configuration with another value, unchecked, and the keys that hold it; colocated, counts are equal."""
    names = [key]
    if config.rollout.colocate and key in ("rollout.workers", "learner.ranks"):
        names = ["rollout.workers", "learner.ranks"]
    for name in names:
        section, _, leaf = name.partition(".")
        changed = getattr(config, section).model_copy(update={leaf: int(value) if name in COUNTS else value})
        config = config.model_copy(update={section: changed})
    return names, config


def _taken(config: Config) -> bool:
    """Whether R4T would run it."""
    try:
        parse_config(config.model_dump(mode="json"))
    except UserError:
        return False
    return True


def _largest(one: Wanted, machines: Sequence[Machine]) -> str:
    able = [machine for machine in machines if _allowed(one, machine)]
    if not able:
        return "no node has that label"
    best = max(able, key=lambda machine: _size(machine.resources))
    return f"the largest such node{f' ({best.name})' if best.name else ''} has {amounts(best.resources) or 'nothing'}"


def _allowed(one: Wanted, machine: Machine) -> bool:
    return one.pool is None or one.pool == machine.pool


def _holds(have: Amounts, need: Amounts) -> bool:
    return all(amount <= have.get(name, 0.0) + SLACK for name, amount in need.items())


def _size(of: Amounts) -> tuple[float, float]:
    return of.get("GPU", 0.0), of.get("CPU", 0.0)
