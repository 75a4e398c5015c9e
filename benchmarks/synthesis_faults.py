"""Kills parts of stage 2 at random moments, and compares what stands in the end with a run that was left alone.

    python -m benchmarks.synthesis_faults RUN [--kills 20] [--seed 0] [--victims engine scorer driver node]
        [--set A.B=C]

RUN is a run directory whose stage 1 is done. Its stage 2 runs in copies beside it: once without a fault, then with
SIGKILL to an engine's process, a scorer's (which writes), the driver, or a Ray node. A killed driver is started again.
Where nodes are killed, it runs on a cluster of two Ray nodes of this machine, and the second is killed and replaced.
Each has two CPUs: with `--set rollout.workers=2 --set rollout.cpus=1.5` either has an engine. Prints JSON; fails where
a file differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

from benchmarks.environment import environment
from cluster.session import ENVIRONMENT
from jobs.run import save_config
from r4t.config import load_config
from r4t.errors import UserError
from r4t.lineage import is_finished
from r4t.sets.reader import shard_paths
from r4t.verify import verify

R4T = str(Path(sys.executable).with_name("r4t"))
ACTORS = {"engine": "ShardSampler", "scorer": "ShardScorer"}
VICTIMS = (*ACTORS, "driver", "node")
PATIENCE = 900.0  # seconds without a new shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    victim: str
    shards: int
    """Shards that stood at that moment."""


def fork(base: Path, folder: Path, overrides: Sequence[str] = ()) -> Path:
    """A run directory that has the stages before this one of `base`, and its configuration but for `overrides`."""
    for name in ("prepare", "folm"):
        shutil.copytree(base / name, folder / name)
    save_config(folder, load_config(base / "config.yaml", list(overrides)))
    return folder


class Driver:
    """`r4t run --stage sets` in `folder`; what it says goes to `<folder>.log`."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.excused = 0  # failures that a lost node explains: Ray may have seated the driver there
        self.command = [R4T, "run", str(folder / "config.yaml"), "--run-dir", str(folder), "--stage", "sets"]
        self.command += ["--address", address]
        self.start()

    def start(self) -> None:
        with self.folder.with_suffix(".log").open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def check(self) -> None:
        """Raises RuntimeError with the end of its log where it failed; starts it again where a node was lost."""
        if self.process.poll() in (None, 0):
            return
        if self.excused:
            self.excused -= 1
            self.start()
        else:
            raise RuntimeError(f"the run failed:\n{self.folder.with_suffix('.log').read_text()[-4000:]}")


def wait_until(condition: Callable[[], bool], driver: Driver) -> None:
    """Polls until `condition`. Raises RuntimeError when the driver fails or makes no shard for `PATIENCE` seconds."""
    stood, since = -1, time.monotonic()
    while not condition():
        driver.check()
        if (now := standing(driver.folder)) != stood:
            stood, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise RuntimeError(f"{driver.folder}: no new shard in {PATIENCE:g} s")
        time.sleep(0.02)


def standing(folder: Path) -> int:
    return len(shard_paths(folder / "sets"))


def has_more_than(shards: int, folder: Path) -> bool:
    """Whether more shards stand than before, or all of them."""
    return standing(folder) > shards or is_finished(folder / "sets")


def actors(name: str) -> list[psutil.Process]:
    """The Ray actors below this process that run the class `name`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if f"(Map({name}))" in " ".join(process.cmdline()):
                found.append(process)
    return found


class Nodes:
    """A head, and a second node that may go."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "env_vars": ENVIRONMENT})
        self.second = self.add()

    def add(self) -> object:
        return self.cluster.add_node(num_cpus=2, env_vars=ENVIRONMENT)

    def replace(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = self.add()


def strike(victim: str, driver: Driver, nodes: Nodes | None, rng: random.Random) -> bool:
    """Kills it. False where there is nothing of the kind at this moment."""
    if victim == "driver":
        driver.kill()
        driver.start()
    elif victim == "node" and nodes:
        nodes.replace()
        driver.excused += 1
    else:
        found = actors(ACTORS[victim])
        if not found:
            return False
        rng.choice(found).send_signal(signal.SIGKILL)
    return True


def with_faults(
    folder: Path,
    victims: Sequence[str] = (),
    seed: int = 0,
    nodes: Nodes | None = None,
    pause: float = 1.0,
) -> list[Kill]:
    """Runs stage 2 in `folder` to its end and kills `victims` in turn: each after one more shard and a random part of
    `pause` seconds. While a scorer comes back its engine goes on, so a short run's later victims may find it finished.

    Without `nodes` every driver has a local Ray of its own.
    """
    rng = random.Random(seed)
    driver = Driver(folder, nodes.cluster.address if nodes else "local")
    kills: list[Kill] = []
    for victim in victims:
        grown = partial(has_more_than, standing(folder), folder)
        wait_until(grown, driver)
        time.sleep(rng.uniform(0.0, pause))
        while not is_finished(folder / "sets"):
            driver.check()
            if strike(victim, driver, nodes, rng):
                kills.append(Kill(victim=victim, shards=standing(folder)))
                break
            time.sleep(0.1)
    wait_until(lambda: driver.process.poll() == 0, driver)
    return kills


def differences(one: Path, other: Path) -> list[str]:
    """Names of the shards' files that are not the same bytes in both runs."""
    names = sorted({path.name for folder in (one, other) for path in (folder / "sets").glob("shard-*")})
    return [name for name in names if _bytes(one / "sets" / name) != _bytes(other / "sets" / name)]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C")
    a = parser.parse_args()
    order = [a.victims[i % len(a.victims)] for i in range(a.kills)]
    random.Random(a.seed).shuffle(order)
    with tempfile.TemporaryDirectory(dir=a.run.resolve().parent) as temporary:
        whole, broken = (fork(a.run, Path(temporary) / name, a.overrides) for name in ("whole", "broken"))
        nodes = Nodes() if "node" in order else None
        try:
            with_faults(whole, (), a.seed, nodes=nodes)
            kills = with_faults(broken, order, a.seed, nodes=nodes)
        finally:
            if nodes:
                nodes.cluster.shutdown()
        problems = differences(whole, broken) + verify(broken / "sets")
        shards = standing(broken)
    if problems:
        raise UserError(f"{len(problems)} files differ after {len(kills)} kills: {', '.join(problems[:5])}")
    result = {
        "kills": len(kills),
        "wanted": a.kills,
        "of": Counter(kill.victim for kill in kills),
        "shards": shards,
        "shards_at_kills": [kill.shards for kill in kills],
        "files_that_differ": 0,
    }
    print(json.dumps({"schema": 1, "name": "synthesis_faults", "environment": environment(), "results": [result]}))


if __name__ == "__main__":
    main()
