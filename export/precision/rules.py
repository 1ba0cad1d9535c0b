"""Which nodes stay in fp32, and why.

After ModelOpt's AutoCast: one class per decision, and every decision is logged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from rap_edge.runtime.errors import ExportError

from .operator_types import gives_half

FP16_MAX = 65504.0
FP16_TINY = 2.0**-24
_REDUCTIONS = frozenset(
    ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceL1", "ReduceLogSumExp", "ReduceProd")
)
_NORMALISATIONS = frozenset(
    (
        "LayerNormalization",
        "RMSNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "BatchNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
    )
)
_ARITHMETIC = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Max", "Min", "Neg", "Exp"))
MOVEMENT = frozenset(
    ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "GatherND", "Concat", "Split", "Expand")
    + ("Identity", "Flatten", "Pad", "Tile", "DepthToSpace", "SpaceToDepth")
)
_ROUNDING = frozenset(("Round", "Clip", "Abs", "Floor", "Ceil"))


class Rule(Protocol):
    """Decides which nodes stay in fp32."""

    @property
    def name(self) -> str:
        """What the manifest calls it."""

    @property
    def reason(self) -> str:
        """Why its nodes need fp32."""

    def select(self, graph: ir.Graph) -> Iterable[ir.Node]:
        """The nodes of `graph` that this rule keeps."""


@dataclass(frozen=True)
class NormReduction:
    """Normalisations: the square, the reduction, and all up to where the result meets activations, and a gain there.

    A reciprocal root meets them in fp16: in fp32 it would take a copy of every activation in fp32 along, which
    TensorRT writes to memory between its two kernels.
    """

    name: str = "norm-reduction"
    reason: str = "a square or a sum over many values leaves the range of fp16 (65504) or loses small terms"

    def select(self, graph: ir.Graph) -> Iterable[ir.Node]:
        """See `Rule.select`."""
        for node in graph:
            if node.op_type in _NORMALISATIONS:
                yield node
            elif node.op_type in _REDUCTIONS:
                yield node
                source = node.inputs[0]
                square = source.producer() if source is not None else None
                if square is not None and square.op_type in ("Mul", "Pow", "Abs"):
                    yield square
                yield from self._following(node)

    def _following(self, reduction: ir.Node) -> Iterable[ir.Node]:
        pending, derived = [reduction.outputs[0]], {reduction.outputs[0]}
        while pending:
            statistic = pending.pop()
            for node in statistic.consumers():
                if node.op_type not in _ARITHMETIC:
                    continue
                others = [value for value in node.inputs if value is not None and value.const_value is None]
                inside = derived.issuperset(others)
                if not inside and node.op_type == "Mul" and _fits_as_reciprocal_root(statistic):
                    continue
                yield node
                if not inside:
                    yield from _gain_behind(node)
                elif node.outputs[0] not in derived:
                    derived.add(node.outputs[0])
                    pending.append(node.outputs[0])


@dataclass(frozen=True)
class SoftmaxScale:
    """Softmax outside of an Attention node, and the scaling of its argument."""

    name: str = "softmax-scale"
    reason: str = "exponentials of unscaled scores overflow fp16"

    def select(self, graph: ir.Graph) -> Iterable[ir.Node]:
        """See `Rule.select`."""
        for node in graph:
            if node.op_type in ("Softmax", "LogSoftmax"):
                yield node
                scores = node.inputs[0].producer() if node.inputs[0] is not None else None
                if scores is not None and scores.op_type in ("Mul", "Div", "Sub", "Add"):
                    yield scores


@dataclass(frozen=True)
class TimestepEmbedding:
    """What depends on the noise level alone: its sinusoid, its layers and the modulation."""

    name: str = "timestep-embedding"
    reason: str = "fp16 resolves timesteps near 1000 to 0.5 only, and the modulation scales every activation"

    def select(self, graph: ir.Graph) -> Iterable[ir.Node]:
        """See `Rule.select`."""
        dependent: set[ir.Value] = {value for value in graph.inputs if value.name == "timestep"}
        for node in graph:
            inputs = [value for value in node.inputs if value is not None and value.const_value is None]
            if inputs and all(value in dependent for value in inputs):
                # Behind the split the modulation meets the activations, which are fp16.
                if node.op_type != "Split":
                    dependent.update(node.outputs)
                yield node


@dataclass(frozen=True)
class PixelConversion:
    """The arithmetic between uint8 frames and the network."""

    name: str = "pixel-conversion"
    reason: str = "rounding to 256 levels and the reported magnitude need more than fp16's 11 bits"

    def select(self, graph: ir.Graph) -> Iterable[ir.Node]:
        """See `Rule.select`."""
        elementwise = _ARITHMETIC | _ROUNDING
        for node in graph:
            if node.op_type != "Cast":
                continue
            if node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.UINT8:
                pending = [node.outputs[0]]
                yield node
                while pending:
                    for consumer in pending.pop().consumers():
                        if consumer.op_type in elementwise:
                            yield consumer
                            pending.append(consumer.outputs[0])
            elif node.outputs[0].dtype == ir.DataType.UINT8:
                pending = [value for value in node.inputs if value is not None]
                while pending:
                    producer = pending.pop().producer()
                    if producer is not None and producer.op_type in elementwise | MOVEMENT:
                        yield producer
                        pending += [value for value in producer.inputs if value is not None]


@dataclass(frozen=True)
class ConstantRange:
    """Constants that fp16 cannot hold: too large, or so small that all of them become zero."""

    name: str = "constant-range"
    reason: str = "a constant overflows or vanishes in fp16"

    def select(self, graph: ir.Graph) -> Iterable[ir.Node]:
        """See `Rule.select`."""
        unsafe: dict[ir.Value, bool] = {}
        for node in graph:
            for value in node.inputs:
                if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT:
                    continue
                if value not in unsafe:
                    array = value.const_value.numpy()
                    check_finite(str(value.name), array)
                    unsafe[value] = not fits_fp16(array)
                if unsafe[value]:
                    yield node
                    break


@dataclass(frozen=True)
class NoHalfOperator:
    """Operators that ONNX defines without fp16, as `Range`."""

    name: str = "no-half-operator"
    reason: str = "ONNX defines the operator without fp16"

    def select(self, graph: ir.Graph) -> Iterable[ir.Node]:
        """See `Rule.select`."""
        for node in graph:
            if any(is_float(value) and not gives_half(node, index) for index, value in enumerate(node.outputs)):
                yield node


@dataclass(frozen=True)
class ActivationRange:
    """What makes or reads an activation that was seen to leave fp16, with some headroom.

    `inputs` and `outputs` hold the largest magnitude that went into and came out of every module on real inputs, by
    the module's path, with which the names of its nodes begin.
    """

    inputs: Mapping[str, float]
    outputs: Mapping[str, float]
    limit: float = FP16_MAX / 4
    name: str = "activation-range"
    reason: str = "an activation came near the end of fp16 (65504) or past it on real inputs"

    def select(self, graph: ir.Graph) -> Iterable[ir.Node]:
        """See `Rule.select`."""
        large: set[ir.Value] = set()
        for node in graph:
            module = _module(node)
            if self.outputs.get(module, 0.0) > self.limit:
                large.update(node.outputs)
            if self.inputs.get(module, 0.0) > self.limit:
                large.update(value for value in node.inputs if value is not None and _comes_from_outside(value, module))
        # What only moves a large value holds it too.
        for node in graph:
            if node.op_type in MOVEMENT and not large.isdisjoint(node.inputs):
                large.update(node.outputs)
        for node in reversed(graph):
            if node.op_type in MOVEMENT and not large.isdisjoint(node.outputs):
                large.update(value for value in node.inputs if value is not None and value.const_value is None)
        for node in graph:
            if not large.isdisjoint(node.outputs) or not large.isdisjoint(node.inputs):
                yield node


@dataclass(frozen=True)
class Between:
    """What only moves data between nodes that other rules keep."""

    name: str = "between-islands"
    reason: str = "moving data from fp32 to fp32 through fp16 would round it for nothing"


BETWEEN = Between()
RULES: tuple[Rule, ...] = (
    NormReduction(),
    SoftmaxScale(),
    TimestepEmbedding(),
    PixelConversion(),
    ConstantRange(),
    NoHalfOperator(),
)


def fits_fp16(array: np.ndarray) -> bool:
    """Whether no value overflows fp16 and not every value becomes zero."""
    if array.size == 0:
        return True
    largest = max(abs(float(array.max())), abs(float(array.min())))
    return largest <= FP16_MAX and (largest == 0.0 or largest >= FP16_TINY)


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise `ExportError` if the weight `name` holds NaN or Inf."""
    if not np.isfinite(array).all():
        raise ExportError(f"The weight {name!r} holds NaN or Inf; the checkpoint is damaged, download it again.")


