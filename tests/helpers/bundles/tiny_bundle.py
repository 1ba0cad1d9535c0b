"""A real bundle of the tiny model: five ONNX graphs, written node by node, with a manifest and a golden portrait.

The picture's brightness follows the loudness of its own audio, as in `tiny`, but here ONNX Runtime computes it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from helpers.bundles.tiny import TINY
from onnx import TensorProto, helper, numpy_helper

from rap_edge.runtime.bundle.bundle import hash_file
from rap_edge.runtime.bundle.contract import audio_state_names, contract
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, GoldenInfo, GraphInfo, Manifest, WorkingMemory
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.outputs.png import encode_png
from rap_edge.runtime.spec import AudioEncodeMode, ModelSpec

_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


class Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, op: str, *inputs: object, output: str | None = None, **attributes: object) -> str:
        """Add a node whose inputs are names or numbers; returns its output's name."""
        names = [item if isinstance(item, str) else self.constant(item) for item in inputs]
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], **attributes))
        return output

    def constant(self, value: object) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name


def _audio_encoder(g: Graph, spec: ModelSpec) -> None:
    frames = g("Reshape", g("Abs", "waveform"), [-1, spec.samples_per_frame])
    column = g("Reshape", g("ReduceMean", frames, [1]), [-1, 1, 1])
    g("Expand", column, [1, spec.feature_layers, spec.feature_width], output="audio_features")


def _conditioner(g: Graph, spec: ModelSpec) -> None:
    loudness = g("ReduceMean", "audio_features", [2, 3, 4], keepdims=0)
    per_latent = g("Gather", loudness, np.arange(spec.chunk_latents) * spec.temporal_compression, axis=1)
    column = g("Reshape", per_latent, [1, spec.chunk_latents, 1, 1])
    wide = g("Expand", column, [1, spec.chunk_latents, spec.audio_tokens, spec.hidden_dim])
    for name in audio_state_names(spec):
        g("Reshape", wide, [1, spec.chunk_latents * spec.audio_tokens, spec.hidden_dim], output=name)


def _dit(g: Graph, spec: ModelSpec) -> None:
    level = g("ReduceMean", "audio_value_00", [2], keepdims=0)
    per_latent = g("Gather", level, np.arange(spec.chunk_latents) * spec.audio_tokens, axis=1)
    target = g("Add", "reference", g("Reshape", per_latent, [1, 1, spec.chunk_latents, 1, 1]))
    time = g("Max", g("Mul", "timestep", 0.001), 0.001)
    # The noise is left in at a tenth, so that the seed shows.
    away = g("Sub", g("Mul", "latents", 0.9), target)
    g("Div", away, time, output="velocity")


def _vae_encoder(g: Graph, spec: ModelSpec) -> None:
    firsts = g("Slice", "frames", [0], [2**31], [0], [spec.temporal_compression])
    planes = g("Transpose", g("Cast", firsts, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    side = spec.spatial_compression
    cells = g("ReduceMean", g("AveragePool", planes, kernel_shape=[side, side], strides=[side, side]), [1])
    scaled = g("Sub", g("Div", cells, 127.5), 1.0) if spec.frames_dtype == "uint8" else cells
    stacked = g("Unsqueeze", g("Transpose", scaled, perm=[1, 0, 2, 3]), [0])
    g("Expand", stacked, [1, spec.latent_channels, 1, 1, 1], output="latents")


def _vae_decoder(g: Graph, spec: ModelSpec) -> None:
    grey = g("ReduceMean", "latents", [0, 1], keepdims=0)
    g("Reshape", g("ReduceMean", g("Abs", grey), [0, 1, 2]), [1], output="magnitude")
    times = -(-np.arange(spec.chunk_frames) // spec.temporal_compression)[-spec.decoded_frames :]
    rows, columns = (np.arange(side) // spec.spatial_compression for side in spec.image_size)
    big = g("Gather", g("Gather", g("Gather", grey, times, axis=0), rows, axis=1), columns, axis=2)
    shape = [spec.decoded_frames, *spec.image_size, 3]
    if spec.frames_dtype != "uint8":
        g("Expand", g("Unsqueeze", big, [3]), shape, output="frames")
        return
    light = g("Clip", g("Mul", g("Add", big, 1.0), 127.5), 0.0, 255.0)
    colour = g("Expand", g("Unsqueeze", light, [3]), shape)
    g("Cast", colour, output="frames", to=TensorProto.UINT8)


_BUILDERS = {
    "audio_encoder": _audio_encoder,
    "conditioner": _conditioner,
    "dit": _dit,
    "vae_encoder": _vae_encoder,
    "vae_decoder": _vae_decoder,
}


def write_png(path: Path, pixels: np.ndarray) -> Path:
    """Save uint8 [H, W, 3] RGB."""
    path.write_bytes(encode_png(pixels))
    return path


def write_tiny_bundle(
    root: Path, spec: ModelSpec = TINY, mode: AudioEncodeMode = "stream", memory: tuple[WorkingMemory, ...] = ()
) -> Path:
    """Write the bundle into the new folder `root`; `memory` is what its audio encoder takes in the mode `once`."""
    root.mkdir()
    graphs = {}
    for name, (inputs, outputs) in contract(spec, "float32", mode).items():
        g = Graph()
        _BUILDERS[name](g, spec)
        values = [
            [helper.make_tensor_value_info(t.name, _TYPES[t.dtype], t.shape) for t in tensors]
            for tensors in (inputs, outputs)
        ]
        graph = helper.make_graph(g.nodes, name, *values, g.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.save(model, root / f"{name}.onnx")
        graphs[name] = GraphInfo(f"{name}.onnx", inputs, outputs, memory=memory if name == "audio_encoder" else ())
    face = np.full((*spec.image_size, 3), 60, np.uint8)
    face[:, spec.width // 2 :] = 90
    write_png(root / "portrait.png", face)
    files = {path.name: hash_file(path) for path in sorted(root.iterdir())}
    manifest = Manifest(spec, Precision.FP32, graphs, files, golden=GoldenInfo("portrait.png"))
    (root / MANIFEST_NAME).write_text(manifest.to_json())
    return root
