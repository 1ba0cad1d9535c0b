"""Pass `convert_before_moving`: pixels become uint8 before they are shuffled and transposed into frames.

Scaling, rounding, clipping and the cast treat every pixel alike, so they commute with everything that only moves
pixels; moving bytes costs a quarter of moving floats. TensorRT wants the cast last, so this is a pass for CPUs.
"""

from __future__ import annotations

import onnx_ir as ir

from .graph_edit import inner_value, only_reader

_MOVEMENT = frozenset(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "DepthToSpace"))
_PER_PIXEL = frozenset(("Mul", "Add", "Sub", "Div", "Round", "Clip", "Cast"))


def convert_before_moving(model: ir.Model) -> int:
    """Move the conversion to uint8 in front of the movement that feeds it, in place; returns how many were moved."""
    count = 0
    for node in list(model.graph):
        if node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.UINT8:
            chain = _chain_to(node)
            while chain and chain[0].op_type not in _MOVEMENT:
                chain.pop(0)
            if any(step.op_type in _MOVEMENT for step in chain):
                _rewrite(model.graph, chain)
                count += 1
    return count


def _chain_to(last: ir.Node) -> list[ir.Node]:
    """The movements and per-pixel steps that lead to `last`, in order."""
    chain = [last]
    while True:
        source = chain[0].inputs[0]
        producer = source.producer() if source is not None else None
        if producer is None or not (producer.op_type in _MOVEMENT or _is_per_pixel(producer)):
            return chain
        if source is not None and not all(reader is chain[0] or _is_mean(reader) for reader in source.consumers()):
            return chain
        chain.insert(0, producer)


def _is_per_pixel(node: ir.Node) -> bool:
    """Whether the node does the same to every pixel: its other inputs are scalar constants."""
    rest = [value for value in node.inputs[1:] if value is not None]
    return node.op_type in _PER_PIXEL and all(
        value.const_value is not None and value.const_value.size == 1 for value in rest
    )


def _is_mean(node: ir.Node) -> bool:
    """Whether the node is `Abs` whose only use is a mean over everything, which no movement changes."""
    if node.op_type != "Abs":
        return False
    mean = only_reader(node.outputs[0])
    if mean is None or mean.op_type != "ReduceMean" or mean.attributes.get_int("noop_with_empty_axes", 0):
        return False
    if len(mean.inputs) > 1 and mean.inputs[1] is not None:
        return False
    if mean.attributes.get_int("keepdims", 1) == 0:
        return True
    # With the dimensions kept the result's rank follows the movement, unless the next step makes it a fixed one.
    reader = only_reader(mean.outputs[0])
    return reader is not None and (
        reader.op_type == "Reshape" or (reader.op_type == "Squeeze" and len(reader.inputs) == 1)
    )


def _rewrite(graph: ir.Graph, chain: list[ir.Node]) -> None:
    moves = [node for node in chain if node.op_type in _MOVEMENT]
    steps = [node for node in chain if node.op_type not in _MOVEMENT]
    source, output = chain[0].inputs[0], chain[-1].outputs[0]
    assert source is not None
    made: list[ir.Node] = []
    value = source
    for node in (*steps, *moves):
        copy = ir.node(node.op_type, [value, *node.inputs[1:]], name=f"{node.name}_early")
        copy.attributes.update(node.attributes)
        copy.metadata_props.update(node.metadata_props)
        made.append(copy)
        value = inner_value(copy, f"{node.outputs[0].name}_early", node.outputs[0])
        if node in steps:
            value.shape = source.shape
        else:
            value.dtype = ir.DataType.UINT8
    for node in chain[:-1]:
        for reader in list(node.outputs[0].consumers()):
            if reader not in chain:
                reader.replace_input_with(0, source)
                reader.outputs[0].shape = source.shape
    ir.convenience.replace_nodes_and_values(graph, chain[0], chain, made, [output], [value])
