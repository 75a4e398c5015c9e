"""Packing bundles onto nodes: sound against trying everything, and the change that is named is the smallest."""

from __future__ import annotations

import itertools
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.pods import Node, worker_groups
from jobs.plan import describe as planned
from r4t.config import Config, parse_config
from r4t.errors import UserError
from r4t.footprint import footprints, policy_shape
from r4t.placement import Machine, Wanted, changes, fits, hopeless, nodes_to_add, pack, refusal, wanted
from r4t.seats import bundles, describe, gpus, gpus_held, seats, total

CPUS = st.sampled_from([0.25, 0.5, 1.0, 2.0])
POOLS = st.sampled_from([None, None, "spot", "steady"])
RESOURCES = st.builds(lambda cpus, gpus: {"CPU": cpus, "GPU": gpus}, CPUS, st.sampled_from([0.0, 0.5, 1.0]))
ASKED = st.lists(st.builds(Wanted, resources=RESOURCES, pool=POOLS), min_size=1, max_size=5)
MACHINES = st.lists(st.builds(Machine, resources=RESOURCES, pool=POOLS), max_size=3)


def valid(asked: list[Wanted], machines: list[Machine], places: tuple[int, ...]) -> bool:
    for m, machine in enumerate(machines):
        here = [one for one, place in zip(asked, places, strict=True) if place == m]
        if any(one.pool not in (None, machine.pool) for one in here):
            return False
        sums = total([one.resources for one in here])
        if any(amount > machine.resources[name] + 1e-9 for name, amount in sums.items()):
            return False
    return True


@settings(max_examples=300)
@given(ASKED, MACHINES)
def test_a_packing_is_valid_and_is_found_for_a_single_resource_or_bundle(
    asked: list[Wanted], machines: list[Machine]
) -> None:
    places = pack(asked, machines)
    possible = any(valid(asked, machines, p) for p in itertools.product(range(len(machines)), repeat=len(asked)))
    if None not in places:
        assert valid(asked, machines, tuple(places))  # type: ignore[arg-type]
        assert possible
    elif len(asked) == 1 or len(machines) == 1:
        assert not possible
    placed = [(one, place) for one, place in zip(asked, places, strict=True) if place is not None]
    assert valid([one for one, _ in placed], machines, tuple(place for _, place in placed))


def config(**sections: Any) -> Config:
    return parse_config(sections)


SMALL = config(rollout={"workers": 3, "cpus": 1}, learner={"ranks": 2, "cpus": 0.5}, scorer={"cpus": 0.25})


@settings(max_examples=100)
@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 4.0]), min_size=1, max_size=4), st.integers(1, 6))
def test_the_named_changes_fit_and_smaller_ones_do_not(sizes: list[float], workers: int) -> None:
    asked = config(rollout={"workers": workers, "cpus": 1}, learner={"ranks": 2, "cpus": 0.5}, scorer={"cpus": 0.25})
    machines = [Machine(resources={"CPU": size}) for size in sizes]
    if fits(asked, machines):
        assert nodes_to_add(asked, machines) == ""
        return
    for change in changes(asked, machines):
        if match := re.match(r"--set (\w+)\.(\w+)=(\S+) \(now", change):
            section, key, value = match[1], match[2], float(match[3])
            count = key in ("workers", "ranks")
            assert fits(changed(asked, section, key, value), machines)
            nearer = value + (1 if count else 0.05)
            if nearer < getattr(getattr(asked, section), key) - 1e-9:
                assert not fits(changed(asked, section, key, nearer), machines)
        else:
            added = [
                Machine(resources={"CPU": float(cpus)})
                for n, cpus in re.findall(r"(\d+) nodes? of (\S+) CPU", change)
                for _ in range(int(n))
            ]
            assert added
            assert fits(asked, machines + added)
            assert not fits(asked, machines + added[:-1])
    if hopeless(asked, machines):
        assert not fits(asked, machines)


def changed(asked: Config, section: str, key: str, value: float) -> Config:
    raw = asked.model_dump(mode="json")
    raw[section][key] = int(value) if key in ("workers", "ranks") else round(value, 2)
    return parse_config(raw)


def test_a_refusal_names_the_demand_the_nodes_the_bundle_and_the_changes() -> None:
    said = refusal(SMALL, [Machine(resources={"CPU": 2.0}, name="10.0.0.1"), Machine(resources={"CPU": 1.0})])
    for fragment in (
        "it needs 4.25 CPUs, the cluster has 3 CPUs on 2 nodes",
        "  0-2  rollout: 1 CPU",
        "  3-4  learner: 0.5 CPUs",
        "bundle 3 (learner) finds no 0.5 CPUs; the largest such node (10.0.0.1) has 2 CPUs",
        "--set rollout.cpus=0.5 (now 1)",
        "--set rollout.workers=1 (now 3)",
        "add 1 node of 2 CPUs",
    ):
        assert fragment in said


