"""The manifest of a bundle from a stranger, read as `rap-doctor`, `rap-run` and `rap-export` read it."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from helpers.bundles.golden_clip import add_golden
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.fuzz_targets.mutations import json_mutants
from helpers.fuzz_targets.target import Target
from hypothesis import strategies as st

from rap_edge.export.commands.explain import explain
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, graph_hash
from rap_edge.runtime.checks.bounds import printable
from rap_edge.runtime.doctor.bundle import bundle_section
from rap_edge.runtime.doctor.machine import Facts
from rap_edge.runtime.engines.preflight import Machine
from rap_edge.runtime.machine.cuda_driver import CudaDevice, CudaDriver

_ADA = CudaDevice(0, "NVIDIA RTX 4000 Ada", "8.9", 20 << 30, "GPU-ada")
_GPU = Facts(
    machine=Machine("linux-x86_64", CudaDriver("13.0", (_ADA,), ""), {"tensorrt_rtx": "1.7.1.116"}),
    management=None,
    nvidia_hardware=True,
    providers=("CPUExecutionProvider",),
    features=("AVX2",),
)
_LEDGER = {
    "graph": "dit",
    "node": "blocks.0/MatMul",
    "op": "MatMul",
    "decision": "int8",
    "reason": "Saves 0.1 ms per chunk, measured on this CPU, and the gates hold.",
    "sensitivity_db": 55.5,
    "milliseconds_saved": 0.1,
    "measured": True,
    "observer": "max",
    "smoothed": True,
}


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """The tiny bundle with everything in it that a manifest can speak of; it goes when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    add_golden(write_tiny_bundle(Path(folder.name) / "bundle"))
    return folder


def _root() -> Path:
    return Path(_folder().name) / "bundle"


@functools.cache
def _document() -> dict[str, Any]:
    manifest = Bundle.open(_root()).manifest
    document: dict[str, Any] = json.loads(manifest.to_json())
    document["precision"] = "int8"
    document["calibration"] = {
        "target": {"activation_dtype": "uint8", "weight_limit": 64.0},
        "ledger": [_LEDGER],
        "gates": {"psnr": 38.0},
    }
    document["provenance"] = {"weights": "random", "seed": 3, "versions": {"torch": "2.13.0"}}
    document["islands"] = [{"graph": "dit", "node": "norm", "rule": "norm", "reason": "overflows"}]
    document["parity"] = {"graphs": {"dit": {"psnr": 90.0, "max_abs": 1e-5}}}
    document["engines"] = {
        name: [
            {
                "file": graph.file,
                "backend": "tensorrt-rtx",
                "version": "1.7.1.116",
                "platform": "linux-x86_64",
                "compute_capabilities": ["8.0+"],
                "profile": "ampere+",
                "graph_sha256": graph_hash(manifest.files, graph),
                "evidence": {"attention": {"expected": 2, "fused": 2}, "traffic_bytes": 1 << 20},
                "activation_bytes": 1 << 20,
            }
        ]
        for name, graph in manifest.graphs.items()
    }
    return document


def _read(text: str) -> None:
    (_root() / MANIFEST_NAME).write_text(text, encoding="utf-8", errors="surrogatepass")
    bundle = Bundle.open(_root())
    section = bundle_section(bundle, _GPU)
    for finding in section.findings:
        assert printable(finding.text + finding.cure), f"a finding steers the terminal: {finding}"
    assert type(bundle.manifest).from_json(bundle.manifest.to_json()) == bundle.manifest
    explain(bundle.root, "dit:blocks.0")


MANIFEST = Target("manifest", st.deferred(lambda: json_mutants(_document())), _read)
