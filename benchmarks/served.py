"""Servers that a benchmark starts for itself, either way of serving, and catalogues as large as it wants."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import psutil

from cluster.ports import free_port
from r4t.lineage import MANIFEST, read_json, read_manifest, write_manifest
from r4t.retriever.files import DESCRIPTION, ITEMS, read_items, write_items

ANSWERING = ("ray::ServeReplica", "ray::ProxyActor")  # processes of Ray Serve through which a request goes


@dataclass(frozen=True, slots=True)
class Way:
    """Of serving: one process, or Ray Serve with replicas of half a core each, so that two fit beside Ray's own."""

    ray: bool = False
    replicas: int = 1
    engine: Literal["onnx", "torch"] = "onnx"

    def options(self) -> list[str]:
        if not self.ray:
            return ["--lite", "--port", "0"]
        port = str(free_port("127.0.0.1"))  # Ray's proxies need one that is known before
        keys = (f"serve.engine={self.engine}", f"serve.replicas={self.replicas}", "serve.replica_cpus=0.5")
        return ["--port", port, *(part for key in keys for part in ("--set", key))]


@contextmanager
def server(folder: Path, way: Way, *overrides: str) -> Iterator[tuple[str, Callable[[], float]]]:
    """A server of `folder` on a free port: its address, and a function that says its `memory`."""
    options = [part for one in overrides for part in ("--set", one)]
    command = [sys.executable, "-c", "from jobs.cli import entry; entry()", "serve", str(folder)]
    process = subprocess.Popen([*command, *way.options(), *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = (re.search(r"http://\S+:\d+", line) for line in process.stdout)
        if (found := next(filter(None, said), None)) is None:
            raise RuntimeError("the server did not start")
        yield found[0], partial(memory, process.pid, way.ray)
    finally:
        process.terminate()
        process.wait(120)


def memory(pid: int, ray: bool) -> float:
    """MiB that the answering processes of a server have: the one, or Ray's replicas and proxy together."""
    started = psutil.Process(pid)
    answering = [started]
    if ray:
        answering = [one for one in started.children(recursive=True) if _title(one).startswith(ANSWERING)]
    return round(sum(one.memory_info().rss for one in answering) / 2**20, 1)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def widened(folder: Path, target: Path, count: int) -> Path:
    """A copy of an export whose catalogue is repeated, with noise, up to `count` items."""
    stored = read_items(folder)
    if stored is None or len(stored[0]) >= count:
        return folder
    target.mkdir()
    names = [name for name in (read_manifest(folder) or {})["files"] if name != ITEMS]
    for name in names:
        (target / name).write_bytes((folder / name).read_bytes())
    item_ids, item_names, vectors = stored
    rows = np.arange(count) % len(item_ids)
    noise = np.random.default_rng(0).standard_normal((count, vectors.shape[1]), dtype=np.float32)
    wide = vectors[rows] + 0.02 * noise * (np.arange(count) >= len(item_ids))[:, None]
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    shown = [item_names[row] for row in rows]
    write_items(target, [f"{item_ids[row]}-{place}" for place, row in enumerate(rows)], shown, shown, wide)
    made = read_json(folder / MANIFEST)
    extra = {name: made[name] for name in ("lineage", "encoder") if name in made}
    write_manifest(
        target, stage="export", config=made["config"], inputs={}, files=[*names, ITEMS], metrics={}, extra=extra
    )
    assert (target / DESCRIPTION).is_file()
    return target
