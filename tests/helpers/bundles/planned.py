"""Bundles whose plans nobody has built, and the machine that they fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.runtime.bundle.bundle import Bundle, hash_file
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, EngineInfo, graph_hash
from rap_edge.runtime.engines.preflight import Machine
from rap_edge.runtime.machine.cuda_driver import CudaDevice, CudaDriver

VERSION = "1.7.1.116"


ADA = CudaDriver("13.0", (CudaDevice(0, "RTX 4090", "8.9", 24 << 30),), "")


FITTING = Machine("linux-x86_64", ADA, {"tensorrt_rtx": VERSION})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_planned_bundle(tmp_path / "bundle")


def write_planned_bundle(root: Path) -> Path:
    """A tiny bundle with plans; see `add_plans`."""
    return add_plans(write_tiny_bundle(root))


def add_plans(root: Path) -> Path:
    """Give a bundle plans that are files which nothing may ever load."""
    manifest = Bundle.open(root).manifest
    engines = {}
    for name, graph in manifest.graphs.items():
        (root / f"{name}.plan").write_bytes(f"plan of {name}".encode())
        digest = graph_hash(manifest.files, graph)
        plan = EngineInfo(
            f"{name}.plan", "tensorrt-rtx", VERSION, "linux-x86_64", ("8.6", "8.9"), "ahead-of-time", digest
        )
        engines[name] = (plan,)
    files = {plan.file: hash_file(root / plan.file) for (plan,) in engines.values()}
    written = dataclasses.replace(manifest, engines=engines, files={**manifest.files, **files})
    (root / MANIFEST_NAME).write_text(written.to_json())
    return root
