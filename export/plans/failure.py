"""Why TensorRT did not build a graph, as one sentence with the layer and the likely cure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rap_edge.runtime.errors import ExportError

from .job import PlanJob

_LAYERS = (
    re.compile(r"operation '([^']+)'"),
    re.compile(r"API Usage Error \(([^\s:]+): "),
    re.compile(r"Could not find any implementation for node ([^\s.]+)"),
    re.compile(r"Layer (?:name )?'?([^\s':]+)'?"),
)
_CURES = (
    (r"Turing|sm75", "leave 75 out of --target"),
    (r"HW-specific datatypes: fp8", "leave every --target below 89 out: fp8 needs compute capability 8.9"),
    (r"same input types|type mismatch", "the graph mixes types, so export it again with this version of rap-edge"),
    (r"[Pp]lugin not found|[Uu]nsupported|No importer", "TensorRT has no such operator: export with this rap-edge"),
    (r"[Oo]ut of memory|bad_alloc|alloc", "free some memory and build again"),
    (r"int32.*bias|bias.*int32", "quantise without the bias"),
    (r"cudaError|CUDA", "check the driver with nvidia-smi"),
)
_DEFAULT_CURE = "try another --target, or report the graph"


def explain_parse(job: PlanJob, errors: Sequence[Any], messages: Sequence[str]) -> ExportError:
    """The sentence for a graph that `OnnxParser` refuses; `errors` are its `ParserError`s."""
    if not errors:
        return _sentence(job, "", messages[0] if messages else "no reason given", "cannot be read")
    first = errors[0]
    return _sentence(job, first.node_name(), f"{first.node_operator()}: {first.desc()}", "cannot be read")


def explain_build(job: PlanJob, messages: Sequence[str]) -> ExportError:
    """The sentence for a network that could not be built."""
    reason = messages[0] if messages else "no reason given"
    found = (pattern.search(reason) for pattern in _LAYERS)
    layer = next((match.group(1) for match in found if match), "")
    return _sentence(job, layer, reason, "cannot be built")


def _sentence(job: PlanJob, layer: str, reason: str, what: str) -> ExportError:
    cure = next((cure for pattern, cure in _CURES if re.search(pattern, reason)), _DEFAULT_CURE)
    where = f"Layer {layer!r} of {job.claim.graph!r}" if layer else f"The graph {job.claim.graph!r}"
    return ExportError(f"{where} {what} by {job.module} ({_short(reason)}); {cure}.")


def _short(reason: str) -> str:
    """The reason without TensorRT's source positions."""
    text = re.sub(r"\s*In \w+ at /\S+", "", " ".join(reason.split()))
    text = re.sub(r"^\S+: Error Code \d+: ", "", text)
    return text.rstrip(". ")[:240]
