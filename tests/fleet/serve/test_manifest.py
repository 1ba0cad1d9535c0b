"""The manifest of docs/fleet.md is one that Ray Serve, Kubernetes and KubeRay take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers.places import ROOT

pytest.importorskip("ray", reason="Ray is not installed")

import jsonschema
import yaml
from ray.serve.schema import ServeDeploySchema

from rap_edge.fleet.serve.application import build
from rap_edge.runtime.errors import FleetError

MANIFEST: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "fleet.rayservice.yaml").read_text())
CONFIG: dict[str, Any] = yaml.safe_load(MANIFEST["spec"]["serveConfigV2"])
CLUSTER: dict[str, Any] = MANIFEST["spec"]["rayClusterConfig"]
# The CustomResourceDefinition of KubeRay, ray.io_rayservices.yaml.
CRD = os.environ.get("KUBERAY_CRD", "")


def test_ray_serve_takes_its_configuration_and_the_fleet_its_arguments() -> None:
    (application,) = ServeDeploySchema.model_validate(CONFIG).applications
    module, _, name = application.import_path.partition(":")
    assert (module, name) == (build.__module__, build.__name__)
    assert build(application.args) is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxs": 2}, "unknown"),
        ({"boxes": 0}, "boxes"),
        ({"gpu_share": 2.0}, "gpu_share"),
        ({"words": "no list"}, "words"),
        ({"most_boxes": 1}, "most_boxes"),
        ({"bundle": None}, "bundle"),
    ],
)
def test_arguments_that_are_none_are_refused_with_a_sentence(change: dict[str, Any], words: str) -> None:
    with pytest.raises(FleetError, match=rf"{words}.*\.$"):
        build(CONFIG["applications"][0]["args"] | change)


def test_kubernetes_takes_its_pods() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    groups = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
    assert len(groups) == 2
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, **group["template"]}
        validate.validate(pod, "1.30", strict=True)
        with pytest.raises(validate.ValidationError):
            validate.validate(pod | {"spec": pod["spec"] | {"hostNetwrk": True}}, "1.30", strict=True)


@pytest.mark.skipif(not CRD, reason="KUBERAY_CRD names no file")
def test_kuberay_takes_all_of_it() -> None:
    versions = yaml.safe_load(Path(CRD).read_text())["spec"]["versions"]
    schema = next(version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1")
    closed = strict(schema | {"properties": schema["properties"] | {"metadata": {}}})
    jsonschema.validate(MANIFEST, closed)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(MANIFEST | {"spec": MANIFEST["spec"] | {"serveConfigV3": ""}}, closed)


def strict(schema: Any) -> Any:
    """As the API server reads it: no field that is not named, numbers as texts where both may stand."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(value) for name, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
    return made
