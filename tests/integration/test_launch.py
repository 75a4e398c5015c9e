"""Waiting for remote calls: whoever is dead or late is named, and an actor's own error is told apart from a loss."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster import single_rollout
from cluster.launch import ActorsLost, gather
from cluster.preemption import Notices
from cluster.session import start
from r4t.config import Config, parse_config

pytestmark = pytest.mark.slow


def worker_class() -> type:
    """Made here, not at the top, so that Ray ships it whole: its workers cannot import a test file."""

    class Worker:
        def __init__(self, broken: bool = False) -> None:
            if broken:
                raise ValueError("cannot start")

        def answer(self, value: Any, seconds: float = 0.0) -> Any:
            time.sleep(seconds)
            return value

        def fail(self) -> None:
            raise ValueError("a bug")

        def die(self) -> None:
            os._exit(1)

    return Worker


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    start("local")
    yield
    ray.shutdown()


def worker(**arguments: Any) -> Any:
    return ray.remote(worker_class()).options(num_cpus=0).remote(**arguments)


def slow_engine_class() -> type:
    """The first is lost as soon as it is asked; those after it take 6 seconds to start, and 6 to answer."""

    class SlowEngine:
        def __init__(self, mark: Path) -> None:
            self.first = not mark.exists()
            mark.touch()
            time.sleep(0 if self.first else 6)

        def generate(self, queries: list[Any], **_: Any) -> list[Any]:
            if self.first:
                os._exit(1)
            time.sleep(6)
            return queries

    return SlowEngine


def limit(seconds: float) -> Config:
    return parse_config({"cluster": {"call_timeout": seconds}})


def test_results_keep_their_order() -> None:
    calls = [worker().answer.remote(i, seconds=0.2 * (2 - i)) for i in range(3)]
    assert gather(calls, limit(120), "workers") == [0, 1, 2]


def test_a_dead_actor_is_named_at_once_though_its_neighbour_hangs() -> None:
    began = time.monotonic()
    hanging, dead = worker(), worker()
    ray.get([hanging.answer.remote(0), dead.answer.remote(0)])
    with pytest.raises(ActorsLost, match=r"ranks \[1\] of 2 died") as caught:
        gather([hanging.answer.remote(0, seconds=600), dead.die.remote()], limit(600), "ranks")
    assert (caught.value.who, caught.value.missing, caught.value.argument) == ("ranks", (1,), False)
    assert time.monotonic() - began < 300


def test_whoever_is_late_is_named() -> None:
    quick, slow = worker(), worker()
    ray.get([quick.answer.remote(0), slow.answer.remote(0)])
    calls = [quick.answer.remote(0), slow.answer.remote(0, seconds=600)]
    with pytest.raises(ActorsLost, match=r"scorers \[1\] of 2 did not answer within 3 s \(cluster\.call_timeout\)"):
        gather(calls, limit(3), "scorers")


def test_an_actors_own_error_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="a bug"):
        gather([worker().answer.remote(0), worker().fail.remote()], limit(120), "workers")


def test_a_dead_rank_is_the_cause_though_its_neighbour_fails_first() -> None:
    first, dead = worker(), worker()
    ray.get([first.answer.remote(0), dead.answer.remote(0)])
    dying = dead.answer.remote(0, seconds=2)
    calls = [first.fail.remote(), dead.die.remote()]
    with pytest.raises(ActorsLost, match=r"\[1\] of 2 died"):
        gather(calls, limit(120), "ranks")
    ray.wait([dying], timeout=30)


def test_a_lost_input_is_not_the_fault_of_the_actor_that_waited_for_it() -> None:
    source, sink = worker(), worker()
    ray.get([source.answer.remote(0), sink.answer.remote(0)])
    passed_on = sink.answer.remote(source.die.remote())
    with pytest.raises(ActorsLost, match="lost its input") as caught:
        gather([passed_on], limit(120), "scorers")
    assert caught.value.argument
    assert gather([sink.answer.remote(5)], limit(120), "scorers") == [5]


def test_a_dead_actor_has_no_node_to_leave() -> None:
    living, dead = worker(), worker()
    ray.get(living.answer.remote(0))
    ray.kill(dead)
    notices = Notices([living, dead])
    assert notices.nodes == {ray.get_runtime_context().get_node_id()}
    assert notices.leaving() == ""


def test_a_constructor_that_raises_is_no_loss() -> None:
    with pytest.raises(ray.exceptions.ActorDiedError, match="cannot start"):
        gather([worker(broken=True).answer.remote(0)], limit(120), "workers")


def test_starting_another_engine_takes_nothing_from_the_time_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ray.remote(slow_engine_class()).options(num_cpus=0)
    monkeypatch.setattr(single_rollout, "start_rollout", lambda *_: engine.remote(tmp_path / "mark"))
    said: list[str] = []
    worker = single_rollout.SingleRollout(limit(11), tmp_path, said.append)
    assert worker.generate([(0, "tea")], 1, 1.0, 0) == [(0, "tea")]
    assert len(said) == 1, said
