"""Every number of a run as a Prometheus gauge, through the metrics endpoint of the driver's Ray node."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import ray
from ray.util.metrics import Gauge

EVERY = 5.0  # seconds between exports; below any usual scrape interval
LINGER = 120.0  # seconds for which a finished stage's last numbers stay: several scrapes


class Gauges:
    """A sink: `ray_r4t_value{stage="folm", name="idle/rollout"}` and its like, and `ray_r4t_progress_timestamp`.

    The timestamp is when the stage of the label last began, logged numbers or advanced a bar; it ends with the stage.
    Ray's agent forgets a gauge once it was scraped, so that a step of minutes would show in one scrape alone: a thread
    exports all values again until `close`.
    """

    def __init__(self, every: float = EVERY, linger: float = LINGER) -> None:
        self._value = Gauge("r4t_value", "Newest number of a stage", tag_keys=("stage", "name"))
        self._progress = Gauge(
            "r4t_progress_timestamp", "Unix time at which a stage last progressed, in seconds", tag_keys=("stage",)
        )
        self._every, self._linger = every, linger
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str], float] = {}
        self._of: dict[str, str] = {}  # stage of the numbers -> stage of the pipeline: warm_start and valid are folm's
        self._ends: dict[str, float] = {}
        self._stage: str | None = None
        self._at = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="r4t-gauges", daemon=True)
        self._thread.start()

    def began(self, stage: str) -> None:
        """The stage's progress counts from here."""
        with self._lock:
            self._stage, self._at = stage, time.time()
            self._ends.pop(stage, None)
        self._export()

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:  # noqa: ARG002  of every sink
        """Keeps and exports the numbers. One that is not finite ends its series."""
        with self._lock:
            self._at = time.time()
            self._of[stage] = self._stage or stage
            for name, value in values.items():
                if math.isfinite(value):
                    self._values[stage, name] = float(value)
                else:
                    self._values.pop((stage, name), None)
        self._export()

    def advanced(self) -> None:
        """The stage progressed, without a number."""
        with self._lock:
            self._at = time.time()

    def finished(self, stage: str, folder: Path) -> None:  # noqa: ARG002  of every sink
        """Ends the stage's progress at once, so that no alert waits for more of it, and its numbers a little later."""
        with self._lock:
            if self._stage == stage:
                self._stage = None
            self._ends[stage] = time.monotonic() + self._linger

    def close(self) -> None:
        """Ends all series."""
        self._closed.set()
        self._thread.join()

    def _repeat(self) -> None:
        while not self._closed.wait(self._every):
            self._export()

    def _export(self) -> None:
        with self._lock:
            if self._closed.is_set() or not ray.is_initialized():
                return
            now = time.monotonic()
            over = {stage for stage, owner in self._of.items() if self._ends.get(owner, math.inf) <= now}
            for key in [key for key in self._values if key[0] in over]:
                del self._values[key]
            for (stage, name), value in self._values.items():
                self._value.set(value, {"stage": stage, "name": name})
            if self._stage is not None:
                self._progress.set(self._at, {"stage": self._stage})
