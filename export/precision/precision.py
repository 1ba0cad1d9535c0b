"""Half precision as a property of the graph: fp16 everywhere but on islands that named rules keep in fp32.

In: an fp32 `ir.Model`. Out: the same model in fp16 with casts where the precision changes, each cast once per value,
and one `Island` per node that stayed in fp32, with the rule and its reason. After ModelOpt's AutoCast: one class per
decision, and every decision is logged. The result is strongly typed, as TensorRT wants it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from rap_edge.runtime.bundle.bundle import Island
from rap_edge.runtime.errors import ExportError

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
_MOVEMENT = frozenset(
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
    """Normalisations: the square, the reduction, and all up to where the result meets the activations again.

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
                if inside and node.outputs[0] not in derived:
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
                    if producer is not None and producer.op_type in elementwise | _MOVEMENT:
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
            if node.op_type in _MOVEMENT and not large.isdisjoint(node.inputs):
                large.update(node.outputs)
        for node in reversed(graph):
            if node.op_type in _MOVEMENT and not large.isdisjoint(node.outputs):
                large.update(value for value in node.inputs if value is not None and value.const_value is None)
        for node in graph:
            if not large.isdisjoint(node.outputs) or not large.isdisjoint(node.inputs):
                yield node


@dataclass(frozen=True)
class _Between:
    name: str = "between-islands"
    reason: str = "moving data from fp32 to fp32 through fp16 would round it for nothing"


_BETWEEN = _Between()
RULES: tuple[Rule, ...] = (NormReduction(), SoftmaxScale(), TimestepEmbedding(), PixelConversion(), ConstantRange())


def fits_fp16(array: np.ndarray) -> bool:
    """Whether no value overflows fp16 and not every value becomes zero."""
    if array.size == 0:
        return True
    largest = max(abs(float(array.max())), abs(float(array.min())))
    return largest <= FP16_MAX and (largest == 0.0 or largest >= FP16_TINY)


def to_fp16(
    model: ir.Model, io_dtypes: Mapping[str, str] | None = None, rules: Sequence[Rule] = RULES
) -> tuple[Island, ...]:
    """Convert an fp32 model in place.

    Args:
        model: fp32; float constants are initialisers.
        io_dtypes: numpy dtype names of graph inputs and outputs that become "float16"; the others keep theirs.
        rules: decide which nodes stay in fp32; the first that selects a node is the one that is named.

    Returns:
        The islands in graph order.

    Raises:
        ExportError: a weight is not finite, or an operator holds a subgraph.
    """
    graph, dtypes = model.graph, io_dtypes or {}
    kept: dict[ir.Node, Rule | _Between] = {}
    for rule in rules:
        for node in rule.select(graph):
            if node.op_type not in _MOVEMENT:
                kept.setdefault(node, rule)
    for node in _between_islands(graph, kept, dtypes):
        kept[node] = _BETWEEN
    conversion = _Conversion(graph, dtypes)
    islands = []
    for node in list(graph):
        if any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in _attributes(node)):
            raise ExportError(f"Node {node.name!r} of graph {graph.name!r} holds a subgraph, which has no fp16 form.")
        computes_floats = any(_is_float(value) for value in (*node.inputs, *node.outputs))
        if node in kept and computes_floats:
            islands.append(Island(str(graph.name), str(node.name), kept[node].name, kept[node].reason))
        conversion.convert(node, ir.DataType.FLOAT if node in kept else ir.DataType.FLOAT16)
    conversion.finish()
    return tuple(islands)


def _between_islands(
    graph: ir.Graph, kept: Mapping[ir.Node, object], io_dtypes: Mapping[str, str]
) -> Iterable[ir.Node]:
    """Nodes that only move data and whose sources and readers are all in fp32."""
    available = {value for value in graph.inputs if io_dtypes.get(str(value.name)) != "float16"}
    candidates: list[ir.Node] = []
    for node in graph:
        sources = [v for v in node.inputs if v is not None and v.const_value is None and v.dtype == ir.DataType.FLOAT]
        if node in kept:
            available.update(node.outputs)
        elif node.op_type in _MOVEMENT and sources and all(value in available for value in sources):
            available.update(node.outputs)
            candidates.append(node)
    wanted: set[ir.Node] = set()
    for node in reversed(candidates):
        ends_in_fp32 = all(
            io_dtypes.get(str(value.name)) != "float16" for value in node.outputs if value.is_graph_output()
        )
        readers = [reader for value in node.outputs for reader in value.consumers()]
        if ends_in_fp32 and all(reader in kept or reader in wanted for reader in readers):
            wanted.add(node)
    return wanted


