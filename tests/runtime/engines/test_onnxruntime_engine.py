"""What ONNX Runtime keeps between two runs, and what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from helpers.bundles.handmade import FLOAT, helper, save

from rap_edge.runtime.bundle.manifest import GraphInfo, TensorInfo
from rap_edge.runtime.engines.onnxruntime_engine import CPU_ONLY, OnnxRuntimeEngine
from rap_edge.runtime.errors import EngineError, MemoryPlanError

WORKING_MIB = 256
RESIDENT = """
import sys
from pathlib import Path
from rap_edge.runtime.bundle.manifest import GraphInfo, TensorInfo
from rap_edge.runtime.engines.onnxruntime_engine import CPU_ONLY, OnnxRuntimeEngine

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


def large(folder: Path, mebibytes: int = WORKING_MIB) -> Path:
    """A number in and a number out, and much in between."""
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [1], [mebibytes << 18])
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["many"]),
        helper.make_node("Sin", ["many"], ["sines"]),
        helper.make_node("ReduceMax", ["sines"], ["y"], keepdims=1),
    ]
    return save(folder, "large", nodes, [("x", FLOAT, (1,))], [("y", FLOAT, (1,))], [shape])


FAILING = """
import sys
from pathlib import Path
from rap_edge.runtime.bundle.manifest import GraphInfo, TensorInfo
from rap_edge.runtime.errors import EngineError
from rap_edge.runtime.engines.onnxruntime_engine import CPU_ONLY, OnnxRuntimeEngine

path = Path(sys.argv[1])
info = GraphInfo(path.name, (TensorInfo("x", "float32", (1,)),), (TensorInfo("y", "float32", (1,)),))
try:
    execution = OnnxRuntimeEngine("division", info, path, 1, CPU_ONLY).prepare()
    execution.buffers["x"][...] = 2.0
    execution.run()
except EngineError as error:
    print(error)
"""


@pytest.mark.parametrize("severity", [None, "3", "5", "x"])
def test_an_error_is_one_sentence_beside_which_onnx_runtime_logs_only_if_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, severity: str | None
) -> None:
    # Takes the element of that number from a vector of one.
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["x", "index"], ["y"]),
    ]
    path = save(tmp_path, "taking", nodes, [("x", FLOAT, (1,))], [("y", FLOAT, (1,))], [])
    monkeypatch.delenv("RAP_ONNXRUNTIME_LOG", raising=False)
    if severity is not None:
        monkeypatch.setenv("RAP_ONNXRUNTIME_LOG", severity)
    command = [sys.executable, "-c", FAILING, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    if severity in (None, "3"):
        assert "Graph 'division' failed in ONNX Runtime" in done.stdout
        assert ("[E:onnxruntime" in done.stderr) == (severity == "3")
    else:
        assert "RAP_ONNXRUNTIME_LOG must be a whole number from 0 to 4" in done.stdout


@pytest.mark.parametrize("threads", [0, -1, 257, 100_000])
def test_threads_that_no_machine_has_are_refused_before_they_are_made(tmp_path: Path, threads: int) -> None:
    info = GraphInfo("large.onnx", (), ())
    with pytest.raises(EngineError, match="must be a whole number from 1 to 256"):
        OnnxRuntimeEngine("large", info, large(tmp_path), threads, CPU_ONLY)


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


def test_memory_that_runs_out_in_a_graph_is_no_fault_of_the_graph(tmp_path: Path) -> None:
    path = large(tmp_path, 1 << 24)
    info = GraphInfo(path.name, (TensorInfo("x", "float32", (1,)),), (TensorInfo("y", "float32", (1,)),))
    execution = OnnxRuntimeEngine("large", info, path, 1, CPU_ONLY).prepare()
    with pytest.raises(MemoryPlanError, match="memory of this machine is full"):
        execution.run()
