"""What tests of `r4t manifest` ask for unless they say otherwise."""

from __future__ import annotations

from typing import Any

from support import ROOT

from cluster.pods import Node

QUICKSTART = ROOT / "configs" / "quickstart.yaml"
NODE = Node(cpus=48, gpus=8, memory_gib=384)
USUAL: dict[str, Any] = {
    "name": None, "run_dir": None, "image": None, "node": NODE, "stage": "all", "namespace": "r4t",
    "queue": "r4t", "items": 5000, "parameters": None,
}  # fmt: skip
