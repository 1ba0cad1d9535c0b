from pathlib import Path

import pytest
from helpers.bundles.handmade import FLOAT, helper, save

from rap_edge.runtime.bundle.manifest import GraphInfo, TensorInfo, WorkingMemory
from rap_edge.runtime.engines.onnxruntime_engine import CPU_ONLY, OnnxRuntimeEngine
from rap_edge.runtime.engines.small_graphs import SMALL, threads_for


def graph(flops: int, memory: tuple[WorkingMemory, ...] = ()) -> GraphInfo:
    ends = (TensorInfo("x", "float32", (1,)),), (TensorInfo("y", "float32", (1,)),)
    return GraphInfo("dit.onnx", *ends, flops=flops, memory=memory)


@pytest.mark.parametrize(("flops", "threads"), [(1, 1), (SMALL - 1, 1), (SMALL, 4), (0, 4)])
def test_a_graph_that_is_known_to_be_small_takes_one_thread(flops: int, threads: int) -> None:
    assert threads_for(graph(flops), 4) == threads


def test_a_graph_that_takes_sound_of_any_length_may_be_any_work() -> None:
    assert threads_for(graph(1, (WorkingMemory(1, 1),)), 4) == 4


@pytest.mark.parametrize(("flops", "threads"), [(1, 1), (SMALL, 2)])
def test_an_engine_says_what_it_was_given_and_takes_what_it_is_worth(tmp_path: Path, flops: int, threads: int) -> None:
    nodes = [helper.make_node("Sin", ["x"], ["y"])]
    path = save(tmp_path, "dit", nodes, [("x", FLOAT, (1,))], [("y", FLOAT, (1,))])
    engine = OnnxRuntimeEngine("dit", graph(flops), path, 2, CPU_ONLY)
    assert engine.session.get_session_options().intra_op_num_threads == threads
    assert engine.device.endswith("2 threads")
