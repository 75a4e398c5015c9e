"""The actors of the reinforcement-learning stage, and their restart when they die or hang.

A rollout worker or a scorer holds nothing that is not elsewhere, so a new one takes its seat. Learner ranks hold the
policy and its optimiser: when one is lost the whole group starts again, and the caller goes back to its checkpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray

from cluster.devices import role_environment
from cluster.index_shards import start_shards
from cluster.launch import LOST, ActorsLost, gather, launch_group
from cluster.learner import PolicyLearner
from cluster.roles import Placement
from cluster.rollout_actor import seat_rollout
from cluster.scorer import RewardScorer
from cluster.weights import WeightChannel
from r4t.config import Config

T = TypeVar("T")
LEARNERS = "learner ranks"
PROMPT = 5.0  # seconds: a dead actor fails a call at once, a busy one just does not answer yet


class Actors:
    """Every actor of the stage on its seat. The three lists are changed in place, so whoever holds one stays current.

    Raises RuntimeError when one seat was filled again more than `cluster.max_restarts` times.
    """

    def __init__(
        self,
        config: Config,
        placement: Placement,
        prepare: Path,
        model_dir: Path,
        say: Callable[[str], None],
        roll: Any = None,
    ) -> None:
        """roll: of `shard_roll`."""
        self.config, self.placement, self.prepare, self.model_dir = config, placement, prepare, model_dir
        self.say = say
        self.restarts: Counter[str] = Counter()
        """How often each seat was filled again."""
        self.shards = start_shards(placement, prepare, config, roll)
        self.scorers = [self._start_scorer(i) for i in range(config.scorer.workers)]
        self.learners = self._start_learners()
        self.rollouts = [self._start_rollout(i) for i in range(config.rollout.workers)]

    def restart_rollout(self, index: int, channel: WeightChannel, why: str) -> None:
        """Puts a new rollout worker on the seat, brings it to the current weights and lets it answer once."""
        self._count(f"rollout worker {index}", why)
        ray.kill(self.rollouts[index])
        worker = self.rollouts[index] = self._start_rollout(index)
        load = channel.load(worker)
        probe = worker.generate.remote([(0, "check")], samples=1, temperature=1.0, seed=0)
        try:
            _, answers = gather([load, probe], self.config, f"restarted rollout worker {index}, to load and to answer:")
        except ActorsLost as lost:
            self.restart_rollout(index, channel, str(lost))
            return
        if [answer.policy_version for answer in answers] != [channel.version]:
            raise RuntimeError(f"the restarted rollout worker {index} does not answer with weights {channel.version}")

    def restart_scorer(self, index: int, why: str) -> None:
        """Puts a new scorer on the seat and lets it score once."""
        self._count(f"scorer {index}", why)
        ray.kill(self.scorers[index])
        scorer = self.scorers[index] = self._start_scorer(index)
        try:
            (scored,) = gather([scorer.score.remote([0], ["check"])], self.config, f"restarted scorer {index}:")
        except ActorsLost as lost:
            self.restart_scorer(index, str(lost))
            return
        if len(scored.rewards) != 1:
            raise RuntimeError(f"the restarted scorer {index} gave {len(scored.rewards)} rewards for one answer")

    def surviving(self, work: Callable[[], T]) -> T:
        """Runs `work`; each time learner ranks are lost, starts the whole group again and `work` from its beginning."""
        while True:
            try:
                return work()
            except ActorsLost as lost:
                if not lost.who.startswith(LEARNERS):
                    raise
                self._count("learner group", str(lost))
                for learner in self.learners:
                    ray.kill(learner)
                self.learners[:] = self._start_learners()
                self._replace_dead_rollouts()

    def stop(self) -> None:
        """Ends every actor where it stands; going out of scope, each would first take what it imported to pieces."""
        for actor in [*self.learners, *self.rollouts, *self.scorers, *self.shards]:
            ray.kill(actor)

    def _replace_dead_rollouts(self) -> None:
        """A worker may have died with the learners that were sending it weights; `work` publishes to all anew."""
        for index, call in enumerate([worker.__ray_ready__.remote() for worker in self.rollouts]):
            if ray.wait([call], timeout=PROMPT)[0]:
                try:
                    ray.get(call)
                except LOST as error:
                    self._count(f"rollout worker {index}", f"died ({type(error).__name__})")
                    self.rollouts[index] = self._start_rollout(index)

    def _count(self, seat: str, why: str) -> None:
        limit = self.config.cluster.max_restarts
        if self.restarts[seat] >= limit:
            raise RuntimeError(f"{seat} is lost again ({why}), after {limit} restarts (cluster.max_restarts)")
        self.restarts[seat] += 1
        self.say(f"folm: {seat} is lost ({why}): restart {self.restarts[seat]} of at most {limit}")

    def _start_learners(self) -> list[Any]:
        return launch_group(PolicyLearner, self.config, ranks=self.config.learner.ranks, placement=self.placement)

    def _start_rollout(self, index: int) -> Any:
        return seat_rollout(self.config, self.model_dir, self.placement, index)

    def _start_scorer(self, index: int) -> Any:
        seat, env = self.placement.of("scorer")[index], role_environment("scorer", self.config)
        scorer = ray.remote(RewardScorer).options(**self.placement.options(seat, env))
        return scorer.remote(self.prepare, self.config, self.shards)
