"""Pass `attention_layout`: heads stay beside each other in the last axis.

PyTorch splits the heads off and moves them to the front and back; `Attention` of opset 23 takes tokens
[B, N, heads * d] as they are.
"""

from __future__ import annotations

import onnx_ir as ir

from ..rewriter import Rewriter, moves_heads, only_reader, reshaped, rewrite_each, static_shape


def attention_layout(model: ir.Model) -> int:
    """Attention whose heads were moved in front takes and gives tokens, in place; returns how many."""
    return rewrite_each(model, "Attention", _rewrite_attention)


def _rewrite_attention(graph: ir.Graph, attention: ir.Node) -> bool:
    after = only_reader(attention.outputs[0], "Transpose")
    shapes = [static_shape(value) for value in attention.inputs]
    if len(shapes) != 3 or len(attention.outputs) != 1 or after is None or not moves_heads(after):
        return False
    before = [value.producer() if value is not None else None for value in attention.inputs]
    if any(shape is None or len(shape) != 4 for shape in shapes):
        return False
    rewriter, tokens = Rewriter(graph, attention), []
    for node, shape in zip(before, shapes, strict=True):
        if node is None or not moves_heads(node) or node.inputs[0] is None or shape is None:
            return False
        batch, heads, length, width = shape
        tokens.append((node.inputs[0], (batch, length, heads * width), heads))
    attributes = {name: attribute.value for name, attribute in attention.attributes.items()}
    attributes |= {"q_num_heads": tokens[0][2], "kv_num_heads": tokens[1][2]}
    rows = [reshaped(rewriter, value, shape) for value, shape, _ in tokens]
    output = rewriter.add("Attention", rows, **attributes)
    output.shape = ir.Shape((*tokens[0][1][:2], tokens[0][2] * tokens[2][1][2] // tokens[2][2]))
    result = static_shape(after.outputs[0])
    assert result is not None
    rewriter.replace(after.outputs[0], reshaped(rewriter, output, result))
    return True
