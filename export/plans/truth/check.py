"""The truth test: whether a parsed network and the plan built from it are what the graph claims to be.

Three witnesses, each of which can fail a build: the types of every layer of the strongly typed network, the program
that the plan holds, and, where a GPU can load the engine, TensorRT's inspector. An attention that is allowed to fall
apart, a layer that computes in float32 without being an island, or a quantised layer that runs in another type is a
disagreement. That a build succeeds proves nothing: TensorRT-RTX breaks an attention that it has no fused kernel for
into products and a softmax without a word, non-decomposable or not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rap_edge.runtime.errors import ExportError

from .claim import Claim
from .program import Step

_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_TYPES = {"HALF": "float16", "FLOAT": "float32", "BF16": "bfloat16"}
# What the parser adds around constants and islands without computing anything.
_PLUMBING = frozenset(("CONSTANT", "SHUFFLE", "CAST", "SHAPE", "UNSQUEEZE", "SQUEEZE"))


def check_network(network: Any, module: Any, claim: Claim) -> tuple[str, ...]:
    """Check every layer of a parsed network.

    Args:
        network: an `INetworkDefinition`.
        module: `tensorrt_rtx` or `tensorrt`.
        claim: what the graph claims to be.

    Returns:
        The attentions, each as the ONNX node that the parser noted for it.

    Raises:
        ExportError: names the first layer that disagrees.
    """
    attentions: list[str] = []
    offenders: list[Any] = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = layer.type.name
        if kind == "ATTENTION_INPUT":
            _require_fusing(layer, module, claim)
        elif kind == "ATTENTION_OUTPUT":
            attentions.append(_LAYER.findall(layer.metadata)[0] if layer.metadata else layer.name)
        if claim.dtype == "float16" and _wide_type(layer, claim):
            offenders.append(layer)
    if offenders:
        raise _not_half(offenders, claim)
    if len(attentions) != claim.attention:
        raise ExportError(
            f"The graph {claim.graph!r} holds {claim.attention} attentions and TensorRT made {len(attentions)} of "
            "them; export it again with this version of rap-edge."
        )
    return tuple(attentions)


def check_steps(steps: Iterable[Step], claim: Claim, attentions: Sequence[str], read_from: str) -> dict[str, Any]:
    """Check the steps of a built engine.

    Args:
        steps: of all its programs.
        claim: what the graph claims to be.
        attentions: what `check_network` returned.
        read_from: where the steps come from, for the manifest.

    Returns:
        The evidence for the manifest: fused attentions, and products by the type of their operands.

    Raises:
        ExportError: names the first layer that disagrees.
    """
    fused: Counter[str] = Counter()
    products: Counter[str] = Counter()
    seen: dict[str, set[str]] = {}
    for step in steps:
        if step.fused_attention:
            fused.update(layer for layer in step.layers if layer in attentions)
        if not (step.product or step.fused_attention):
            continue
        operands = step.operands[:2]
        if step.product and (apart := [layer for layer in step.layers if layer in attentions]):
            raise _unfused(apart[0], claim, operands)
        _require_known(step, operands, claim)
        products[operands[0]] += 1
        if claim.dtype == "float16" and "float32" in operands and not _names(step.layers) & claim.islands:
            raise ExportError(
                f"Layer {_label(step)!r} of {claim.graph!r} computes in float32 in the built engine although the graph "
                "says float16; report the graph, or build with another version of TensorRT."
            )
        if narrowed := sorted(_names(step.layers) & claim.wide if "float32" not in operands else ()):
            raise ExportError(
                f"Layer {narrowed[0]!r} of {claim.graph!r} is an island that the manifest keeps in float32 but runs as "
                f"{operands[0]} in the built engine; report the graph, or build with another version of TensorRT."
            )
        for name in _names(step.layers) & claim.quantised.keys():
            seen.setdefault(name, set()).update(operands)
    if missing := [layer for layer in attentions if not fused[layer]]:
        raise _unfused(missing[0], claim, ())
    _require_quantised(seen, claim)
    return {
        "attention": {"expected": claim.attention, "fused": sum(fused.values())},
        "products": dict(sorted(products.items())),
        "quantised": len(claim.quantised),
        "islands": len(claim.islands),
        "read_from": read_from,
    }


def needs_evidence(claim: Claim) -> bool:
    """Whether a plan cannot be believed without reading it: it holds attention or quantised layers."""
    return claim.attention > 0 or bool(claim.quantised)


def _require_fusing(layer: Any, module: Any, claim: Claim) -> None:
    name = layer.name
    # TensorRT gives every layer as the base class; this is how its Python interface casts down.
    layer.__class__ = module.IAttentionInputLayer
    if layer.attention.decomposable:
        raise ExportError(
            f"Attention {name!r} of {claim.graph!r} is marked decomposable, so that TensorRT may run it unfused; "
            "export the graph with standard Attention operators."
        )


def _wide_type(layer: Any, claim: Claim) -> str:
    """The other type that a layer computes in although it should in float16; "" if it does."""
    kind = layer.type.name
    names = _names(_LAYER.findall(layer.metadata or ""))
    if kind == "CAST" or (kind in _PLUMBING and not names) or names & claim.islands:
        return ""
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    types = [_TYPES.get(output.dtype.name, "") for output in outputs if _many(output.shape)]
    return next((item for item in types if item not in ("", "float16")), "")


def _not_half(layers: Sequence[Any], claim: Claim) -> ExportError:
    # The parser adds layers without a name; one that stands for an ONNX node tells the reader more.
    named = [layer for layer in layers if _LAYER.search(layer.metadata or "")]
    layer = (named or list(layers))[0]
    name = _LAYER.findall(layer.metadata)[0] if named else layer.name
    return ExportError(
        f"Layer {name!r} of {claim.graph!r} computes in {_wide_type(layer, claim)} although the graph is float16 and "
        "the manifest lists no island there; export it again with --precision fp16."
    )


def _require_known(step: Step, operands: Sequence[str], claim: Claim) -> None:
    if len(operands) < 2 or not all(operands):
        raise ExportError(
            f"The operand types of layer {_label(step)!r} of {claim.graph!r} cannot be read from the built engine, so "
            "that its precision is unproved; install the version of TensorRT that docs/engines.md names."
        )


def _require_quantised(seen: dict[str, set[str]], claim: Claim) -> None:
    for name, kind in claim.quantised.items():
        found = seen.get(name, set())
        if found != {kind}:
            what = " and ".join(sorted(found)) if found else "no product of its own"
            raise ExportError(
                f"Layer {name!r} of {claim.graph!r} is quantised to {kind} but runs as {what} in the built engine; "
                "leave older GPUs out of --target (7.5 has no int8 convolutions), or calibrate without this layer."
            )


def _unfused(layer: str, claim: Claim, operands: Sequence[str]) -> ExportError:
    if claim.dtype == "float32" or "float32" in operands:
        cure = "TensorRT fuses float16 only, so export with --precision fp16"
    else:
        cure = "TensorRT fuses two heads or more of width 10 to 256, so change num_heads or use ONNX Runtime"
    return ExportError(f"Attention {layer!r} of {claim.graph!r} is not fused in the built engine; {cure}.")


def _names(layers: Iterable[str]) -> set[str]:
    """ONNX nodes, and the calling nodes where they lie inside functions."""
    names = set()
    for layer in layers:
        inner, _, caller = layer.partition(" | ")
        names.add(inner)
        names.add(caller.rpartition(" (")[0])
    return names - {""}


def _label(step: Step) -> str:
    return step.layers[0] if step.layers else step.kernel


def _many(shape: Any) -> bool:
    """Whether a tensor holds more than one number; what TensorRT computes from constants alone does not."""
    return any(size != 1 for size in shape)