def _gain_behind(node: ir.Node) -> Iterable[ir.Node]:
    """The product of a result with a constant, if nothing else reads it."""
    readers = node.outputs[0].consumers() if len(node.outputs[0].uses()) == 1 else ()
    for reader in readers:
        if reader.op_type == "Mul" and any(v is not None and v.const_value is not None for v in reader.inputs):
            yield reader


def _fits_as_reciprocal_root(value: ir.Value) -> bool:
    """Whether `value` is 1 / sqrt(something + eps) with an eps that keeps it inside fp16."""
    source: ir.Value | None = value
    for op_type in ("Reciprocal", "Sqrt"):
        node = source.producer() if source is not None else None
        if node is None or node.op_type != op_type:
            return False
        source = node.inputs[0]
    shifted = source.producer() if source is not None else None
    if shifted is None or shifted.op_type != "Add":
        return False
    constants = [item.const_value for item in shifted.inputs if item is not None and item.const_value is not None]
    return any(float(constant.numpy().min()) >= FP16_MAX**-2 for constant in constants)


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is of a type that the conversion changes."""
    return value is not None and value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def _module(node: ir.Node) -> str:
    """Path of the module that the node was captured from."""
    return str(node.name).rpartition("/")[0]


def _comes_from_outside(value: ir.Value, module: str) -> bool:
    """Whether `value` was computed by another module than `module` and those inside it."""
    producer = value.producer()
    if producer is None:
        return value.const_value is None
    source = _module(producer)
    return source != module and not source.startswith(f"{module}.")
