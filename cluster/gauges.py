"""Every number of a training step as a Prometheus gauge, through the metrics endpoint of the driver's Ray node."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ray.util.metrics import Gauge


class Gauges:
    """`ray_r4t_value{stage="folm", name="idle/rollout"}` and its like."""

    def __init__(self, stage: str) -> None:
        self._gauge = Gauge("r4t_value", "Newest number of a training step", tag_keys=("stage", "name"))
        self._stage = stage

    def set(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self._gauge.set(float(value), {"stage": self._stage, "name": name})
