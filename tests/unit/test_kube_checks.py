"""The checks that the manifests are held against see what they are for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from kube_checks import CRDS, KUBERAY, crd_schema, policy_problems, schema_problems


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def break_image(pod: dict[str, Any]) -> None:
    pod["containers"][0]["image"] = "r4t:latest"


def break_user(pod: dict[str, Any]) -> None:
    del pod["securityContext"]["runAsNonRoot"]


def break_limits(pod: dict[str, Any]) -> None:
    del pod["containers"][0]["resources"]["limits"]["memory"]


def break_privileges(pod: dict[str, Any]) -> None:
    pod["containers"][0]["securityContext"]["privileged"] = True


def break_secrecy(pod: dict[str, Any]) -> None:
    pod["containers"][0]["env"].append({"name": "WANDB_API_KEY", "value": "abc"})


def break_probe(pod: dict[str, Any]) -> None:
    del pod["containers"][0]["livenessProbe"]


def break_root(pod: dict[str, Any]) -> None:
    pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False


@pytest.mark.parametrize(
    "damage",
    [break_image, break_user, break_limits, break_privileges, break_secrecy, break_probe, break_root],
)
def test_the_policy_sees_what_it_is_for(damage: Callable[[dict[str, Any]], None]) -> None:
    cluster = yaml.safe_load((KUBERAY / "base" / "raycluster.yaml").read_text())
    cluster = copy.deepcopy(yaml.safe_load(yaml.dump(cluster, Dumper=NoAliases)))
    assert policy_problems(cluster) == []
    damage(cluster["spec"]["headGroupSpec"]["template"]["spec"])
    assert len(policy_problems(cluster)) == 1


@pytest.mark.skipif(not CRDS.is_dir(), reason=f"no KubeRay schemas in {CRDS}: name their folder in R4T_KUBERAY_CRDS")
def test_the_schemas_see_what_they_are_for() -> None:
    cluster = yaml.safe_load((KUBERAY / "base" / "raycluster.yaml").read_text())
    assert crd_schema("RayCluster")
    assert schema_problems(cluster) == []
    cluster["spec"]["headGroupSpec"]["templat"] = {}
    cluster["spec"]["workerGroupSpecs"][0]["replicas"] = "two"
    assert len(schema_problems(cluster)) == 2
