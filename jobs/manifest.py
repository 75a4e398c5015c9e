"""`r4t manifest`: the RayJob that fits a configuration, as YAML."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cluster.manifest import Wish, manifests, to_yaml
from cluster.pods import Node
from jobs.pipeline import check_stage
from r4t.config import Config
from r4t.errors import UserError
from r4t.footprint import footprints, policy_shape
from r4t.storage.urls import url_problem

VERSION = "0.1.0"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")  # Kubernetes appends up to 24 characters to a RayJob's name
IMAGE = re.compile(r"[^\s@]+(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})")
ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*:[1-9][0-9]{0,4}")
SECRET = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
ENDPOINT = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(:[1-9][0-9]{0,4})?/?")
PATH = re.compile(r"/[A-Za-z0-9._/-]+")


def write(
    config: Config,
    *,
    name: str | None,
    run_dir: str | None,
    image: str | None,
    node: Node,
    stage: str,
    namespace: str,
    queue: str,
    items: int,
    parameters: float | None,
    redis: str | None = None,
    redis_secret: str = "r4t-redis",  # noqa: S107  a name
    storage: str | None = None,
    disk: int = 100,
    storage_secret: str = "r4t-storage",  # noqa: S107  a name
    storage_endpoint: str | None = None,
) -> str:
    """What `cluster.manifest` makes of the configuration, as YAML documents.

    Raises UserError for anything Kubernetes or Ray would refuse.
    """
    check_stage(stage, config)
    if storage is not None:
        config = _stored(config, storage)
    kind = "openrlhf" if config.rl.backend == "openrlhf" else "cpu" if config.cluster.device == "cpu" else "gpu"
    wish = Wish(
        name=_matching(
            name or _plain(config.name), NAME, "--name", "lower-case letters, digits and dashes, at most 40"
        ),
        run_dir=_matching(
            run_dir or f"/runs/{_plain(config.name)}", PATH, "--run-dir", "an absolute path without spaces"
        ),
        image=_pinned(image or f"r4t:{VERSION}-{kind}"),
        node=node,
        stage=stage,
        namespace=namespace,
        queue=queue,
        redis=_matching(redis, ADDRESS, "--redis", "HOST:PORT") if redis is not None else None,
        redis_secret=_matching(redis_secret, SECRET, "--redis-secret", "the name of a Secret"),
        disk_gib=None if storage is None else disk,
        storage_secret=storage_secret and _matching(storage_secret, SECRET, "--storage-secret", "the name of a Secret"),
        storage_endpoint=storage_endpoint
        and _matching(storage_endpoint, ENDPOINT, "--storage-endpoint", "http(s)://HOST[:PORT]"),
    )
    memory = footprints(config, policy_shape(config.policy, parameters), items)
    command = (
        f"r4t manifest, {shlex.quote(config.name)}: {wish.stage} on nodes of {node.cpus:g} CPUs, {node.gpus} GPUs,"
    )
    needs = "Needs cluster/kuberay/support." if storage is None else f"One pod; {storage} keeps the run."
    header = f"# {command} {node.memory_gib:g} GiB. {needs}\n"
    return header + to_yaml(manifests(config, wish, memory))


def _stored(config: Config, url: str) -> Config:
    """The configuration with its mirror there. Raises UserError for an address that pods cannot reach."""
    problem = url_problem(url)
    if problem is None and not url.startswith(("s3://", "gs://")):
        problem = "pods reach s3://bucket/folder and gs://bucket/folder"
    if problem:
        raise UserError(f"--storage: {problem}")
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"mirror": url.rstrip("/")})})


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:40].strip("-") or "r4t"


def _matching(text: str, pattern: re.Pattern[str], option: str, what: str) -> str:
    if not pattern.fullmatch(text):
        raise UserError(f"{option} {text!r}: give {what}")
    return text


def _pinned(image: str) -> str:
    if not IMAGE.fullmatch(image) or image.endswith(":latest"):
        raise UserError(f"--image {image!r} names no fixed version: give a tag other than latest, or a digest")
    return image


def save(text: str, path: Path) -> None:
    """Writes the documents where `path` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
