"""The manifests in cluster/kuberay: they render, validate, keep to the policy, hold what their configurations ask."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_checks import (
    KUBERAY,
    kubernetes_problem,
    pod_templates,
    policy_problems,
    pre_stop_problems,
    schema_problems,
)
from support import ROOT

from cluster.manifest import SPOT_GRACE, SPOT_WAIT
from cluster.pods import Node, loads, pack, retriever_loads
from jobs.manifest import VERSION
from jobs.openrlhf_command import TESTED, check_backend, pins
from jobs.pipeline import STAGES
from r4t.config import load_config
from r4t.errors import UserError
from r4t.footprint import footprints, policy_shape
from r4t.seats import pools, seats

KUSTOMIZATIONS = sorted(path.parent.relative_to(KUBERAY).as_posix() for path in KUBERAY.rglob("kustomization.yaml"))
RENDERED = [name for name in KUSTOMIZATIONS if name.startswith(("overlays", "base", "support", "monitoring"))]
OPERATORS = "monitoring.coreos.com/v1"  # kinds of the Prometheus operator
JOBS = [name for name in RENDERED if name.endswith("/job") or name.startswith("overlays/stages")]
CLUSTERS = [name for name in RENDERED if name.endswith("/cluster")]
GIB = {"Gi": 1.0, "Mi": 1 / 1024}


@cache
def render(name: str) -> tuple[dict[str, Any], ...]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on this machine: the overlays are not rendered")
    done = subprocess.run([kubectl, "kustomize", KUBERAY / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def only(name: str, kind: str) -> dict[str, Any]:
    (found,) = [one for one in render(name) if one["kind"] == kind]
    return found


def test_there_is_a_kustomization_for_every_shape_and_stage() -> None:
    shapes = ("kind-cpu", "one-node-8-gpu", "multi-node")
    wanted = {f"overlays/{shape}/{kind}" for shape in shapes for kind in ("cluster", "job")}
    assert wanted | {f"overlays/stages/{stage}" for stage in STAGES} | {"overlays/refresh"} <= set(RENDERED)


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_what_a_kustomization_names_exists(name: str) -> None:
    folder = KUBERAY / name
    found = yaml.safe_load((folder / "kustomization.yaml").read_text())
    named = [*found.get("resources", []), *found.get("components", [])]
    named += [patch["path"] for patch in found.get("patches", []) if "path" in patch]
    named += [file for one in found.get("configMapGenerator", []) for file in one["files"]]
    assert named or found.get("patches")
    assert [one for one in named if not (folder / one).exists()] == []


@pytest.mark.parametrize("name", RENDERED)
def test_every_overlay_renders_and_validates(name: str) -> None:
    problems = {one["kind"]: schema_problems(one) for one in render(name)}
    assert {kind: found for kind, found in problems.items() if found} == {}


@pytest.mark.parametrize("name", RENDERED)
def test_every_overlay_keeps_to_the_policy(name: str) -> None:
    assert [problem for one in render(name) for problem in policy_problems(one)] == []


@pytest.mark.parametrize("name", RENDERED)
def test_kubernetes_own_kinds_validate(name: str) -> None:
    problems = {
        one["kind"]: kubernetes_problem(one)
        for one in render(name)
        if one["apiVersion"] not in ("ray.io/v1", OPERATORS)
    }
    assert {kind: found for kind, found in problems.items() if found} == {}


def test_kubernetes_own_validation_finds_a_wrong_key() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"portz": []}}
    assert "portz" in str(kubernetes_problem(service))


@pytest.mark.parametrize("name", JOBS)
def test_a_job_brings_its_cluster_and_no_other(name: str) -> None:
    assert [one["kind"] for one in render(name) if one["apiVersion"] == "ray.io/v1"] == ["RayJob"]
    job = only(name, "RayJob")["spec"]
    assert job["backoffLimit"] == 2
    assert job["submitterConfig"]["backoffLimit"] == 3
    assert job["shutdownAfterJobFinishes"] is True  # which Kueue asks for
    assert only(name, "RayJob")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    stage = name.rpartition("/")[2]
    assert job["entrypoint"].startswith("r4t run /etc/r4t/config.yaml --run-dir /runs/")
    assert job["entrypoint"].endswith(f" --stage {stage}") == (stage in STAGES)


@pytest.mark.parametrize("name", [*JOBS, *CLUSTERS])
def test_the_head_does_no_work_and_the_versions_are_the_locked_ones(name: str) -> None:
    cluster = ray_cluster(name)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "locks" / "cpu.txt").read_text().splitlines()
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()
    images = {c["image"] for template in pod_templates(cluster) for c in template["spec"]["containers"]}
    kind = "cpu" if "kind-cpu" in name else "openrlhf" if "openrlhf" in name else "gpu"
    assert images == {f"r4t:{VERSION}-{kind}"}


@pytest.mark.parametrize("name", [*JOBS, *CLUSTERS])
def test_pods_write_to_volumes_alone_and_know_their_attempt(name: str) -> None:
    for template in pod_templates(ray_cluster(name)):
        (container,) = template["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {"runs", "config", "tmp", "shm"}
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        assert gib(volumes["shm"]["emptyDir"]["sizeLimit"]) < gib(container["resources"]["limits"]["memory"])
        variables = {variable["name"]: variable for variable in container["env"]}
        assert "ray.io/cluster" in variables["R4T_ATTEMPT"]["valueFrom"]["fieldRef"]["fieldPath"]
        grace = template["spec"]["terminationGracePeriodSeconds"]
        assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]["value"]) < grace or grace < 30  # a spot node


@pytest.mark.parametrize("name", ["base", *JOBS, *CLUSTERS, "overlays/service", "overlays/service-keyless"])
def test_pods_tell_ray_before_they_end_and_have_the_time(name: str) -> None:
    cluster = ray_cluster(name)
    assert pre_stop_problems(cluster) == []
    cluster = copy.deepcopy(cluster)
    cluster["workerGroupSpecs"][0]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
    del cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["lifecycle"]
    assert len(pre_stop_problems(cluster)) == 2


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_holds_what_its_configuration_asks_for(name: str) -> None:
    config = load_config(KUBERAY / name / "config.yaml")
    memory = footprints(config, policy_shape(config.policy, 1.7e9), items=100_000)
    groups = {group.get("labels", {}).get("pool"): group for group in ray_cluster(name)["workerGroupSpecs"]}
    by_pool: dict[str | None, list[Any]] = {}
    for load, pool in zip(loads(config, memory), pools(seats(config)), strict=True):
        by_pool.setdefault(pool, []).append(load)
    assert by_pool.keys() == groups.keys()
    for pool, wanted in by_pool.items():
        assert len(pack(wanted, pod_size(groups[pool]))) == groups[pool]["replicas"]
    replicas = sum(group["replicas"] for group in groups.values())
    assert len(pack(retriever_loads(config, memory), pod_size(next(iter(groups.values()))))) <= replicas


def test_openrlhf_trains_on_the_node_that_holds_its_actors_and_engines() -> None:
    name = "overlays/openrlhf/job"
    config = load_config(KUBERAY / name / "config.yaml")
    assert config.rl.backend == "openrlhf"
    check_backend(config, ({"openrlhf": TESTED} | pins()).get)
    assert only(name, "ConfigMap")["data"]["config.yaml"] == (KUBERAY / name / "config.yaml").read_text()
    (workers,) = ray_cluster(name)["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    assert workers["replicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"]) == (
        config.learner.ranks + config.rollout.workers
    )


def test_the_smoke_test_runs_the_quickstart() -> None:
    shipped = yaml.safe_load((KUBERAY / "overlays/kind-cpu/cluster/config.yaml").read_text())
    assert shipped == yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())


def test_learners_never_sit_on_spot_nodes_nor_does_the_head() -> None:
    cluster = ray_cluster("overlays/multi-node/job")
    on_demand, spot = cluster["workerGroupSpecs"]
    assert spot["labels"] == spot["template"]["spec"]["nodeSelector"] == {"pool": "spot"}
    assert {"key": "pool", "value": "spot", "effect": "NoSchedule"} in spot["template"]["spec"]["tolerations"]
    assert spot["template"]["spec"]["terminationGracePeriodSeconds"] == SPOT_GRACE
    assert spot["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1] == str(SPOT_WAIT)
    for spec in (cluster["headGroupSpec"], on_demand):
        assert spec["template"]["spec"]["nodeSelector"] == {"pool": "on-demand"}
        assert all(one.get("key") != "pool" for one in spec["template"]["spec"].get("tolerations", []))
    config = load_config(KUBERAY / "overlays/multi-node/cluster/config.yaml")
    assert {(seat.role, seat.pool) for seat in seats(config)} == {
        ("rollout", "spot"), ("learner", "on-demand"), ("scorer", "on-demand"),
    }  # fmt: skip


def test_the_service_is_the_endpoint_of_r4t_serve() -> None:
    from cluster.serve import IMPORT_PATH, NAME, build
    from cluster.serve_worker import HOOK, NODE_VARIABLE

    service = only("overlays/service", "RayService")["spec"]
    config = yaml.safe_load(service["serveConfigV2"])
    (application,) = config["applications"]
    assert (application["import_path"], application["name"]) == (IMPORT_PATH, NAME)
    assert all(folder.startswith("/runs/") for folder in application["args"]["folders"])
    options = build(application["args"])._bound_deployment
    assert options._deployment_config.autoscaling_config.max_replicas == application["args"]["serve"]["max_replicas"]
    for template in pod_templates(service):
        (container,) = template["spec"]["containers"]
        variables = {one["name"]: one.get("value") for one in container["env"]}
        assert variables[NODE_VARIABLE] == HOOK
    (policy,) = [
        one
        for one in render("overlays/service")
        if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "r4t-serve"
    ]
    assert policy["spec"]["ingress"][0]["ports"] == [{"port": config["http_options"]["port"], "protocol": "TCP"}]


def test_a_key_among_the_services_args_is_refused_and_not_repeated() -> None:
    from cluster.serve import build

    with pytest.raises(UserError, match="not the key itself") as error:
        build({"folders": ["/runs/served"], "key_digest": "canary-key"})
    assert "canary" not in str(error.value)
    with pytest.raises(UserError, match="needs folders"):
        build({"folders": []})


def break_proxy_check(container: dict[str, Any]) -> None:
    container["readinessProbe"] = container["livenessProbe"]


def break_key(container: dict[str, Any]) -> None:
    (key,) = [one for one in container["env"] if one["name"] == "R4T_SERVE_KEY"]
    key["valueFrom"]["secretKeyRef"]["optional"] = True


@pytest.mark.parametrize("damage", [break_proxy_check, break_key])
def test_the_policy_sees_an_endpoint_that_is_not_ready_or_open(damage: Callable[[dict[str, Any]], None]) -> None:
    service = copy.deepcopy(only("overlays/service", "RayService"))
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert policy_problems(service) == []
    damage(group["template"]["spec"]["containers"][0])
    assert len(policy_problems(service)) == 1


def test_the_endpoint_has_a_key_unless_the_overlay_says_otherwise() -> None:
    def variables(name: str) -> dict[str, Any]:
        (group,) = only(name, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        return {one["name"]: one for one in group["template"]["spec"]["containers"][0]["env"]}

    with_key, without = variables("overlays/service"), variables("overlays/service-keyless")
    assert with_key.pop("R4T_SERVE_KEY")["valueFrom"] == {"secretKeyRef": {"name": "r4t-secrets", "key": "serve-key"}}
    assert with_key == without


def test_redis_is_a_reference_and_only_where_it_is_asked_for() -> None:
    options = ray_cluster("overlays/multi-node/job")["gcsFaultToleranceOptions"]
    assert options["redisPassword"] == {"valueFrom": {"secretKeyRef": {"name": "r4t-redis", "key": "password"}}}
    assert "gcsFaultToleranceOptions" not in ray_cluster("overlays/kind-cpu/job")


def test_the_refresh_writes_its_job_with_r4t_manifest_and_may_do_nothing_else() -> None:
    pod = only("overlays/refresh", "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (writer,), (creator,) = pod["initContainers"], pod["containers"]
    assert "r4t manifest /etc/r4t/config.yaml" in writer["args"][0]
    assert creator["args"][:2] == ["create", "-f"]
    assert writer["args"][0].split()[-2:] == ["--out", creator["args"][2]]
    rules = only("overlays/refresh", "Role")["rules"]
    allowed = {(*rule["resources"], *rule["verbs"]) for rule in rules}
    assert allowed == {(kind, "create") for kind in ("rayjobs", "configmaps", "networkpolicies")}
    assert not [one for one in render("overlays/refresh") if one["kind"].startswith("Ray")]


def test_https_is_one_more_rule_of_the_policy(tmp_path: Path) -> None:
    """components/allow-https on an overlay, as a kustomization of one's own includes it."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on this machine")
    shutil.copytree(KUBERAY, tmp_path / "kuberay")
    (tmp_path / "kuberay" / "own").mkdir()
    own = {"resources": ["../overlays/kind-cpu/job"], "components": ["../components/allow-https"]}
    (tmp_path / "kuberay" / "own" / "kustomization.yaml").write_text(yaml.safe_dump(own))
    done = subprocess.run(
        [kubectl, "kustomize", tmp_path / "kuberay" / "own"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    opened, usual = list(yaml.safe_load_all(done.stdout)), list(render("overlays/kind-cpu/job"))
    (changed,) = [one for one in opened if one not in usual]
    (before,) = [one for one in usual if one not in opened]
    assert kubernetes_problem(changed) is None
    added = {"ports": [{"port": 443, "protocol": "TCP"}]}
    assert changed["spec"].pop("egress") == [*before["spec"].pop("egress"), added]
    assert changed == before
    assert changed["kind"] == "NetworkPolicy"


def test_monitoring_renders_a_monitor_rules_and_a_dashboard() -> None:
    """The operator's kinds by their keys: an unknown one would be dropped without a word."""
    rendered = render("monitoring")
    assert sorted(one["kind"] for one in rendered) == ["ConfigMap", "PodMonitor", "PrometheusRule"]
    assert {one["metadata"]["namespace"] for one in rendered} == {"r4t"}
    assert {one["apiVersion"] for one in rendered if one["kind"] != "ConfigMap"} == {OPERATORS}
    monitor = only("monitoring", "PodMonitor")["spec"]
    assert monitor.keys() == {"selector", "podMetricsEndpoints"}
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint.keys() == {"port", "interval", "relabelings"}
    assert all(one.keys() == {"sourceLabels", "targetLabel"} for one in endpoint["relabelings"])
    (group,) = only("monitoring", "PrometheusRule")["spec"]["groups"]
    assert group.keys() == {"name", "rules"}
    for rule in group["rules"]:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys() <= KEYS_OF_A_RULE
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["labels"]["severity"] in ("warning", "critical")
    dashboard = only("monitoring", "ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["r4t.json"])["panels"]


KEYS_OF_A_RULE = {"alert", "expr", "for", "labels", "annotations"}


def ray_cluster(name: str) -> dict[str, Any]:
    (found,) = [one for one in render(name) if one["apiVersion"] == "ray.io/v1"]
    return next(
        (found["spec"][name] for name in ("rayClusterSpec", "rayClusterConfig") if name in found["spec"]), found["spec"]
    )


def pod_size(group: dict[str, Any]) -> Node:
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["cpu"] == group["rayStartParams"]["num-cpus"]
    return Node(cpus=float(limits["cpu"]), gpus=int(limits.get("nvidia.com/gpu", 0)), memory_gib=gib(limits["memory"]))


def gib(amount: str) -> float:
    return float(amount[:-2]) * GIB[amount[-2:]]


def test_paths_of_this_folder_are_installed_with_the_package() -> None:
    assert Path(KUBERAY / "base" / "raycluster.yaml").is_file()
    assert '"kuberay/**/*.yaml"' in (ROOT / "pyproject.toml").read_text()