class _Conversion:
    """Types of a model while its nodes are visited in order."""

    def __init__(self, graph: ir.Graph, io_dtypes: Mapping[str, str]) -> None:
        self._graph = graph
        self._io = {name: ir.DataType.FLOAT16 for name, dtype in io_dtypes.items() if dtype == "float16"}
        self._floats: set[ir.Value] = set()
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._halves: dict[ir.Value, ir.Value] = {}
        for value in graph.inputs:
            if value.dtype == ir.DataType.FLOAT:
                self._floats.add(value)
                value.dtype = self._io.get(str(value.name), ir.DataType.FLOAT)

    def convert(self, node: ir.Node, target: ir.DataType) -> None:
        """Give `node` inputs of type `target` where they are floats, and note the type of its outputs."""
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            if value.const_value is not None:
                if value.dtype == ir.DataType.FLOAT and target == ir.DataType.FLOAT16:
                    node.replace_input_with(index, self._half(value))
            elif value in self._floats and value.dtype != target and node.op_type != "Cast":
                node.replace_input_with(index, self._cast(value, target, node))
        if node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(target))
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                self._floats.add(value)
                value.dtype = target

    def finish(self) -> None:
        """Give the graph's outputs the types of the contract and drop the weights that were replaced."""
        for index, value in enumerate(self._graph.outputs):
            wanted = self._io.get(str(value.name), ir.DataType.FLOAT)
            if value in self._floats and value.dtype != wanted:
                name = value.name
                producer = value.producer()
                assert producer is not None  # an output that is an input has the contract's type already
                value.name = f"{name}_{value.dtype.name.lower()}"  # type: ignore[union-attr]
                cast = self._cast(value, wanted, None)
                cast.name = name
                cast.shape = value.shape
                self._graph.outputs[index] = cast
        for value in list(self._graph.initializers.values()):
            if not value.uses() and not value.is_graph_output():
                del self._graph.initializers[str(value.name)]

    def _cast(self, value: ir.Value, target: ir.DataType, before: ir.Node | None) -> ir.Value:
        key = (value, target)
        if key not in self._casts:
            node = ir.node("Cast", [value], attributes={"to": int(target)}, name=f"{value.name}_to_{target.name}")
            result = node.outputs[0]
            result.name, result.dtype, result.shape = f"{value.name}_{target.name.lower()}", target, value.shape
            producer = value.producer()
            if producer is not None:
                self._graph.insert_after(producer, node)
            elif before is not None:
                self._graph.insert_before(self._graph[0], node)
            self._casts[key] = result
        return self._casts[key]

    def _half(self, value: ir.Value) -> ir.Value:
        if value not in self._halves:
            tensor = value.const_value
            assert tensor is not None  # the caller has checked
            name = f"{value.name}_float16"
            half = ir.Value(
                name=name,
                shape=value.shape,
                type=ir.TensorType(ir.DataType.FLOAT16),
                const_value=_half_later(tensor, name),
            )
            self._graph.register_initializer(half)
            self._halves[value] = half
        return self._halves[value]


def _half_later(tensor: ir.TensorProtocol, name: str) -> ir.LazyTensor:
    """The tensor in fp16, converted when it is saved, so that both copies of all weights never lie in memory."""

    def convert() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype(np.float16), name=name)

    shape = tensor.shape
    assert isinstance(shape, ir.Shape)
    return ir.LazyTensor(convert, dtype=ir.DataType.FLOAT16, shape=shape, name=name)


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise `ExportError` if the weight `name` holds NaN or Inf."""
    if not np.isfinite(array).all():
        raise ExportError(f"The weight {name!r} holds NaN or Inf; the checkpoint is damaged, download it again.")


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


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def _attributes(node: ir.Node) -> Iterable[ir.Attr]:
    return node.attributes.values()


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
