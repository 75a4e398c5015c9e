"""SIMULATION of the reinforcement-learning loop, event by event: who waits for whom when answers differ in length.

The schedule is the loop's own (`r4t.slots` decides what may be sampled, groups are consumed in the order they were
submitted); what a group takes is drawn at random around the given mean. Nothing here was measured on a cluster.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from r4t.slots import SlotBuffer

SKIPPED = 2  # first steps, before the schedule has settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What one step is made of, in seconds."""

    groups: int
    """Groups that a step consumes."""
    group: float
    """One sampler's mean time for one group."""
    train: float
    """All learners' time for a step."""
    sync: float
    """Until the weights are published and everything else of a step is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What the simulation gave, after the first steps."""

    step: float
    """Seconds."""
    samplers_idle: float
    """Share of the samplers' time."""
    learners_idle: float
    """Share of the learners' time."""


def simulate(loop: Loop, samplers: int, staleness: int, steps: int, spread: float, seed: int = 0) -> Simulated:
    """`samplers` take groups as they come free; a group takes log-normal time, `spread` the logarithm's deviation.

    steps: at least three more than the two that are not counted.
    """
    rng = np.random.default_rng(seed)
    slots = SlotBuffer(loop.groups, staleness, max_refill=0)
    free = [0.0] * samplers  # when each sampler has done all it was given
    done: dict[int, float] = {}
    clock, position = 0.0, 0
    ends: list[float] = []
    for _ in range(steps):
        position = _submit(slots, free, done, position, clock, loop.group, spread, rng)
        while not slots.complete:
            clock = max(clock, done[slots.decide(informative=True)])
        slots.take()
        if staleness:
            position = _submit(slots, free, done, position, clock, loop.group, spread, rng)
        clock += loop.train + loop.sync
        slots.publish()
        ends.append(clock)
    step = (ends[-1] - ends[SKIPPED - 1]) / (len(ends) - SKIPPED)
    busy = loop.groups * loop.group / samplers
    return Simulated(step=step, samplers_idle=max(0.0, 1 - busy / step), learners_idle=max(0.0, 1 - loop.train / step))


def _submit(
    slots: SlotBuffer,
    free: list[float],
    done: dict[int, float],
    position: int,
    now: float,
    mean: float,
    spread: float,
    rng: np.random.Generator,
) -> int:
    """Fills the free slots, each group on the sampler that is free first. Returns the next position."""
    heapq.heapify(free)
    for _ in range(slots.free):
        slots.submit(position)
        seconds = mean * float(rng.lognormal(-spread * spread / 2, spread))
        done[position] = max(heapq.heappop(free), now) + seconds
        heapq.heappush(free, done[position])
        position += 1
    return position
