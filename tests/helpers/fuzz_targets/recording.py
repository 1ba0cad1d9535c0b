"""The index of a recorded calibration set."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

from helpers.bundles.tiny import TINY
from helpers.fuzz_targets.mutations import json_mutants
from helpers.fuzz_targets.target import Target

from rap_edge.calibration.record.recording import FORMAT, SET_NAME, open_set
from rap_edge.runtime.bundle.contract import contract
from rap_edge.runtime.bundle.manifest import FileInfo, GraphInfo, Manifest
from rap_edge.runtime.bundle.precision import Precision

_GRAPHS = {name: GraphInfo(f"{name}.onnx", *ends) for name, ends in contract(TINY, "float32").items()}
_MANIFEST = Manifest(TINY, Precision.FP32, _GRAPHS, {graph.file: FileInfo(1, "0" * 64) for graph in _GRAPHS.values()})
_INDEX = {
    "format": FORMAT,
    "spec": json.loads(TINY.to_json()),
    "graphs": dict.fromkeys(_GRAPHS, "0" * 64),
    "origin": "demo assets",
    "entries": [
        {
            "graph": "dit",
            "stratum": {"portrait": 0, "sound": "speech", "chunk": 1, "level": 500.0},
            "file": "dit-00001.npz",
            "sha256": "0" * 64,
        }
    ],
}


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fuzz-")


def _read(text: str) -> None:
    folder = Path(_folder().name)
    (folder / SET_NAME).write_text(text, encoding="utf-8", errors="surrogatepass")
    found = open_set(folder, _MANIFEST)
    assert found.sha256
    found.strata()


RECORDING = Target("calibration set", json_mutants(_INDEX), _read)
