"""`r4t manifest`: what it writes fits the configuration, validates, and keeps to the policy."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_checks import CRDS, KUBERAY, kubernetes_problem, policy_problems, pre_stop_problems, schema_problems
from manifest_fixtures import NODE, QUICKSTART, USUAL
from support import assert_user_error, r4t

from cluster.manifest import SPOT_GRACE, Wish, manifests, secrets, to_yaml
from cluster.pods import Load, Node, loads, pack, retriever_loads, worker_groups
from jobs.manifest import VERSION, write
from r4t.config import Config, load_config, parse_config
from r4t.errors import UserError
from r4t.footprint import footprints, learner_states, policy_shape
from r4t.seats import bundles, seats


def wish(**changes: Any) -> Wish:
    return Wish(**({"name": "shop", "run_dir": "/runs/shop", "image": "r4t:0.1.0-gpu", "node": NODE} | changes))


def memory_of(config: Config) -> Any:
    return footprints(config, policy_shape(config.policy), items=100_000)


def job_of(config: Config, **changes: Any) -> dict[str, Any]:
    *_, job = manifests(config, wish(**changes), memory_of(config))
    return yaml.safe_load(to_yaml([job]))


def policy_of(config: Config, **changes: Any) -> dict[str, Any]:
    _, policy, _ = manifests(config, wish(**changes), memory_of(config))
    return yaml.safe_load(to_yaml([policy]))


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    device = draw(st.sampled_from(["cpu", "cuda"]))
    workers, ranks = draw(st.integers(1, 20)), draw(st.integers(1, 8))
    colocate = draw(st.booleans())
    pooled = draw(st.booleans()) and not colocate
    cpus = st.sampled_from([0.25, 0.5, 1, 4])
    return parse_config(
        {
            "cluster": {"device": device},
            "rollout": {
                "workers": ranks if colocate else workers,
                "cpus": draw(cpus),
                "colocate": colocate,
                "pool": "spot" if pooled else None,
            },
            "learner": {"ranks": ranks, "cpus": draw(cpus), "pool": "on-demand" if pooled else None},
            "scorer": {"workers": draw(st.integers(1, 4)), "cpus": draw(cpus), "gpus": draw(st.sampled_from([0, 0.5]))},
            "index": {"shards": draw(st.sampled_from([1, 3]))},
            "rl": {"queries_per_step": 32},
            "retriever": {"ranks": draw(st.sampled_from([1, 2, 12]))},
        }
    )


@settings(max_examples=60)
@given(config=configurations(), gpus=st.sampled_from([1, 4, 8]), cpus=st.sampled_from([8, 48]))
def test_the_pods_hold_every_bundle_and_no_pod_is_larger_than_a_node(config: Config, gpus: int, cpus: int) -> None:
    node = Node(cpus=cpus, gpus=gpus, memory_gib=64)
    memory = memory_of(config)
    groups = {group.pool: group for group in worker_groups(config, node, memory)}
    by_pool: dict[str | None, list[Load]] = {}
    pool_of = {seat.bundle: seat.pool for seat in seats(config)}
    for bundle, load in enumerate(loads(config, memory)):
        by_pool.setdefault(pool_of[bundle], []).append(load)
    assert groups.keys() == by_pool.keys()
    pods = []
    for pool, group in groups.items():
        assert group.cpus <= node.cpus
        assert group.gpus <= node.gpus
        assert group.memory_gib <= node.memory_gib
        size = Node(cpus=group.cpus, gpus=group.gpus, memory_gib=group.memory_gib)
        assert len(pack(by_pool[pool], size)) <= group.replicas
        pods += [size] * group.replicas
    smallest = Node(
        cpus=min(pod.cpus for pod in pods),
        gpus=min(pod.gpus for pod in pods),
        memory_gib=min(pod.memory_gib for pod in pods),
    )
    assert len(pack(retriever_loads(config, memory), smallest)) <= len(pods)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.sampled_from([0.25, 0.5, 1, 2]), st.sampled_from([0, 0.5, 1])), min_size=1, max_size=30)
)
def test_packing_loses_nothing_and_overfills_nothing(sizes: list[tuple[float, float]]) -> None:
    node = Node(cpus=4, gpus=2, memory_gib=8)
    wanted = [Load(cpus=cpus, gpus=(gpus,), memory_gib=0.5) for cpus, gpus in sizes]
    pods = pack(wanted, node)
    assert sum(pod.cpus for pod in pods) == pytest.approx(sum(load.cpus for load in wanted))
    assert sum(sum(pod.gpus) for pod in pods) == pytest.approx(sum(gpus for _, gpus in sizes))
    assert all(pod.within(node) for pod in pods)
    # First fit never leaves two pods that would fit into one.
    assert not any(a.plus(b).within(node) for i, a in enumerate(pods) for b in pods[i + 1 :])


@given(share=st.sampled_from([0.3, 0.4, 0.5, 0.7, 0.95]), count=st.integers(0, 12), whole=st.integers(0, 3))
def test_shares_of_a_gpu_are_not_split_over_two(share: float, count: int, whole: int) -> None:
    load = Load(gpus=(1.0,) * whole + (share,) * count)
    assert load.devices == whole + math.ceil(count / int(1 / share))


def test_shares_that_differ_fill_a_gpu_together() -> None:
    assert Load(gpus=(0.4, 0.6, 0.3, 0.7, 2.0)).devices == 4


@settings(max_examples=8)
@given(config=configurations())
@pytest.mark.skipif(not CRDS.is_dir(), reason=f"no KubeRay schemas in {CRDS}: name their folder in R4T_KUBERAY_CRDS")
def test_what_it_writes_validates_and_keeps_to_the_policy(config: Config) -> None:
    written = yaml.safe_load_all(to_yaml(manifests(config, wish(), memory_of(config))))
    for manifest in written:
        assert policy_problems(manifest) == []
        assert manifest["kind"] == "ConfigMap" or schema_problems(manifest) == []
        if manifest["kind"] == "RayJob":
            assert pre_stop_problems(manifest["spec"]["rayClusterSpec"]) == []


def test_the_pods_read_the_configuration_that_was_given() -> None:
    config = load_config(QUICKSTART, ["rl.steps=7"])
    shown, job = manifests(config, wish(), memory_of(config))
    assert parse_config(yaml.safe_load(shown["data"]["config.yaml"])) == config
    for spec in (job["spec"]["rayClusterSpec"]["headGroupSpec"], *job["spec"]["rayClusterSpec"]["workerGroupSpecs"]):
        volumes = {volume["name"]: volume for volume in spec["template"]["spec"]["volumes"]}
        assert volumes["config"]["configMap"]["name"] == shown["metadata"]["name"]


def test_ray_is_told_of_exactly_what_the_pod_has() -> None:
    config = parse_config(
        {"cluster": {"device": "cuda"}, "rollout": {"workers": 6, "cpus": 2}, "learner": {"ranks": 6, "cpus": 1}}
    )
    (group,) = job_of(config)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 2  # 12 GPUs on nodes of 8
    assert group["rayStartParams"]["num-gpus"] == limits["nvidia.com/gpu"] == "8"
    assert group["rayStartParams"]["num-cpus"] == limits["cpu"]
    demand = bundles(seats(config))
    assert 2 * int(limits["cpu"]) >= sum(bundle["CPU"] for bundle in demand)


def test_a_pool_is_a_group_with_its_label_its_nodes_and_its_tolerations() -> None:
    config = parse_config(
        {
            "cluster": {"device": "cuda"},
            "rollout": {"pool": "spot"},
            "learner": {"pool": "steady"},
            "scorer": {"pool": "steady"},
        }
    )
    groups = {group["groupName"]: group for group in job_of(config)["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert groups.keys() == {"spot", "steady"}
    for pool, group in groups.items():
        pod = group["template"]["spec"]
        assert group["labels"] == pod["nodeSelector"] == {"pool": pool}
        assert {"key": "pool", "value": pool, "effect": "NoSchedule"} in pod["tolerations"]
        assert pod["terminationGracePeriodSeconds"] == (SPOT_GRACE if pool == "spot" else 120)


@pytest.mark.parametrize("stage", ["prepare", "report"])
def test_stages_of_the_driver_alone_get_no_workers(stage: str) -> None:
    job = job_of(Config(), stage=stage)["spec"]
    assert job["rayClusterSpec"]["workerGroupSpecs"] == []
    assert job["entrypoint"] == f"r4t run /etc/r4t/config.yaml --run-dir /runs/shop --stage {stage}"


def test_secrets_are_references_and_only_those_that_are_needed() -> None:
    assert secrets(Config()) == []
    config = parse_config(
        {
            "tracking": {"wandb": "online"},
            "data": {"writer": "endpoint", "endpoint": {"url": "http://a/v1", "model": "m", "api_key_env": "SHOP_KEY"}},
        }
    )
    (head,) = job_of(config)["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one["valueFrom"] for one in head["env"] if one["name"].endswith("_KEY")}
    assert {name: value["secretKeyRef"]["name"] for name, value in variables.items()} == {
        "WANDB_API_KEY": "r4t-secrets", "SHOP_KEY": "r4t-secrets",
    }  # fmt: skip


def served_at(url: str) -> dict[str, Any]:
    return {"writer": "endpoint", "endpoint": {"url": url, "model": "m"}}


@pytest.mark.parametrize(
    ("raw", "ports"),
    [
        ({"tracking": {"wandb": "online"}}, [443]),
        ({"data": served_at("https://a/v1")}, [443]),
        ({"data": served_at("http://vllm.serving.svc:8000/v1")}, [8000]),
        ({"data": served_at("http://a/v1"), "tracking": {"wandb": "online"}}, [80, 443]),
    ],
)  # fmt: skip
def test_what_needs_a_secret_may_reach_its_server_and_nothing_else(raw: dict[str, Any], ports: list[int]) -> None:
    config = parse_config(raw)
    policy = policy_of(config)
    assert kubernetes_problem(policy) is None
    spec = policy["spec"]
    assert spec["policyTypes"] == ["Egress"]
    assert spec["egress"] == [{"ports": [{"port": port, "protocol": "TCP"}]} for port in ports]
    cluster = job_of(config)["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert spec["podSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()


def test_a_run_that_needs_no_secret_opens_nothing() -> None:
    assert [one["kind"] for one in manifests(Config(), wish(), memory_of(Config()))] == ["ConfigMap", "RayJob"]


@pytest.mark.parametrize(
    ("redis", "namespace"),
    [
        ("redis.stores.svc:6379", "stores"),
        ("redis.stores.svc.cluster.local:6379", "stores"),
        ("10.0.0.7:6379", None),
    ],
)
def test_the_control_plane_is_kept_in_a_redis_that_the_pods_reach(redis: str, namespace: str | None) -> None:
    job = job_of(Config(), redis=redis, redis_secret="shop-redis")  # noqa: S106  a name
    assert schema_problems(job) == []
    assert policy_problems(job) == []
    component = yaml.safe_load((KUBERAY / "components" / "gcs-fault-tolerance" / "kustomization.yaml").read_text())
    (shipped,) = yaml.safe_load(component["patches"][0]["patch"])
    options = job["spec"]["rayClusterSpec"]["gcsFaultToleranceOptions"]
    assert options.keys() == shipped["value"].keys()
    assert options["redisAddress"] == redis
    assert options["redisPassword"] == {"valueFrom": {"secretKeyRef": {"name": "shop-redis", "key": "password"}}}
    policy = policy_of(Config(), redis=redis)
    assert kubernetes_problem(policy) is None
    (rule,) = policy["spec"]["egress"]
    assert rule["ports"] == [{"port": 6379, "protocol": "TCP"}]
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    assert rule.get("to") == ([selector] if namespace else None)


def test_an_actor_that_no_node_holds_is_refused_with_both_sizes() -> None:
    config = parse_config({"rollout": {"cpus": 9}})
    with pytest.raises(UserError, match=r"needs 9 CPUs.*a node has 8.*--cpus"):
        job_of(config, node=Node(cpus=8, gpus=0, memory_gib=64))


def test_colocated_roles_cannot_be_in_two_pools() -> None:
    config = parse_config(
        {
            "cluster": {"device": "cuda"},
            "rollout": {"workers": 2, "colocate": True, "pool": "spot"},
            "learner": {"ranks": 2},
        }
    )
    with pytest.raises(UserError, match=r"rollout.pool is 'spot' and learner.pool None"):
        seats(config)


@pytest.mark.parametrize(
    ("override", "given", "fragment"),
    [
        (None, {"run_dir": "runs/x"}, "--run-dir .*an absolute path"),
        (None, {"run_dir": "/data/x"}, "at /runs, and not:\n  --run-dir: /data/x"),
        (None, {"image": "r4t"}, "no fixed version"),
        (None, {"redis": "redis"}, "--redis 'redis': give HOST:PORT"),
        (None, {"redis": "redis:6379", "redis_secret": "A b"}, "--redis-secret 'A b': give the name of a Secret"),
        (None, {"image": "r4t:latest"}, "no fixed version"),
        (None, {"name": "Shop_1"}, "--name 'Shop_1': give lower-case"),
        (None, {"stage": "fulm"}, "unknown stage 'fulm'"),
        ("policy.model=/absent", {}, "/absent is not on this machine.*--parameters"),
        ("policy.model=/absent", {"parameters": 1e9}, "policy.model: /absent"),
        ("data.families=mine.yaml", {}, "data.families: .*mine.yaml"),
    ],
)
def test_a_mistake_is_refused_with_its_name(override: str | None, given: dict[str, Any], fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        write(load_config(QUICKSTART, [override] if override else []), **USUAL | given)


@pytest.mark.parametrize(
    ("overrides", "image"),
    [
        ([], "cpu"),
        (["cluster.device=cuda"], "gpu"),
        (["cluster.device=cuda", "rl.backend=openrlhf", "rl.staleness=0", "objective.credit=set"], "openrlhf"),
    ],
)
def test_the_usual_image_is_the_one_that_has_what_the_configuration_needs(overrides: list[str], image: str) -> None:
    written = write(load_config(QUICKSTART, overrides), **USUAL)
    found = {line.split()[-1] for line in written.splitlines() if line.strip().startswith(("image:", "- image:"))}
    assert found == {f"r4t:{VERSION}-{image}"}


def test_a_mistake_is_one_message_on_the_command_line() -> None:
    assert_user_error(r4t("manifest", QUICKSTART, "--cpus", "1", "--set", "rollout.cpus=2"), "a node has 1", "--cpus")


@pytest.mark.parametrize("option", [["--redis", "redis:6379"], ["--storage", "s3://bucket/runs", "--disk", "20"]])
def test_the_command_writes_a_file_that_kubectl_can_read(option: list[str], tmp_path: Path) -> None:
    out = tmp_path / "job.yaml"
    done = r4t("manifest", QUICKSTART, "--gpus", "0", "--cpus", "8", "--memory", "32", *option, "--out", out)
    assert done.returncode == 0, done.stderr
    assert [one["kind"] for one in yaml.safe_load_all(out.read_text())] == ["ConfigMap", "NetworkPolicy", "RayJob"]
    (tmp_path / "kustomization.yaml").write_text("resources: [job.yaml]\n")
    try:
        rendered = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no kubectl on this machine")
    assert rendered.returncode == 0, rendered.stderr


def test_the_footprint_of_a_fresh_policy_is_the_models_own(tmp_path: Path) -> None:
    from r4t.policy import create_policy, train_tokenizer

    config = load_config(QUICKSTART)
    create_policy(tmp_path / "p", train_tokenizer(["apple pie"] * 3, config.policy.vocab_size), config.policy, seed=0)
    reckoned = policy_shape(config.policy)
    assert reckoned == policy_shape(config.policy.model_copy(update={"model": tmp_path / "p"}))


@pytest.mark.parametrize(("stage", "expected"), [(0, 16), (1, 8 + 12 / 4), (2, 4 + 16 / 4), (3, 20 / 4)])
def test_zero_shares_the_states_among_the_ranks(stage: int, expected: float) -> None:
    config = parse_config({"learner": {"ranks": 4, "zero_stage": stage}})
    shape = policy_shape(config.policy)
    assert learner_states(config, shape) * 2**30 / shape.parameters == pytest.approx(expected)


def test_the_roles_of_the_quickstart_add_up_to_about_its_measured_peak() -> None:
    config = load_config(QUICKSTART)
    memory = footprints(config, policy_shape(config.policy), items=4_734)
    total = sum(memory[seat.role].host for seat in seats(config)) + memory["driver"].host
    assert total == pytest.approx(5.8, rel=0.15)  # README: GiB, all processes
