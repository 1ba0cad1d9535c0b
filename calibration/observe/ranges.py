"""What the layers' activations look like over a recorded set: histograms, and largest values per level and channel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from rap_edge.export.rewriter import static_shape
from rap_edge.export.stages import StageProgress

from ..record.recording import CalibrationSet
from ..targets import Target
from .layers import FLOATS, Layer
from .observers import OBSERVERS, Histogram

EXPOSED_LIMIT = 1 << 30
LEVEL_DOMINANCE, CHANNEL_DOMINANCE = 3.0, 12.0


@dataclass(frozen=True)
class Extent:
    """What the 8-bit numbers of an activation span: `low` <= 0 <= `high`."""

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        """The larger of the two sides."""
        return max(-self.low, self.high)

    def within(self, limit: float) -> Extent:
        """Both sides cut to a magnitude."""
        return Extent(max(self.low, -limit), min(self.high, limit))


@dataclass
class Activation:
    """One activation over the set.

    Attributes:
        histogram: of its magnitudes.
        levels: largest magnitude per denoise level; the key is None in graphs that do not know the level.
        channels: float32 [channels], largest magnitude per input channel of the layer that reads it, or None.
        extent: the smallest and the largest value.
    """

    histogram: Histogram = field(default_factory=Histogram)
    levels: dict[float | None, float] = field(default_factory=dict)
    channels: NDArray[np.float32] | None = None
    extent: Extent = Extent(0.0, 0.0)

    def add(self, values: NDArray[Any], level: float | None, channel_axis: int | None) -> None:
        """See one run's values."""
        floats = np.asarray(values, np.float32)
        self.histogram.add(floats)
        seen = Extent(float(floats.min(initial=0.0)), float(floats.max(initial=0.0)))
        self.extent = Extent(min(self.extent.low, seen.low), max(self.extent.high, seen.high))
        self.levels[level] = max(self.levels.get(level, 0.0), seen.magnitude)
        if channel_axis is not None:
            others = tuple(i for i in range(floats.ndim) if i != channel_axis % floats.ndim)
            largest = np.maximum(floats.max(axis=others), -floats.min(axis=others))
            self.channels = largest if self.channels is None else np.maximum(self.channels, largest)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "counts": [int(count) for count in self.histogram.counts],
            "width": self.histogram.width,
            "largest": self.histogram.largest,
            "levels": [[level, value] for level, value in self.levels.items()],
            "channels": None if self.channels is None else [float(value) for value in self.channels],
            "extent": [self.extent.low, self.extent.high],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Activation:
        """What `to_dict` gave."""
        histogram = Histogram()
        histogram.counts = np.asarray(data["counts"], np.float64)
        histogram.width, histogram.largest = float(data["width"]), float(data["largest"])
        channels = None if data["channels"] is None else np.asarray(data["channels"], np.float32)
        levels = {level: float(value) for level, value in data["levels"]}
        return cls(histogram, levels, channels, Extent(*data["extent"]))

    @property
    def level_ratio(self) -> float:
        """How much larger the largest level is than the median one; 1 with fewer than two levels."""
        values = sorted(self.levels.values())
        return values[-1] / max(float(np.median(values)), 1e-12) if len(values) > 1 else 1.0

    @property
    def channel_ratio(self) -> float:
        """How much larger the largest channel is than the median one; 1 where channels are not known."""
        if self.channels is None or self.channels.size < 2:
            return 1.0
        return float(self.channels.max() / max(float(np.median(self.channels)), 1e-12))

    @property
    def dominated(self) -> bool:
        """Whether one level or channel needs a scale that is too coarse for the others."""
        return self.level_ratio > LEVEL_DOMINANCE or self.channel_ratio > CHANNEL_DOMINANCE


def observe(
    model_path: Path,
    layers: Sequence[Layer],
    recorded: CalibrationSet,
    graph: str,
    threads: int,
    progress: StageProgress | None = None,
) -> dict[str, Activation]:
    """Run a graph over its part of the set and look at every layer's input and output.

    Args:
        model_path: the graph; is not changed.
        layers: of this graph.
        recorded: the set.
        graph: its name in the set.
        threads: of ONNX Runtime.
        progress: advances by 1 in all.
    """
    entries = recorded.of(graph)
    found: dict[str, Activation] = {}
    channel_axes = {layer.input: 1 if layer.op == "Conv" else -1 for layer in layers}
    names = sorted({name for layer in layers for name in (layer.input, layer.output)})
    parts = list(_parts(ir.load(model_path), names))
    for part in parts:
        session = _exposed(model_path, part, threads)
        outputs = [output.name for output in session.get_outputs()]
        for entry in entries:
            inputs = recorded.load(entry)
            values = dict(zip(outputs, session.run(None, inputs), strict=True)) | inputs
            for name in part:
                activation = found.setdefault(name, Activation())
                activation.add(values[name], entry.stratum.level, channel_axes.get(name))
            if progress is not None:
                progress.advance(1.0 / (len(entries) * len(parts)))
    return found


def extents_by(observer: str, activations: Mapping[str, Activation], target: Target) -> dict[str, Extent]:
    """What an observer lets the target's numbers span, for every activation."""
    return {
        name: activation.extent.within(OBSERVERS[observer](activation.histogram, _levels(activation, target)))
        for name, activation in activations.items()
    }


def _levels(activation: Activation, target: Target) -> int:
    """Steps from zero to the activation's largest magnitude."""
    width = activation.extent.high - activation.extent.low
    if target.activation_dtype != "uint8" or width == 0.0:
        return round(target.activation_limit)
    return round(target.activation_limit * activation.extent.magnitude / width)


def _parts(model: ir.Model, names: Sequence[str]) -> Iterator[list[str]]:
    """The names in groups whose values fit into `EXPOSED_LIMIT` bytes together."""
    shapes = {str(value.name): static_shape(value) for node in model.graph for value in node.outputs}
    part: list[str] = []
    size = 0
    for name in names:
        shape = shapes.get(name)
        needed = 4 * math.prod(shape) if shape is not None else EXPOSED_LIMIT // 16
        if part and size + needed > EXPOSED_LIMIT:
            yield part
            part, size = [], 0
        part.append(name)
        size += needed
    if part:
        yield part


def _exposed(path: Path, names: Sequence[str], threads: int) -> ort.InferenceSession:
    """A session whose outputs are the graph's and the named values."""
    model = ir.load(path)
    there = {str(value.name) for value in model.graph.outputs}
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    for name in names:
        value = values.get(name)
        if value is not None and name not in there and value.dtype in FLOATS:
            model.graph.outputs.append(value)
    # Weights in external files are found beside the graph.
    exposed = path.with_name(f".{path.stem}.exposed.onnx")
    try:
        ir.save(model, exposed, external_data=f".{path.stem}.exposed.data", size_threshold_bytes=1 << 16)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        return ort.InferenceSession(str(exposed), options, providers=["CPUExecutionProvider"])
    finally:
        exposed.unlink(missing_ok=True)
        exposed.with_name(f".{path.stem}.exposed.data").unlink(missing_ok=True)
