"""Kubernetes manifests that fit a configuration: the pods of cluster/kuberay, sized by `cluster.pods`."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cluster.object_store import give_access, one_pod, own_disk, ports
from cluster.pods import OBJECT_STORE_GIB, Group, Node, head_memory_gib, worker_groups
from cluster.roles import POOL
from r4t.config import Config, flatten
from r4t.errors import UserError
from r4t.footprint import Footprint, Kind
from r4t.storage.urls import is_url

Manifest = dict[str, Any]
MOUNT = Path("/runs")  # where the pods see the shared storage
CONFIG = "/etc/r4t/config.yaml"
SECRETS = "r4t-secrets"
SPOT, SPOT_GRACE, SPOT_WAIT = "spot", 25, 18  # a pool's name; seconds, as in overlays/multi-node: a notice is short
JOB = "r4t/job"  # label of the pods of one RayJob
HEAD_CPUS = {"cpu": 2, "cuda": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user decides beside the configuration."""

    name: str
    run_dir: str
    image: str
    node: Node
    stage: str = "all"
    namespace: str = "r4t"
    queue: str = "r4t"
    redis: str | None = None
    """HOST:PORT of the Redis in which Ray's control plane survives a restart of the head's container."""
    redis_secret: str = "r4t-redis"  # noqa: S105  a name
    """The Secret with its `password`."""
    disk_gib: int | None = None
    """Of one pod's own disk, in place of the claim: `cluster.mirror` keeps the run."""
    storage_secret: str = "r4t-storage"  # noqa: S105  a name
    """The Secret with the credentials of the object store; empty: the service account's role."""
    storage_endpoint: str | None = None
    """Of an S3 store that is not Amazon's."""


def manifests(config: Config, wish: Wish, memory: Mapping[Kind, Footprint]) -> list[Manifest]:
    """The ConfigMap with the configuration, a NetworkPolicy where the run needs the outside, and the RayJob.

    Raises UserError for a path that the pods do not see, and for an actor that no node can hold.
    """
    check_paths(config, wish.run_dir, shared=wish.disk_gib is None)
    return [config_map(config, wish), *egress_policy(config, wish), ray_job(config, wish, memory)]


def check_paths(config: Config, run_dir: str, *, shared: bool = True) -> None:
    """Raises UserError for every path outside the shared storage: a pod sees none of this machine's folders.

    A pod with a disk of its own (not `shared`) starts with an empty one.
    """
    named = {
        key: Path(value)
        for key, value in flatten(config).items()
        if isinstance(value, str)
        and not is_url(value)
        and (key in PATHS or SOURCE.fullmatch(key) or (key == "data.families" and "/" in value))
    }
    if named and not shared:
        raise UserError(
            "with --storage a pod starts with an empty disk, and sees none of:\n"
            + "\n".join(f"  {key}: {path}" for key, path in named.items())
            + "\nPut data into the store and name it by its address, e.g. --set data.items=s3://bucket/items.parquet;"
            " models and encoders of your own need a claim"
        )
    named = {"--run-dir": Path(run_dir)} | named
    outside = [f"  {key}: {path}" for key, path in named.items() if not path.is_relative_to(MOUNT)]
    if outside:
        raise UserError(
            f"the pods see the shared storage at {MOUNT}, and not:\n" + "\n".join(outside) + "\n"
            f"Copy these there and name them as the pods see them, e.g. --set data.items={MOUNT}/data/items.parquet"
        )


PATHS = (
    "data.items", "data.sets", "data.item_vectors", "data.queries", "encoder.path", "policy.model",
    "evaluate.judge_path", "evaluate.fill_in_blank",
)  # fmt: skip
SOURCE = re.compile(r"data\.sources\..+\.(items|sets)")


def config_map(config: Config, wish: Wish) -> Manifest:
    """The resolved configuration. It holds names of secrets, never a secret."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{wish.name}-config", "namespace": wish.namespace, "labels": _labels()},
        "data": {"config.yaml": text},
    }


def egress_policy(config: Config, wish: Wish) -> list[Manifest]:
    """What the job's pods may reach beside each other, where that is anything: policies of Kubernetes add up."""
    rules = [{"ports": [{"port": port, "protocol": "TCP"}]} for port in outside_ports(config, wish)]
    if wish.redis:
        host, _, port = wish.redis.rpartition(":")
        rule: Manifest = {"ports": [{"port": int(port), "protocol": "TCP"}]}
        if service := IN_CLUSTER.fullmatch(host):
            rule["to"] = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": service[1]}}}]
        rules.append(rule)
    if not rules:
        return []
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"{wish.name}-egress", "namespace": wish.namespace, "labels": _labels()},
            "spec": {"podSelector": {"matchLabels": {JOB: wish.name}}, "policyTypes": ["Egress"], "egress": rules},
        }
    ]


IN_CLUSTER = re.compile(r"[a-z0-9-]+\.([a-z0-9-]+)\.svc(?:\..+)?")  # SERVICE.NAMESPACE.svc


def outside_ports(config: Config, wish: Wish) -> list[int]:
    """Ports of the servers outside that hold what the secrets are for."""
    found = ports(config, wish.storage_endpoint)
    if config.tracking.wandb == "online":
        found.add(443)
    if config.data.writer == "endpoint":
        url = urlsplit(config.data.endpoint.url)
        found.add(url.port or (80 if url.scheme == "http" else 443))
    return sorted(found)


