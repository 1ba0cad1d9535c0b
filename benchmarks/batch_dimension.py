"""rap-small's graphs for several viewers on the CPU: in turn, as one batch, and side by side with a thread each.

    python benchmarks/batch_dimension.py --rounds 15

The graphs of a chunk are captured with a batch dimension of 1 and of every size, with the passes of an export, and take
turns in ONNX Runtime on random inputs: medians of the three ways, and whether each row of a batch has the bits that it
has alone. "int8" is the same graphs with Q/DQ of random ranges around every product, which tells times and no quality.
Only these sizes are tried; the product has no such graphs, because of what this prints.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from rap_edge.export.capture.five_graphs import GraphSource, capture, graph_sources
from rap_edge.export.hybrid_attention.onnx_function import carry_definition
from rap_edge.export.passes.registry import choose_passes
from rap_edge.models import random_networks
from rap_edge.models.presets import RAP_SMALL
from rap_edge.runtime.bundle.manifest import GraphInfo, TensorInfo
from rap_edge.runtime.checks.bounds import Whole, argument
from rap_edge.runtime.engines.onnxruntime_engine import CPU_ONLY, OnnxRuntimeEngine
from rap_edge.runtime.machine.available import available_cores

SIZES = (2, 4)
Arrays = dict[str, NDArray[np.float32]]


class _Sounds(nn.Module):
    """The audio encoder without its contract's first row."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.encoder.encode(waveforms)


class _Clips(nn.Module):
    """The decoder for several clips."""

    def __init__(self, vae: nn.Module, frames: int) -> None:
        super().__init__()
        self.vae, self.frames = vae, frames

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        levels = self.vae.decode(latents, self.frames) * 127.5 + 127.5
        pixels = levels.round().clamp(0.0, 255.0).permute(0, 2, 3, 4, 1)
        return pixels.to(torch.uint8), levels.abs().mean(-1).mean(-1).mean((-1, -2))


def sources(batch: int) -> Iterator[GraphSource]:
    """The graphs of a chunk with `batch` rows."""
    networks = random_networks(RAP_SMALL, 0)
    modules = {
        "audio_encoder": _Sounds(networks.audio_encoder),
        "vae_decoder": _Clips(networks.vae, networks.spec.decoded_frames),
    }
    for name, source in graph_sources(networks).items():
        if name == "vae_encoder":
            continue

        def wider(tensor: TensorInfo, name: str = name) -> TensorInfo:
            if tensor.name == "timestep":
                return tensor
            rowless = (name, tensor.name) in (("audio_encoder", "audio_features"), ("vae_decoder", "frames"))
            return replace(tensor, shape=(batch, *(tensor.shape if rowless else tensor.shape[1:])))

        module = modules.get(name, source.module).eval()
        yield GraphSource(name, module, tuple(map(wider, source.inputs)), tuple(map(wider, source.outputs)))


def write(source: GraphSource, folder: Path) -> GraphInfo:
    """Capture a graph as an export in fp32 does."""
    model = capture(source, RAP_SMALL)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for item in choose_passes(None, "cpu"):
        item.rewrite(model)
        ShapeInferencePass()(model)
    carry_definition(model)
    path = folder / f"{source.name}-{source.inputs[0].shape[0]}.onnx"
    ir.save(model, path)
    return GraphInfo(str(path), source.inputs, source.outputs)


class _Drawn(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, rows: list[Arrays]) -> None:
        self._rows = iter(rows)

    def get_next(self) -> Arrays | None:
        return next(self._rows, None)


def in_eight_bits(graph: GraphInfo, rows: list[Arrays]) -> GraphInfo:
    """The graph with Q/DQ around its products."""
    path = graph.file.replace(".onnx", "-int8.onnx")
    quantize_static(
        graph.file,
        path,
        _Drawn(rows),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"QuantizeBias": False, "WeightSymmetric": True},
    )
    return replace(graph, file=path)


def drawn(graph: GraphInfo, seed: int) -> Arrays:
    """Inputs of one viewer."""
    rng = np.random.default_rng(seed)
    return {
        tensor.name: np.float32([625.0]) if tensor.name == "timestep" else rng.standard_normal(tensor.shape, np.float32)
        for tensor in graph.inputs
    }


def bound(name: str, graph: GraphInfo, threads: int, rows: list[Arrays], one_each: bool) -> list:
    """Executions over an engine: one per row, or one for all rows."""
    engine = OnnxRuntimeEngine(name, graph, Path(graph.file), threads, CPU_ONLY)
    whole = {key: row if key == "timestep" else np.concatenate([r[key] for r in rows]) for key, row in rows[0].items()}
    executions = [engine.prepare(row) for row in rows] if one_each else [engine.prepare(whole)]
    for execution in executions:
        execution.run()
    return executions


def at_once(executions: list, threads: int) -> Callable[[], None]:
    """Run them, so many at the same time."""

    def run() -> None:
        for start in range(0, len(executions), threads):
            workers = [threading.Thread(target=item.run) for item in executions[start : start + threads]]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

    return run


def same_rows(alone: list, batch: Mapping[str, NDArray], outputs: tuple[TensorInfo, ...]) -> bool:
    """Whether each row of a batch has the bits that it has alone."""
    for row, execution in enumerate(alone):
        for tensor in outputs:
            expected = execution.buffers[tensor.name]
            if not np.array_equal(batch[tensor.name][row].reshape(expected.shape), expected):
                return False
    return True


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=argument(Whole(1, 1000)), default=15)
    rounds, cores = parser.parse_args().rounds, available_cores()
    # It would have every graph pre-processed, which an export has done.
    logging.disable(logging.WARNING)
    print("| graph | viewers | in turn, ms | one batch | side by side | same bits in the batch |")
    print("|---|--:|--:|--:|--:|---|")
    with tempfile.TemporaryDirectory() as folder:
        graphs = {batch: {s.name: write(s, Path(folder)) for s in sources(batch)} for batch in (1, *SIZES)}
        for kind in ("fp32", "int8"):
            for name, single in graphs[1].items():
                rows = [drawn(single, seed) for seed in range(max(SIZES))]
                for size in SIZES:
                    ends = [single, graphs[size][name]]
                    if kind == "int8":
                        wide = drawn(ends[1], 0)
                        ends = [in_eight_bits(ends[0], rows[:1]), in_eight_bits(ends[1], [wide])]
                    alone = bound(name, ends[0], cores, rows[:size], True)
                    batch = bound(name, ends[1], cores, rows[:size], False)
                    beside = at_once(bound(name, ends[0], 1, rows[:size], True), cores)
                    ways = (lambda a=alone: [item.run() for item in a], batch[0].run, beside)
                    seconds: tuple[list[float], ...] = ([], [], [])
                    for _ in range(rounds):
                        for way, found in zip(ways, seconds, strict=True):
                            started = time.perf_counter()
                            way()
                            found.append(time.perf_counter() - started)
                    told = " | ".join(f"{1e3 * statistics.median(found):.1f}" for found in seconds)
                    same = same_rows(alone, batch[0].buffers, single.outputs) if kind == "fp32" else None
                    verdict = {True: "yes", False: "no", None: "not comparable"}[same]
                    print(f"| `{name}` {kind} | {size} | {told} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
