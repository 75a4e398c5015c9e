"""What every manifest is held to: schemas of the Ray kinds, and a policy for pods. Shared by the tests of manifests."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from support import ROOT

KUBERAY = ROOT / "cluster" / "kuberay"
CRDS = Path(os.environ.get("R4T_KUBERAY_CRDS") or ROOT.parent / "shared" / "kuberay-crds")
SECRET_NAME = re.compile(r"KEY|TOKEN|PASSWORD|SECRET|CREDENTIAL", re.IGNORECASE)
PINNED = re.compile(r"\S+:(?!latest$)[A-Za-z0-9_][\w.-]*|\S+@sha256:[0-9a-f]{64}")
ENDING = 5  # seconds that `ray start` gets for its own processes
MAY_CALL_THE_API = {"r4t-refresh"}  # service accounts


@cache
def crd_schema(kind: str) -> dict[str, Any]:
    """The v1 schema of a Ray kind, made strict: the API server drops an unknown field without a word."""
    path = CRDS / f"ray.io_{kind.lower()}s.yaml.gz"
    if not path.is_file():
        pytest.skip(f"no KubeRay schemas in {CRDS}: name their folder in R4T_KUBERAY_CRDS")
    crd = yaml.load(gzip.decompress(path.read_bytes()), yaml.CSafeLoader)
    (version,) = [one for one in crd["spec"]["versions"] if one["name"] == "v1"]
    return _strict(version["schema"]["openAPIV3Schema"])


@cache
def pod_template_schema() -> dict[str, Any]:
    """The schema of a pod template, as the Ray kinds hold it."""
    return crd_schema("RayCluster")["properties"]["spec"]["properties"]["headGroupSpec"]["properties"]["template"]


def schema_problems(manifest: dict[str, Any]) -> list[str]:
    """Where a Ray kind departs from its schema, or where pod templates of another kind depart from Kubernetes'."""
    if manifest["apiVersion"] == "ray.io/v1":
        return _problems(crd_schema(manifest["kind"]), manifest)
    return [problem for template in pod_templates(manifest) for problem in _problems(pod_template_schema(), template)]


def kubernetes_problem(manifest: dict[str, Any]) -> str | None:
    """What is wrong with an object of Kubernetes' own kinds, unknown fields included, or None."""
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    try:
        kubernetes.validate(manifest, "1.33", strict=True)
    except kubernetes.ValidationError as error:
        return str(error.message)
    return None


def policy_problems(manifest: dict[str, Any]) -> list[str]:
    """What a careful cluster would refuse."""
    found = ["holds secret values"] if manifest["kind"] == "Secret" else []
    for template in pod_templates(manifest):
        found += _pod_problems(template["spec"])
    if manifest["kind"] == "RayService":
        found += _serving_problems(manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"])
    return [f"{manifest['kind']} {manifest['metadata']['name']}: {problem}" for problem in found]


def _serving_problems(groups: list[dict[str, Any]]) -> Iterator[str]:
    for container in (group["template"]["spec"]["containers"][0] for group in groups):
        if container["readinessProbe"].get("exec", {}).get("command") != ["python", "-m", "cluster.serve_ready"]:
            yield f"{container['name']}: gets requests without a proxy"
        keys = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if one["name"] == "R4T_SERVE_KEY"]
        if any(key.get("optional") for key in keys):
            yield f"{container['name']}: serves without its key"


def pre_stop_problems(cluster: dict[str, Any]) -> list[str]:
    """Which pods of a Ray cluster are ended before their hook is."""
    found = []
    groups = [("head", cluster["headGroupSpec"]), *(("worker", one) for one in cluster["workerGroupSpecs"])]
    for kind, group in groups:
        pod = group["template"]["spec"]
        command = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
        if command[:-1] != ["python", "-m", "cluster.pre_stop", kind, "--seconds"]:
            found.append(f"{kind}: runs {command} before it ends")
        elif int(command[-1]) + ENDING > pod["terminationGracePeriodSeconds"]:
            found.append(f"{kind}: waits {command[-1]} s of {pod['terminationGracePeriodSeconds']}")
    return found


def pod_templates(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod template anywhere in a manifest."""
    if isinstance(value, dict):
        if isinstance(value.get("spec"), dict) and "containers" in value["spec"]:
            yield value
        for part in value.values():
            yield from pod_templates(part)
    elif isinstance(value, list):
        for part in value:
            yield from pod_templates(part)


def _pod_problems(pod: dict[str, Any]) -> list[str]:
    found = []
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        found.append("may run as root")
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("no seccomp profile")
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("shares the host's namespaces")
    if any("hostPath" in volume for volume in pod.get("volumes", [])):
        found.append("mounts a folder of the host")
    if pod.get("automountServiceAccountToken") is not False and pod.get("serviceAccountName") not in MAY_CALL_THE_API:
        found.append("gets a token of the Kubernetes API")
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        found += [f"{container['name']}: {problem}" for problem in _container_problems(container)]
    return found


def _container_problems(container: dict[str, Any]) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if security.get("capabilities", {}).get("drop") != ["ALL"] or security["capabilities"].get("add"):
        yield "keeps capabilities"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "writes to its root file system"
    for kind in ("requests", "limits"):
        if not {"cpu", "memory"} <= container.get("resources", {}).get(kind, {}).keys():
            yield f"no {kind} of CPU and memory"
    if not PINNED.fullmatch(container["image"]):
        yield f"image {container['image']} has no fixed version"
    for variable in container.get("env", []):
        if SECRET_NAME.search(variable["name"]) and not variable.get("value", "/").startswith("/"):  # a path is none
            yield f"{variable['name']} stands in the manifest"
    if container["name"].startswith("ray-") and container["name"] != "ray-job-submitter":
        for probe in ("readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"no {probe}"


def _problems(schema: dict[str, Any], value: Any) -> list[str]:
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in Draft202012Validator(schema).iter_errors(value)
    ]


def _strict(schema: Any) -> Any:
    """JSON Schema of an OpenAPI schema of Kubernetes: unknown fields refused, amounts as number or text."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    own = {key: _strict(part) for key, part in schema.items() if key in ("items", "additionalProperties")}
    kept = {key: schema[key] for key in ("type", "enum", "required", "minimum", "maximum", "pattern") if key in schema}
    if "properties" in schema:
        own["properties"] = {name: _strict(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            own.setdefault("additionalProperties", False)
    return kept | own