def ray_job(config: Config, wish: Wish, memory: Mapping[Kind, Footprint]) -> Manifest:
    """The RayJob: what is fixed comes from cluster/kuberay, what depends on the configuration is set here."""
    job = _shipped("components/job/rayjob.yaml")
    cluster = _shipped("base/raycluster.yaml")["spec"]
    job["metadata"] |= {"name": wish.name, "namespace": wish.namespace, "labels": _labels(wish.queue)}
    stage = "" if wish.stage == "all" else f" --stage {wish.stage}"
    job["spec"]["entrypoint"] = f"r4t run {CONFIG} --run-dir {wish.run_dir}{stage}"
    job["spec"]["submitterPodTemplate"]["spec"]["containers"][0]["image"] = wish.image
    job["spec"]["rayClusterSpec"] = cluster
    if wish.redis:
        cluster["gcsFaultToleranceOptions"] = {
            "backend": "redis",
            "redisAddress": wish.redis,
            "redisPassword": {"valueFrom": {"secretKeyRef": {"name": wish.redis_secret, "key": "password"}}},
        }
    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    head_cpus = HEAD_CPUS[config.cluster.device]
    driver = Group(pool=None, replicas=1, cpus=head_cpus, gpus=0, memory_gib=head_memory_gib(memory))
    if wish.disk_gib is not None:
        _alone(head, driver, wish.disk_gib, config, wish, memory)
        cluster["workerGroupSpecs"] = []
        return job
    _fit(head, config, wish, driver)
    groups = worker_groups(config, wish.node, memory, wish.stage)
    cluster["workerGroupSpecs"] = [_workers(worker, group, config, wish) for group in groups]
    return job


def _alone(
    head: Manifest, driver: Group, disk_gib: int, config: Config, wish: Wish, memory: Mapping[Kind, Footprint]
) -> None:
    """The head as the only pod: it holds the driver and all actors, and Ray is told of what is the actors'."""
    actors = one_pod(config, wish.node, memory, wish.stage, driver)
    head["rayStartParams"] |= {"num-cpus": str(actors.cpus), "num-gpus": str(actors.gpus)}
    whole = Group(
        pool=None,
        replicas=1,
        cpus=driver.cpus + actors.cpus,
        gpus=actors.gpus,
        memory_gib=driver.memory_gib + actors.memory_gib,
    )
    _fit(head, config, wish, whole)
    own_disk(head["template"]["spec"], disk_gib)
    _tolerate_gpus(head["template"]["spec"], whole)


def _workers(template: Manifest, group: Group, config: Config, wish: Wish) -> Manifest:
    own = copy.deepcopy(template)
    own["groupName"] = group.pool or "workers"
    own |= dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), group.replicas)
    own["rayStartParams"] |= {"num-cpus": str(group.cpus), "num-gpus": str(group.gpus)}
    pod = own["template"]["spec"]
    if group.pool:
        own["labels"] = {POOL: group.pool}
        pod["nodeSelector"] = {POOL: group.pool}
        pod["tolerations"] = [{"key": POOL, "value": group.pool, "effect": "NoSchedule"}]
    if group.pool == SPOT:
        pod["terminationGracePeriodSeconds"] = SPOT_GRACE
        pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1] = str(SPOT_WAIT)
    _tolerate_gpus(pod, group)
    _fit(own, config, wish, group)
    return own


def _tolerate_gpus(pod: Manifest, group: Group) -> None:
    if group.gpus:
        pod.setdefault("tolerations", []).append(
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        )


def _fit(spec: Manifest, config: Config, wish: Wish, group: Group) -> None:
    """Image, resources, secrets and the size of /dev/shm of one pod template, in place."""
    spec["rayStartParams"]["object-store-memory"] = str(int(OBJECT_STORE_GIB * 2**30))
    spec["template"]["metadata"]["labels"][JOB] = wish.name
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    container["image"] = wish.image
    amounts = {"cpu": str(group.cpus), "memory": f"{group.memory_gib}Gi"}
    if group.gpus:
        amounts["nvidia.com/gpu"] = str(group.gpus)
    for kind, given in container["resources"].items():
        container["resources"][kind] = amounts | {"ephemeral-storage": given["ephemeral-storage"]}
    container["env"] = [one for one in container["env"] if "secretKeyRef" not in one.get("valueFrom", {})] + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": SECRETS, "key": key}}} for name, key in secrets(config)
    ]
    give_access(pod, config, wish.storage_secret, wish.storage_endpoint)
    for volume in pod["volumes"]:
        if volume["name"] == "config":
            volume["configMap"]["name"] = f"{wish.name}-config"
        elif volume["name"] == "shm":
            volume["emptyDir"]["sizeLimit"] = f"{int(OBJECT_STORE_GIB) + group.gpus}Gi"


def secrets(config: Config) -> Sequence[tuple[str, str]]:
    """(environment variable, key of the Secret `r4t-secrets`) of every secret that the configuration needs."""
    wanted = []
    if config.tracking.wandb == "online":
        wanted.append(("WANDB_API_KEY", "wandb-api-key"))
    if config.data.writer == "endpoint":
        wanted.append((config.data.endpoint.api_key_env, "endpoint-api-key"))
    return wanted


class Dumper(yaml.SafeDumper):
    """Plain YAML without aliases; texts of several lines stay readable."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  a signature of yaml's
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, _text)


def to_yaml(documents: Sequence[Manifest]) -> str:
    """YAML documents, in order."""
    return yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, width=120)


def _labels(queue: str | None = None) -> dict[str, str]:
    labels = {"app.kubernetes.io/part-of": "r4t"}
    return labels | ({"kueue.x-k8s.io/queue-name": queue} if queue else {})


def _shipped(path: str) -> Manifest:
    """A manifest of cluster/kuberay. Aliases in the file become copies, which can be changed one by one."""
    return _unaliased(yaml.safe_load((files("cluster") / "kuberay" / path).read_text()))


def _unaliased(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unaliased(part) for key, part in value.items()}
    return [_unaliased(part) for part in value] if isinstance(value, list) else value
