"""What R4T adds to vLLM's own worker process; the engine is told of this class by name."""

from __future__ import annotations

from cluster.seeded_sampling import SeededSampling
from cluster.weight_receiver import WeightReceiver


class EngineExtension(WeightReceiver, SeededSampling):
    """Its methods are called through `collective_rpc`."""
