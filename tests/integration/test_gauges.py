"""Prometheus sees the newest numbers of every stage at each scrape, until the stage or the run has ended."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from support import wait_for

from cluster import gauges
from cluster.session import start
from jobs.run import Run
from r4t.config import Config

pytestmark = pytest.mark.slow
REPORT = 2.0  # seconds between a process's reports to its node's agent; a fifth of Ray's own, as all times here are
INTERVAL = 3.0  # seconds between scrapes: for such reports what cluster/kuberay/monitoring sets, 15 s
EVERY = gauges.EVERY * REPORT / 10


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", str(round(1000 * REPORT)))
        start("local")
        yield
        ray.shutdown()


def scrape() -> dict[str, float]:
    """Our series at the metrics endpoint: `stage name` -> value; the name of progress is empty."""
    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=30) as page:
        lines = [line for line in page.read().decode().splitlines() if line.startswith("ray_r4t_")]
    found = {}
    for line in lines:
        labels = dict(re.findall(r'(?<![a-z_])(stage|name)="([^"]*)"', line))
        found[f"{labels['stage']} {labels.get('name', '')}"] = float(line.rpartition(" ")[2])
    return found


def left() -> dict[str, float]:
    """What is still exported."""
    time.sleep(2 * INTERVAL)
    scrape()  # takes what was on its way to the agent
    time.sleep(2 * INTERVAL)
    return scrape()


def test_a_stage_is_seen_at_every_scrape_and_ends_with_the_stage_and_the_run(tmp_path: Path) -> None:
    sink = gauges.Gauges(every=EVERY, linger=0.0)
    run = Run(tmp_path, Config(), (sink,))
    before = time.time()
    run.began("folm")
    run.log("folm", 1, {"idle/rollout": 0.25, "reward/absent": float("nan")})
    run.log("valid", 1, {"reward": 0.5})
    wait_for("the gauges at the endpoint", lambda: bool(scrape()), timeout=120, every=1.0)
    for _ in range(3):  # nothing is logged meanwhile
        time.sleep(INTERVAL)
        seen = scrape()
        assert seen.keys() == {"folm ", "folm idle/rollout", "valid reward"}
        assert (seen["folm idle/rollout"], seen["valid reward"]) == (0.25, 0.5)
        assert before - 1 <= seen["folm "] <= time.time() - INTERVAL / 2  # it did not progress
    run.advanced()
    advanced = time.time()
    time.sleep(INTERVAL)
    wait_for("the progress", lambda: scrape().get("folm ", 0.0) >= advanced - 1, timeout=60, every=INTERVAL)

    sink.finished("folm", tmp_path)
    assert left() == {}
    run.began("sets")
    run.log("r4t_folm", 0, {"valid": 0.9})
    wait_for("the next stage alone", lambda: scrape().keys() == {"sets ", "r4t_folm valid"}, 120, INTERVAL)
    run.close()
    assert left() == {}
