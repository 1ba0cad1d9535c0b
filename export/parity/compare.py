"""Does a graph compute what the PyTorch network computes? Per graph on real inputs, and over a roll-out.

The reference runs first and is recorded: what the chunk loop gave each network in its last chunk, what the network
answered, and the frames. Then every graph is run on the recorded inputs, and the same loop is run on the graphs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines.interface import Array, Engine, Execution
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.loop.interface import encode_reference
from rap_edge.runtime.loop.on_host import host_loop
from rap_edge.runtime.reports.likeness import EXACT_PSNR
from rap_edge.runtime.session.sample_buffer import SampleBuffer
from rap_edge.runtime.spec import ModelSpec

from .check_inputs import RealInputs

ROLLOUT_SEED = 0
# From the darkest to the brightest pixel.
_PEAKS = {np.dtype(np.uint8): 255.0, np.dtype(np.float32): 2.0}


@dataclass(frozen=True)
class Gate:
    """What an export must reach.

    Attributes:
        tensor_psnr: least PSNR in dB of a graph's float outputs, against their largest magnitude.
        frame_psnr: least PSNR in dB of the decoder's frames on recorded latents.
        rollout_psnr: least PSNR in dB of any chunk of the roll-out, its state fed back.
    """

    tensor_psnr: float
    frame_psnr: float
    rollout_psnr: float


GATES: Mapping[Precision, Gate] = MappingProxyType(
    {
        Precision.FP32: Gate(80.0, 55.0, 60.0),
        Precision.FP16: Gate(45.0, 40.0, Precision.FP16.frame_psnr),
    },
)


@dataclass(frozen=True)
class Figures:
    """How far an output is from the reference; `psnr` is capped at `EXACT_PSNR`."""

    max_abs: float
    psnr: float

    def to_dict(self) -> dict[str, float]:
        """The entry of the manifest."""
        return {"max_abs": self.max_abs, "psnr": self.psnr}


@dataclass(frozen=True)
class Case:
    """One recorded run of a network: inputs and reference outputs by name."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclass
class Recorder:
    """Keeps the first and the last recorded run of every graph; `on_run` is called after every run, kept or not."""

    active: bool = False
    on_run: Callable[[], None] = lambda: None
    cases: dict[str, list[Case]] = field(default_factory=dict)

    def watch(self, engines: Mapping[str, Engine]) -> dict[str, Engine]:
        """The same engines, counted, and recorded while `active`."""
        return {name: _RecordedEngine(name, engine, self) for name, engine in engines.items()}

    def keep(self, name: str, case: Case) -> None:
        """Record a run."""
        kept = self.cases.setdefault(name, [])
        if len(kept) == 2:
            kept.pop()
        kept.append(case)


class _RecordedEngine:
    def __init__(self, name: str, engine: Engine, recorder: Recorder) -> None:
        self.name, self._engine, self._recorder = name, engine, recorder
        self.backend, self.device, self.graph = engine.backend, engine.device, engine.graph

    def prepare(self, buffers: Mapping[str, Array] | None = None, sizes: Mapping[str, int] | None = None) -> Execution:
        return _RecordedExecution(self, self._engine.prepare(buffers, sizes), self._recorder)


class _RecordedExecution:
    def __init__(self, engine: _RecordedEngine, execution: Execution, recorder: Recorder) -> None:
        self._engine, self._execution, self._recorder = engine, execution, recorder
        self.buffers = execution.buffers

    def run(self) -> None:
        inputs: dict[str, Array] = {}
        if self._recorder.active:
            inputs = {tensor.name: self.buffers[tensor.name].copy() for tensor in self._engine.graph.inputs}
        self._execution.run()
        if self._recorder.active:
            outputs = {tensor.name: self.buffers[tensor.name].copy() for tensor in self._engine.graph.outputs}
            self._recorder.keep(self._engine.name, Case(inputs, outputs))
        self._recorder.on_run()

    def capture(self) -> str:
        return self._execution.capture()


