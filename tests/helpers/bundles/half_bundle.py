"""fp16 bundles without the export's comparison, and a crude int8 of them: graphs to build plans from."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rap_edge.export.bundle_writer import new_bundle
from rap_edge.export.capture.five_graphs import graph_sources
from rap_edge.export.exporter import ExportSettings, write_graph
from rap_edge.models.networks import Networks
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import GoldenInfo, Manifest
from rap_edge.runtime.bundle.precision import Precision


def write_half_bundle(networks: Networks, folder: Path) -> Path:
    """Five fp16 graphs with their manifest."""
    with new_bundle(folder) as writer:
        settings = ExportSettings(precision=Precision.FP16)
        written = {
            name: write_graph(source, networks.spec, settings, writer)
            for name, source in graph_sources(networks).items()
        }
        manifest = Manifest(
            spec=networks.spec,
            precision=Precision.FP16,
            graphs={name: item.info for name, item in written.items()},
            files=writer.hashes(),
            islands=tuple(island for item in written.values() for island in item.islands),
        )
        writer.commit(manifest)
    return folder


def copied(folder: Path, target: Path) -> Path:
    """The same bundle in a new folder."""
    shutil.copytree(folder, target)
    return target


def quantise_crudely(folder: Path, target: Path) -> Path:
    """The same bundle with Q/DQ around every product that has constant weights, with made-up activation scales."""
    manifest = Bundle.open(folder).manifest
    islands = {(island.graph, island.node) for island in manifest.islands}
    with new_bundle(target) as writer:
        for name, graph in manifest.graphs.items():
            model = onnx.load(folder / graph.file)
            _quantise(model, {node for of, node in islands if of == name})
            writer.add(graph.file, model.SerializeToString())
        writer.commit(
            dataclasses.replace(
                manifest,
                precision=Precision.INT8,
                graphs={name: dataclasses.replace(graph, data=()) for name, graph in manifest.graphs.items()},
                files=writer.hashes(),
                golden=GoldenInfo(),
            )
        )
    return target


def _quantise(model: onnx.ModelProto, islands: set[str]) -> None:
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    activations: dict[str, str] = {}
    zero = numpy_helper.from_array(np.zeros((), np.int8), "crude.zero")
    scale = numpy_helper.from_array(np.array(0.05, np.float16), "crude.scale")
    graph.initializer.extend([zero, scale])
    for index, node in enumerate(graph.node):
        fits = node.op_type in ("MatMul", "Gemm", "Conv") and len(node.input) > 1 and node.input[1] in weights
        if fits and node.name not in islands and weights[node.input[1]].data_type == onnx.TensorProto.FLOAT16:
            source = node.input[0]
            if source not in activations:
                activations[source] = f"{source}.dequantised"
                nodes.append(helper.make_node("QuantizeLinear", [source, scale.name, zero.name], [f"{source}.int8"]))
                nodes.append(
                    helper.make_node(
                        "DequantizeLinear", [f"{source}.int8", scale.name, zero.name], [activations[source]]
                    )
                )
            node.input[0] = activations[source]
            node.input[1] = _dequantised_weight(graph, weights[node.input[1]], _channel_axis(node), nodes, index)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _channel_axis(node: onnx.NodeProto) -> int:
    transposed = any(item.name == "transB" and item.i for item in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def _dequantised_weight(
    graph: onnx.GraphProto, weight: onnx.TensorProto, axis: int, nodes: list[onnx.NodeProto], index: int
) -> str:
    array = numpy_helper.to_array(weight).astype(np.float32)
    others = tuple(i for i in range(array.ndim) if i != axis)
    scale = np.maximum(np.abs(array).max(others), 1e-3) / 127
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    stored = np.clip(np.rint(array / scale.reshape(shape)), -127, 127).astype(np.int8)
    base = f"crude.{index}.weight"
    graph.initializer.extend(
        [
            numpy_helper.from_array(stored, base),
            numpy_helper.from_array(scale.astype(np.float16), f"{base}.scale"),
            numpy_helper.from_array(np.zeros(scale.shape, np.int8), f"{base}.zero"),
        ]
    )
    inputs = [base, f"{base}.scale", f"{base}.zero"]
    nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{base}.dequantised"], axis=axis))
    return f"{base}.dequantised"
