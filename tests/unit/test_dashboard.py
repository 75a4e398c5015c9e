"""Dashboard and alerts name metrics that exist: the code's own numbers, and Ray's."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml
from support import ROOT

from r4t.config.objective import TERMS

MONITORING = ROOT / "cluster" / "kuberay" / "monitoring"
DASHBOARD = json.loads((MONITORING / "r4t.json").read_text())
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"][0]["rules"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
ALERTS = [rule["expr"] for rule in RULES]


def keys(path: str) -> set[str]:
    """Names of numbers in a file: keys of dictionary displays and of subscripts, and names of keyword arguments."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Dict):
            found |= {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            found |= {node.slice.value} if isinstance(node.slice.value, str) else set()
        elif isinstance(node, ast.Call):
            found |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return found


def defined() -> set[str]:
    """Every value of the label `name` that a step of stage folm exports."""
    learner = keys("r4t/update_stats.py")
    names = keys("jobs/folm_metrics.py") | keys("jobs/train_folm.py") | keys("r4t/collapse.py")
    names |= {f"learner/{name}{suffix}" for name in learner for suffix in ("", "_max")}
    return names | {f"reward/{term}" for term in TERMS}


def named(query: str) -> set[str]:
    """The values of the label `name` that a query asks for, alternatives written out."""
    found: set[str] = set()
    for text in re.findall(r'name=~?"([^"]+)"', query):
        found |= expanded(text)
    return found


def expanded(pattern: str) -> set[str]:
    """`a/(b|c)|d` -> `a/b`, `a/c`, `d`."""
    found = set()
    for one in re.findall(r"[^|(]*\([^)]*\)|[^|]+", pattern):
        head, _, tail = one.partition("(")
        found |= {head + part for part in tail.rstrip(")").split("|")} if tail else {one}
    return found


def test_alternatives_are_written_out() -> None:
    assert expanded("idle/(rollout|learner)|valid") == {"idle/rollout", "idle/learner", "valid"}


@pytest.mark.parametrize("query", [*QUERIES, *ALERTS])
def test_every_query_names_metrics_that_exist(query: str) -> None:
    metrics = set(re.findall(r"\bray_[a-z0-9_]+(?=[{\[ ])", query)) - {"ray_cluster"}
    assert metrics
    for metric in metrics:
        assert metric.removeprefix("ray_") in ray_metrics() | own_metrics(), metric
    if "ray_r4t_value" in metrics:
        assert 'stage="folm"' in query
        assert named(query)
        assert named(query) - defined() == set()


def own_metrics() -> set[str]:
    found = re.findall(r'Gauge\(\s*"(r4t_[a-z_]+)"', (ROOT / "cluster" / "gauges.py").read_text())
    assert len(found) == 2
    return set(found)


def ray_metrics() -> set[str]:
    spec = importlib.util.find_spec("ray")
    assert spec
    assert spec.origin
    source = Path(spec.origin).parent / "dashboard" / "modules" / "reporter" / "reporter_agent.py"
    return set(re.findall(r'"(node_[a-z_]+)"', source.read_text()))


def test_the_check_sees_a_wrong_name() -> None:
    assert named('ray_r4t_value{name="idle/learners"}') - defined() == {"idle/learners"}
    assert "node_cpu_utilisation" not in ray_metrics()


def test_alerts_cover_staleness_parse_rate_mismatch_idleness_and_progress() -> None:
    asked = {name for query in ALERTS for name in named(query)}
    assert {"policy_age/max", "valid", "learner/mismatch_p95", "idle/rollout", "idle/learner"} <= asked
    assert any("ray_r4t_progress_timestamp" in query for query in ALERTS)
    assert all(rule["annotations"]["description"] for rule in RULES)


def test_panels_have_places_of_their_own_and_the_alerts_numbers_are_on_the_dashboard() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    shown = {name for query in QUERIES for name in named(query)}
    assert {name for query in ALERTS for name in named(query)} <= shown


def test_prometheus_finds_the_port_that_the_pods_name() -> None:
    cluster = (ROOT / "cluster" / "kuberay" / "base" / "raycluster.yaml").read_text()
    assert cluster.count("{name: metrics, containerPort: 8080}") == 2
    assert cluster.count('metrics-export-port: "8080"') == 2
    monitor = yaml.safe_load((MONITORING / "podmonitor.yaml").read_text())["spec"]
    assert monitor["podMetricsEndpoints"][0]["port"] == "metrics"
    assert monitor["selector"]["matchLabels"] == {"app.kubernetes.io/part-of": "r4t"}
