"""Which operators a captured graph has that its author wrote out, and what stays as it is.

A model may be anybody's: einsum, attention and hybrid attention are found by what they compute, become the operators
that passes, engines and calibration know, and whatever was not found is named with its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.spec import ModelSpec

from ..hybrid_attention.operator import OP_TYPE
from ..rewriter import rewrite_each, scalar
from .attention import attention_nodes
from .einsum import einsum_products
from .hybrid_pair import hybrid_nodes
from .movement import source_of

_ALPHA_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Recognition:
    """What the attention of one graph has become.

    Attributes:
        attention: `Attention` nodes.
        hybrid: `rap::HybridAttention` nodes.
        left: why attention stays written out, one sentence for each place: the path of its module, or a layer's input.
    """

    attention: int
    hybrid: int
    left: tuple[str, ...]


def recognise(model: ir.Model, spec: ModelSpec) -> Recognition:
    """Rewrite what was written out, in place; shapes are inferred before and after.

    Raises:
        ExportError: a layer's branches are weighted otherwise than the spec says.
    """
    rewrite_each(model, "Where", _choose)
    einsum_products(model)
    ShapeInferencePass()(model)
    found, left = attention_nodes(model)
    count = hybrid_nodes(model)
    if found or count:
        ShapeInferencePass()(model)
    sentences = [f"{name}: {why}" for name, why in left.items()]
    if model.graph.name == "dit" and spec.caches is None:
        sentences += _branches_apart(model, spec)
    kinds = [node.op_type for node in model.graph]
    return Recognition(kinds.count("Attention"), kinds.count(OP_TYPE), tuple(sentences))


def _choose(graph: ir.Graph, where: ir.Node) -> bool:
    """Take the side that a constant condition of one element chooses, if it has the result's shape."""
    condition = scalar(where.inputs[0])
    side = None if condition is None else where.inputs[1 if condition else 2]
    if side is None or side.shape != where.outputs[0].shape:
        return False
    ir.convenience.replace_all_uses_with(where.outputs[0], side, replace_graph_outputs=True)
    return True


def _branches_apart(model: ir.Model, spec: ModelSpec) -> list[str]:
    """The layers whose two branches to the sound were not found to be one hybrid attention."""
    alphas = {}
    for node in model.graph:
        if node.op_type == OP_TYPE and node.inputs[1] is not None:
            alphas[source_of(node.inputs[1])[0].name] = node.attributes.get_float("alpha", 0.0)
    apart = []
    for layer, alpha in enumerate(spec.alpha):
        key = f"audio_key_{layer:02d}"
        if not 0.0 < alpha < 1.0:
            continue
        if key not in alphas:
            apart.append(f"{key}: its two branches were not found to be one hybrid attention")
        elif abs(alphas[key] - alpha) > _ALPHA_TOLERANCE:
            raise ExportError(
                f"The dit weighs the window of layer {layer} by {alphas[key]:.4g} and alpha of spec {spec.name!r} by "
                f"{alpha:.4g}; correct one of them."
            )
    return apart
