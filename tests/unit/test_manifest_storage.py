"""`r4t manifest --storage`: one pod with a disk of its own, and the credentials that its store asks for."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from kube_checks import kubernetes_problem, policy_problems, pre_stop_problems, schema_problems
from manifest_fixtures import QUICKSTART, USUAL

from cluster.pods import Node
from jobs.manifest import write
from r4t.config import load_config, parse_config
from r4t.errors import UserError
from r4t.seats import bundles, seats

STORED: dict[str, Any] = {"storage": "s3://bucket/runs", "node": Node(cpus=16, gpus=0, memory_gib=64)}
S3 = {"AWS_ACCESS_KEY_ID": "aws-access-key-id", "AWS_SECRET_ACCESS_KEY": "aws-secret-access-key"}


def stored(*overrides: str, **given: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The documents of a run that a store keeps, each of which must be valid."""
    shown, policy, job = yaml.safe_load_all(write(load_config(QUICKSTART, list(overrides)), **USUAL | STORED | given))
    assert kubernetes_problem(shown) is None
    assert kubernetes_problem(policy) is None
    assert schema_problems(job) == []
    assert policy_problems(job) == []
    assert pre_stop_problems(job["spec"]["rayClusterSpec"]) == []
    return shown, policy, job


def test_a_run_that_a_store_keeps_is_one_pod_with_a_disk_of_its_own() -> None:
    shown, policy, job = stored(disk=50)
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["workerGroupSpecs"] == []
    head, pod = cluster["headGroupSpec"], cluster["headGroupSpec"]["template"]["spec"]
    (runs,) = [volume for volume in pod["volumes"] if volume["name"] == "runs"]
    assert runs == {"name": "runs", "emptyDir": {"sizeLimit": "50Gi"}}
    (container,) = pod["containers"]
    limits = container["resources"]["limits"]
    assert limits["ephemeral-storage"] == "70Gi"
    needed = sum(bundle["CPU"] for bundle in bundles(seats(load_config(QUICKSTART))))
    assert needed <= int(head["rayStartParams"]["num-cpus"]) < int(limits["cpu"]) <= 16, "the driver has CPUs too"
    config = parse_config(yaml.safe_load(shown["data"]["config.yaml"]))
    assert config.cluster.mirror == "s3://bucket/runs"
    assert config == load_config(QUICKSTART, ["cluster.mirror=s3://bucket/runs"])
    named = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"] if one["name"] in S3}
    assert named == {name: {"name": "r4t-storage", "key": key} for name, key in S3.items()}
    assert policy["spec"]["egress"] == [{"ports": [{"port": 443, "protocol": "TCP"}]}]


def test_gpus_and_a_store_of_the_users_own_reach_the_pod() -> None:
    node = Node(cpus=48, gpus=8, memory_gib=384)
    _, policy, job = stored(
        "cluster.device=cuda",
        node=node,
        storage_secret="mine",  # noqa: S106  a name
        storage_endpoint="http://minio.stores.svc:9000",
    )
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    (container,) = head["template"]["spec"]["containers"]
    assert head["rayStartParams"]["num-gpus"] == container["resources"]["limits"]["nvidia.com/gpu"] != "0"
    (toleration,) = head["template"]["spec"]["tolerations"]
    assert toleration == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert {"name": "AWS_ENDPOINT_URL", "value": "http://minio.stores.svc:9000"} in container["env"]
    assert {one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"] if one["name"] in S3} == {"mine"}
    assert policy["spec"]["egress"] == [{"ports": [{"port": 9000, "protocol": "TCP"}]}]


def test_google_credentials_are_a_file_of_the_secret() -> None:
    _, _, job = stored(storage="gs://bucket/runs")
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (container,) = pod["containers"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == "storage"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "storage"]
    (path,) = [one["value"] for one in container["env"] if one["name"] == "GOOGLE_APPLICATION_CREDENTIALS"]
    assert path == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
    assert volume["secret"]["secretName"] == "r4t-storage"


def test_without_a_secret_the_role_of_the_service_account_counts() -> None:
    for storage in ("s3://bucket/runs", "gs://bucket/runs"):
        _, _, job = stored(storage=storage, storage_secret="")
        assert "secretKeyRef" not in str(job)
        assert "secretName" not in str(job)


def test_a_claim_with_a_mirror_has_its_credentials_in_every_pod() -> None:
    config = load_config(QUICKSTART, ["cluster.mirror=s3://bucket/runs"])
    _, policy, job = yaml.safe_load_all(write(config, **USUAL))
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert any("persistentVolumeClaim" in volume for volume in pod["volumes"])
        assert S3.keys() <= {one["name"] for one in pod["containers"][0]["env"]}
    assert policy["spec"]["egress"] == [{"ports": [{"port": 443, "protocol": "TCP"}]}]


@pytest.mark.parametrize(
    ("overrides", "given", "fragment"),
    [
        (["rollout.workers=8"], {"node": Node(cpus=4, gpus=0, memory_gib=64)}, "into one pod.*give larger nodes"),
        ([], {"node": Node(cpus=3, gpus=0, memory_gib=64)}, "needs . CPUs and .* GiB.*set cluster.mirror"),
        (["rollout.pool=spot"], {}, "pool '.*' wants its own"),
        (["data.kind=table", "data.items=/runs/i.csv"], {}, "starts with an empty disk.*\n  data.items: /runs/i.csv"),
        ([], {"storage": "s3://key:hunter2@bucket"}, "--storage: leave credentials"),
        ([], {"storage": "/srv/runs"}, "--storage: pods reach"),
        ([], {"storage_endpoint": "minio:9000"}, "--storage-endpoint 'minio:9000'"),
        ([], {"storage_secret": "A b"}, "--storage-secret 'A b'"),
    ],
)  # fmt: skip
def test_what_one_pod_cannot_hold_is_refused(overrides: list[str], given: dict[str, Any], fragment: str) -> None:
    with pytest.raises(UserError, match=rf"(?s){fragment}") as error:
        write(load_config(QUICKSTART, overrides), **USUAL | STORED | given)
    assert "hunter2" not in str(error.value)


def test_data_by_address_needs_no_path() -> None:
    shown, _, _ = stored("data.kind=table", "data.items=s3://bucket/items.parquet")
    assert yaml.safe_load(shown["data"]["config.yaml"])["data"]["items"] == "s3://bucket/items.parquet"