def roll_out(
    spec: ModelSpec, engines: Mapping[str, Engine], inputs: RealInputs, chunks: int
) -> Iterator[NDArray[np.uint8]]:
    """Encode the portrait, then yield the new frames of chunk after chunk: the runtime's own loop, its state fed back.

    Raises:
        NumericalError: a stage gave NaN or Inf.
    """
    reference = encode_reference(spec, engines["vae_encoder"], inputs.portrait)
    loop = host_loop(engines, spec, reference, ROLLOUT_SEED)
    buffer = SampleBuffer(spec.window_samples)
    buffer.append(inputs.waveform(chunks * spec.chunk_samples))
    for index in range(chunks):
        start, stop = spec.window_of(index)
        buffer.read(start, stop, loop.waveform)
        yield loop.render(spec.steps)[0]
        buffer.drop_before(stop)


def compare(reference: Array, got: Array, peak: float | None = None) -> Figures:
    """Figures of `got` against `reference`.

    Args:
        reference: any shape.
        got: the same shape.
        peak: of the PSNR; None takes 255 for uint8 and the reference's largest magnitude for floats.
    """
    expected, actual = reference.astype(np.float64), got.astype(np.float64)
    if peak is None:
        peak = 255.0 if reference.dtype == np.uint8 else float(np.abs(expected).max(initial=0.0))
    difference = np.abs(expected - actual)
    mean_square = float(np.square(difference).mean())
    if not math.isfinite(mean_square):
        return Figures(max_abs=math.inf, psnr=-math.inf)
    psnr = EXACT_PSNR if mean_square == 0.0 else 20.0 * math.log10(max(peak, 1e-12) / math.sqrt(mean_square))
    return Figures(max_abs=float(difference.max()), psnr=min(psnr, EXACT_PSNR))


def check_graph(name: str, engine: Engine, cases: Iterable[Case], gate: Gate) -> Figures:
    """Run a graph on recorded inputs; returns the worst figures of its outputs.

    Raises:
        ExportError: an output is over the gate; names the graph, the output and the figure.
    """
    worst = Figures(0.0, EXACT_PSNR)
    for case in cases:
        outputs = _run(engine, case)
        for output, reference in case.outputs.items():
            peak, least = (None, gate.tensor_psnr) if output != "frames" else (_PEAKS[reference.dtype], gate.frame_psnr)
            figures = compare(reference, outputs[output], peak)
            _require(figures, least, f"Graph {name!r}", f"output {output!r}")
            worst = Figures(max(worst.max_abs, figures.max_abs), min(worst.psnr, figures.psnr))
    return worst


def check_rollout(
    reference: list[NDArray[np.uint8]], frames: list[NDArray[np.uint8]], gate: Gate
) -> tuple[Figures, list[float]]:
    """Compare two roll-outs chunk by chunk; returns the worst figures and every chunk's PSNR.

    Raises:
        ExportError: a chunk is over the gate; names it and the figure.
    """
    every = [compare(expected, got) for expected, got in zip(reference, frames, strict=True)]
    for index, figures in enumerate(every):
        _require(figures, gate.rollout_psnr, "The roll-out", f"chunk {index}")
    worst = Figures(max(figures.max_abs for figures in every), min(figures.psnr for figures in every))
    return worst, [figures.psnr for figures in every]


def _run(engine: Engine, case: Case) -> Mapping[str, Array]:
    sizes: dict[str, int] = {}
    for tensors, arrays in ((engine.graph.inputs, case.inputs), (engine.graph.outputs, case.outputs)):
        for tensor in tensors:
            found = zip(tensor.shape, arrays[tensor.name].shape, strict=True)
            sizes |= {dimension: size for dimension, size in found if isinstance(dimension, str)}
    execution = engine.prepare(sizes=sizes)
    for name, value in case.inputs.items():
        execution.buffers[name][...] = value
    execution.run()
    return execution.buffers


def _require(figures: Figures, least_psnr: float, what: str, where: str) -> None:
    if not figures.psnr >= least_psnr:
        value = f"{figures.psnr:.1f} dB" if math.isfinite(figures.psnr) else "NaN or Inf"
        raise ExportError(
            f"{what} differs from PyTorch in {where}: PSNR {value}, at least {least_psnr:.0f} dB needed (largest "
            f"difference {figures.max_abs:.3g}); another precision may pass, else report the checkpoint's config."
        )
