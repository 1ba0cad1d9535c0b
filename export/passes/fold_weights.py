"""Pass `fold_weights`: a weight that the graph reshapes or transposes is stored as it is used.

Runtimes fold such nodes anyway; tools that look for weights, a quantiser for one, see an initialiser.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..rewriter import Rewriter, remove_unused, static_shape


def fold_weights(model: ir.Model) -> int:
    """Fold every `Reshape` and `Transpose` of an initialiser, in place; returns how many."""
    count = 0
    for node in list(model.graph):
        source, shape = node.inputs[0] if node.inputs else None, static_shape(node.outputs[0])
        if node.op_type not in ("Reshape", "Transpose") or source is None or source.const_value is None:
            continue
        if shape is None or node.outputs[0].is_graph_output():
            continue
        array = source.const_value.numpy()
        if node.op_type == "Transpose":
            array = array.transpose(list(node.attributes.get_ints("perm", range(array.ndim)[::-1])))
        folded = Rewriter(model.graph, node).constant(np.ascontiguousarray(array.reshape(shape)))
        ir.convenience.replace_all_uses_with(node.outputs[0], folded)
        count += 1
    remove_unused(model)
    return count
