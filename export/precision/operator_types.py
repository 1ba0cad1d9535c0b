"""Which inputs and outputs of ONNX's operators may be fp16: not all, as `Resize` takes its scales in fp32 alone."""

from __future__ import annotations

from functools import cache

import onnx.defs
import onnx_ir as ir

_HALF = "tensor(float16)"


def takes_half(node: ir.Node, index: int) -> bool:
    """Whether input `index` of a node may be fp16."""
    return _allows_half(node.op_type, node.domain, node.version, index, outputs=False)


def gives_half(node: ir.Node, index: int) -> bool:
    """Whether output `index` of a node may be fp16."""
    return _allows_half(node.op_type, node.domain, node.version, index, outputs=True)


@cache
def _allows_half(op_type: str, domain: str, version: int | None, index: int, *, outputs: bool) -> bool:
    if domain != "" or not onnx.defs.has(op_type, domain):
        return True
    schema = onnx.defs.get_schema(op_type, version or onnx.defs.onnx_opset_version(), domain)
    ends = schema.outputs if outputs else schema.inputs
    if not ends:
        return True
    # Only the last may be repeated.
    kind = ends[min(index, len(ends) - 1)].type_str
    constraints = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    return _HALF in constraints.get(kind, [kind])
