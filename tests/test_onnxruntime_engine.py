"""What ONNX Runtime keeps between two runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from handmade import FLOAT, helper, save

WORKING_MIB = 256
RESIDENT = """
import sys
from pathlib import Path
from rap_edge.runtime.bundle import GraphInfo, TensorInfo
from rap_edge.runtime.onnxruntime_engine import CPU_ONLY, OnnxRuntimeEngine

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) >> 10

path = Path(sys.argv[1])
info = GraphInfo(path.name, (TensorInfo("x", "float32", (1,)),), (TensorInfo("y", "float32", (1,)),))
engine = OnnxRuntimeEngine("large", info, path, 1, CPU_ONLY, keeps_memory=sys.argv[2] == "keeps")
execution, before = engine.prepare(), resident()
execution.buffers["x"][...] = 0.5
execution.run()
print(resident() - before, float(execution.buffers["y"][0]))
"""


def large(folder: Path) -> Path:
    """A number in and a number out, and much in between."""
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [1], [WORKING_MIB << 18])
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["many"]),
        helper.make_node("Sin", ["many"], ["sines"]),
        helper.make_node("ReduceMax", ["sines"], ["y"], keepdims=1),
    ]
    return save(folder, "large", nodes, [("x", FLOAT, (1,))], [("y", FLOAT, (1,))], [shape])


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory")
def test_working_memory_stays_for_the_next_run_or_is_given_back(tmp_path: Path) -> None:
    path = large(tmp_path)
    grown = {}
    for what in ("keeps", "gives back"):
        command = [sys.executable, "-c", RESIDENT, str(path), what]
        grown[what], y = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert float(y) == pytest.approx(0.479426, abs=1e-5)
    assert int(grown["keeps"]) > WORKING_MIB
    assert int(grown["gives back"]) < WORKING_MIB / 4
