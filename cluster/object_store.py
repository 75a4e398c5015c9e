"""What pods need of an object store: credentials by reference, a way out, and, without a claim, one pod for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from cluster.pods import Group, Node, worker_groups
from r4t.config import Config, flatten
from r4t.errors import UserError
from r4t.footprint import Footprint, Kind
from r4t.storage.urls import is_url, split_url

Manifest = dict[str, Any]
AWS = (("AWS_ACCESS_KEY_ID", "aws-access-key-id"), ("AWS_SECRET_ACCESS_KEY", "aws-secret-access-key"))
FOLDER, GOOGLE = "/etc/r4t-storage", "gcs.json"
OVERHEAD_GIB = 20  # of a pod's disk beside the run: logs, Ray's files, compiled kernels


def addresses(config: Config) -> list[str]:
    """Every store that a run reads or writes."""
    keys = ("data.", "cluster.mirror")
    values = (value for key, value in flatten(config).items() if key.startswith(keys) and key != "data.endpoint.url")
    return sorted({value for value in values if isinstance(value, str) and is_url(value)})


def schemes(config: Config) -> set[str]:
    return {split_url(url)[0] for url in addresses(config)}


def ports(config: Config, endpoint: str | None) -> set[int]:
    """Of the stores: HTTPS, or those of an S3 endpoint of the user's."""
    parts = urlsplit(endpoint or "https://")
    own = parts.port or (80 if parts.scheme == "http" else 443)
    return {own if scheme == "s3" else 443 for scheme in schemes(config) if scheme in ("s3", "gs")}


def give_access(pod: Manifest, config: Config, secret: str, endpoint: str | None) -> None:
    """Names the Secret in a pod's environment and volumes, in place. Without one, the service account's role counts."""
    (container,), wanted = pod["containers"], schemes(config)
    if "s3" in wanted:
        if endpoint:
            container["env"].append({"name": "AWS_ENDPOINT_URL", "value": endpoint})
        if secret:
            container["env"] += [
                {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for name, key in AWS
            ]
    if "gs" in wanted and secret:
        container["env"].append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": f"{FOLDER}/{GOOGLE}"})
        container["volumeMounts"].append({"name": "storage", "mountPath": FOLDER, "readOnly": True})
        items = [{"key": GOOGLE, "path": GOOGLE}]
        pod["volumes"].append({"name": "storage", "secret": {"secretName": secret, "items": items}})


def one_pod(config: Config, node: Node, memory: Mapping[Kind, Footprint], stage: str, head: Group) -> Group:
    """What Ray may use of the one pod that holds driver and actors. Raises UserError where one does not hold them."""
    groups = worker_groups(config, node, memory, stage)
    pods = sum(group.replicas for group in groups)
    if pools := [group.pool for group in groups if group.pool]:
        raise UserError(
            f"--storage puts the run into one pod, and pool '{pools[0]}' wants its own: unset the roles' pool"
        )
    actors = groups[0] if groups else Group(pool=None, replicas=0, cpus=0, gpus=0, memory_gib=0)
    cpus, gib = head.cpus + actors.cpus, head.memory_gib + actors.memory_gib
    if pods > 1 or cpus > node.cpus or gib > node.memory_gib:
        needs = f"{pods} pods of actors and a head" if pods > 1 else f"{cpus} CPUs and {gib} GiB"
        raise UserError(
            f"--storage puts the run into one pod with a disk of its own, and this configuration needs {needs} on nodes"
            f" of {node.cpus:g} CPUs, {node.gpus} GPUs and {node.memory_gib:g} GiB: give larger nodes (--cpus, --gpus,"
            " --memory) or fewer actors, or leave --storage out and set cluster.mirror: then a claim that all pods"
            " mount holds the run, and the store its mirror"
        )
    return actors


def own_disk(pod: Manifest, gib: int) -> None:
    """A disk that lives as long as the pod takes the place of the claim, in place."""
    for volume in pod["volumes"]:
        if volume["name"] == "runs":
            del volume["persistentVolumeClaim"]
            volume["emptyDir"] = {"sizeLimit": f"{gib}Gi"}
    for amounts in pod["containers"][0]["resources"].values():
        amounts["ephemeral-storage"] = f"{gib + OVERHEAD_GIB}Gi"