def test_a_pool_without_nodes_is_hopeless_and_its_nodes_are_asked_for() -> None:
    asked = config(rollout={"workers": 2, "cpus": 1, "pool": "spot"})
    machines = [Machine(resources={"CPU": 64.0})]
    assert hopeless(asked, machines)
    said = refusal(asked, machines)
    assert "on a node labelled pool=spot; no node has that label" in said
    assert "add 2 nodes of 1 CPU, labelled pool=spot" in said


def test_what_empty_machines_could_hold_in_another_order_is_not_hopeless() -> None:
    assert not hopeless(SMALL, [Machine(resources={"CPU": 4.25})])
    assert hopeless(SMALL, [Machine(resources={"CPU": 4.2})])
    assert hopeless(SMALL, [Machine(resources={"CPU": 0.9})] * 9)  # no node holds a rollout worker


def test_hundreds_of_bundles_are_refused_within_seconds() -> None:
    began = time.process_time()
    said = refusal(config(rollout={"workers": 500, "cpus": 1}), [Machine(resources={"CPU": 2.0})])
    assert time.process_time() - began < 20
    assert "--set rollout.workers=1 (now 500)" in said
    assert re.search(r"add \d+ nodes of 2 CPUs", said)


def test_colocated_counts_change_together() -> None:
    asked = config(cluster={"device": "cuda"}, rollout={"workers": 4, "colocate": True}, learner={"ranks": 4})
    said = changes(asked, [Machine(resources={"CPU": 64.0, "GPU": 2.0})])
    assert "--set rollout.workers=2 --set learner.ranks=2 (now 4)" in said
    assert said[-1] == "add 1 node of 64 CPUs, 2 GPUs"


def test_a_description_names_every_kind_of_bundle_and_its_pool() -> None:
    asked = config(
        cluster={"device": "cuda"}, rollout={"workers": 2, "colocate": True, "cpus": 2, "pool": "spot"},
        learner={"ranks": 2, "cpus": 1, "pool": "spot"}, scorer={"gpus": 0.5, "cpus": 0.5},
    )  # fmt: skip
    assert describe(asked) == [
        "placement group: 3 bundles, 6.5 CPUs, 2.5 GPUs in all, packed onto few nodes (PACK)",
        "  0-1  rollout + learner: 3 CPUs, 1 GPU, on nodes labelled pool=spot",
        "  2  scorer: 0.5 CPUs, 0.5 GPUs",
    ]
    assert [one.roles for one in wanted(asked)] == [("rollout", "learner")] * 2 + [("scorer",)]


@settings(max_examples=60)
@given(
    workers=st.integers(1, 6), ranks=st.integers(1, 6), scorers=st.integers(1, 4), shards=st.sampled_from([1, 3]),
    share=st.sampled_from([0, 0.25, 0.5, 1]), colocate=st.booleans(), retriever=st.sampled_from([1, 4]),
)  # fmt: skip
def test_the_plan_and_the_manifest_count_the_same_gpus_and_ranks(
    workers: int, ranks: int, scorers: int, shards: int, share: float, colocate: bool, retriever: int
) -> None:
    asked = config(
        cluster={"device": "cuda"}, rollout={"workers": ranks if colocate else workers, "colocate": colocate},
        learner={"ranks": ranks}, scorer={"workers": scorers, "gpus": share}, index={"shards": shards},
        retriever={"ranks": retriever, "batch": 64},
    )  # fmt: skip
    held = sum(bundle.get("GPU", 0.0) for bundle in bundles(seats(asked)))
    assert held <= gpus_held(asked) < held + 1
    memory = footprints(asked, policy_shape(asked.policy), items=1000)
    (group,) = worker_groups(asked, Node(cpus=1000, gpus=100, memory_gib=10_000), memory)
    assert group.gpus == max(gpus_held(asked), retriever * gpus("learner", asked))
    plan = planned(asked, items=1000, queries=100, gpus=gpus_held(asked))
    assert plan["memory_gib"]["retriever"]["actors"] == retriever
    assert plan["placement"] == describe(asked)
    with pytest.raises(UserError, match=f"need {gpus_held(asked)} GPUs and {gpus_held(asked) - 1} are given"):
        planned(asked, items=1000, queries=100, gpus=gpus_held(asked) - 1)


def test_the_plan_refuses_seats_that_a_run_would_refuse() -> None:
    asked = config(
        cluster={"device": "cuda"}, rollout={"workers": 2, "colocate": True, "pool": "spot"}, learner={"ranks": 2}
    )
    with pytest.raises(UserError, match=r"rollout\.pool"):
        planned(asked, items=1000, queries=100)


def test_the_best_split_leaves_gpus_to_scorers() -> None:
    asked = config(cluster={"device": "cuda"}, scorer={"workers": 2, "gpus": 0.5})
    rows = {row["gpus"]: row for row in planned(asked, items=1000, queries=100)["scaling"]}
    assert rows[1] == {"gpus": 1}
    assert rows[4]["learner_ranks"] + (0 if rows[4]["colocate"] else rows[4]["rollout_workers"]) == 3
