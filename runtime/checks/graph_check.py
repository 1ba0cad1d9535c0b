"""What an ONNX file would do to its runtime, found out before one sees it: a graph from a stranger may be a bomb.

In: the bytes of the file. Out: nothing, or an error if weights lie in files that do not belong to it, if nodes run over
and over, if there are too many once functions are written out, or if they need code that is not in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..errors import BundleError
from .bounds import shown
from .protobuf_wire import VARINT, Content, WireError, WireReader, tag

# Protobuf's own limit.
MAX_GRAPH_BYTES = (2 << 30) - 1
# Three times the largest graph of the models that there are: RAP's denoiser with separate branches has 3,213.
MAX_NODES = 10_000
MAX_DEPTH = 8
_MAX_FIELDS = 1_000_000
_MAX_NAME = 4096
_LOOPS = (b"Loop", b"Scan", b"SequenceMap")

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTION = tag(7), tag(20), tag(25)
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = tag(1), tag(5), tag(15)
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_ATTRIBUTE = tag(1), tag(7), tag(10), tag(11)
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = tag(4), tag(5), tag(7)
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (tag(5), tag(10)), (tag(6), tag(11)), (tag(22), tag(23))
_SPARSE_PARTS = (tag(1), tag(2))
_TENSOR_EXTERNAL, _TENSOR_LOCATION = tag(13), tag(14, VARINT)
_ENTRY_KEY, _ENTRY_VALUE = tag(1), tag(2)

# Domain and name of an operator.
_Operator = tuple[bytes, bytes]


def check_graph(name: str, content: Content, data: Collection[str]) -> None:
    """Check an ONNX file before anything else reads it.

    Args:
        name: of the graph, for messages.
        content: of the file.
        data: names, relative to the file, of the files that its weights may lie in.

    Raises:
        BundleError: the file is no ONNX model, reads another file, has a loop, an operator that is neither ONNX's nor
            its own, more than `MAX_NODES` nodes once its functions are written out, or more than `MAX_DEPTH` functions
            or branches within each other.
    """
    if len(content) > MAX_GRAPH_BYTES:
        raise BundleError(f"The graph {name!r} is larger than 2 GiB, which no ONNX file is; export the bundle again.")
    try:
        _Check(content, data).run()
    except WireError as error:
        raise BundleError(f"The graph {name!r} is no ONNX model ({error}); export the bundle again.") from None
    except _RefusedError as error:
        raise BundleError(f"The graph {name!r} {error}; get the bundle from a source you trust.") from None


class _RefusedError(Exception):
    """The graph does what none of ours does; says what, as part of a sentence."""


class _Check:
    """One walk over a model. Messages that appear twice are read twice, which finds whatever merging them would."""

    def __init__(self, content: Content, data: Collection[str]) -> None:
        self._wire, self._end, self._data = WireReader(content, _MAX_FIELDS), len(content), data
        self._functions: dict[_Operator, list[_Operator]] = {}
        # Nodes and depth of the functions that were written out.
        self._sizes: dict[_Operator, tuple[int, int]] = {}

    def run(self) -> None:
        operators: list[_Operator] = []
        graphs = 0
        for field, start, end in self._wire.fields(0, self._end):
            if field == _MODEL_GRAPH:
                graphs += 1
                self._graph(start, end, operators)
            elif field == _MODEL_FUNCTION:
                self._function(start, end)
            elif field == _MODEL_TRAINING:
                raise _RefusedError("holds a graph for training")
        if not graphs:
            raise WireError("it has no graph")
        # Functions that nothing calls are read by the runtime too.
        self._written_out([*operators, *self._functions], 0)

    def _graph(self, start: int, end: int, operators: list[_Operator], depth: int = 0) -> None:
        """Add the operators of a graph, and of those within it, to `operators`."""
        if depth > MAX_DEPTH:
            raise _RefusedError(f"has more than {MAX_DEPTH} branches within each other")
        for field, first, last in self._wire.fields(start, end):
            if field == _GRAPH_NODE:
                self._node(first, last, operators, depth)
            elif field == _GRAPH_INITIALIZER:
                # The runtime is given the files of the graph's own weights and would look for others by their names.
                self._tensor(first, last, self._data if depth == 0 else ())
            elif field == _GRAPH_SPARSE:
                self._sparse(first, last)

    def _function(self, start: int, end: int) -> None:
        operators: list[_Operator] = []
        name = domain = b""
        for field, first, last in self._wire.fields(start, end):
            if field == _FUNCTION_NODE:
                self._node(first, last, operators, 1)
            elif field == _FUNCTION_NAME:
                name = self._wire.bytes(first, last, _MAX_NAME)
            elif field == _FUNCTION_DOMAIN:
                domain = self._wire.bytes(first, last, _MAX_NAME)
            elif field == _FUNCTION_ATTRIBUTE and self._attribute(first, last, operators, 1):
                raise _RefusedError("has a function that takes a graph")
        operator = _operator(domain, name)
        if operator in self._functions:
            raise _RefusedError(f"defines {_shown(name)} twice")
        self._functions[operator] = operators

    def _node(self, start: int, end: int, operators: list[_Operator], depth: int) -> None:
        name = domain = b""
        branches = False
        for field, first, last in self._wire.fields(start, end):
            if field == _NODE_OP:
                name = self._wire.bytes(first, last, _MAX_NAME)
            elif field == _NODE_DOMAIN:
                domain = self._wire.bytes(first, last, _MAX_NAME)
            elif field == _NODE_ATTRIBUTE:
                branches |= self._attribute(first, last, operators, depth)
        operator = _operator(domain, name)
        # Whatever else holds a graph runs it as often as it likes.
        if (not operator[0] and name in _LOOPS) or (branches and operator != (b"", b"If")):
            raise _RefusedError(f"has the loop {_shown(name)}")
        operators.append(operator)

    def _attribute(self, start: int, end: int, operators: list[_Operator], depth: int) -> bool:
        """Check an attribute; returns whether it holds a graph."""
        holds_graph = False
        for field, first, last in self._wire.fields(start, end):
            if field in _ATTRIBUTE_GRAPHS:
                holds_graph = True
                self._graph(first, last, operators, depth + 1)
            elif field in _ATTRIBUTE_TENSORS:
                self._tensor(first, last, ())
            elif field in _ATTRIBUTE_SPARSE:
                self._sparse(first, last)
        return holds_graph

    def _sparse(self, start: int, end: int) -> None:
        for field, first, last in self._wire.fields(start, end):
            if field in _SPARSE_PARTS:
                self._tensor(first, last, ())

    def _tensor(self, start: int, end: int, data: Collection[str]) -> None:
        external, locations = False, []
        for field, first, last in self._wire.fields(start, end):
            if field == _TENSOR_LOCATION:
                external |= first != 0
            elif field == _TENSOR_EXTERNAL:
                entry = {_ENTRY_KEY: b"", _ENTRY_VALUE: b""}
                for part, begin, stop in self._wire.fields(first, last):
                    if part in entry:
                        entry[part] = self._wire.bytes(begin, stop, _MAX_NAME)
                if entry[_ENTRY_KEY] == b"location":
                    locations.append(entry[_ENTRY_VALUE])
        if external and len(locations) != 1:
            raise _RefusedError("has weights in another file and does not say in which")
        if external and locations[0].decode(errors="replace") not in data:
            raise _RefusedError(f"reads {_shown(locations[0])}, which the manifest does not list as its data")

    def _written_out(self, operators: Iterable[_Operator], depth: int) -> tuple[int, int]:
        """How many nodes these are, and how deep they nest, with functions in the place of the nodes that call them."""
        if depth > MAX_DEPTH:
            raise _RefusedError(f"has more than {MAX_DEPTH} functions within each other")
        nodes = deepest = 0
        for operator in operators:
            if operator in self._functions:
                if operator not in self._sizes:
                    self._sizes[operator] = self._written_out(self._functions[operator], depth + 1)
                nodes += self._sizes[operator][0]
                deepest = max(deepest, self._sizes[operator][1] + 1)
            elif operator[0]:
                raise _RefusedError(f"has the operator {_shown(b'::'.join(operator))}, which it does not define")
            else:
                nodes += 1
            if nodes > MAX_NODES:
                raise _RefusedError(f"has more than {MAX_NODES} nodes once its functions are written out")
        if deepest > MAX_DEPTH:
            raise _RefusedError(f"has more than {MAX_DEPTH} functions within each other")
        return nodes, deepest


def _operator(domain: bytes, name: bytes) -> _Operator:
    return (b"" if domain == b"ai.onnx" else domain, name)


def _shown(name: bytes) -> str:
    return shown(name.decode(errors="replace"))
