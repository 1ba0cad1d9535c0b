"""The steps of an engine as TensorRT's inspector tells them, where a GPU is there to load it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .program import Step

_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_PRODUCT = re.compile(r"gemm|conv|matmul|matrix_?multiply|fully_?connected|correlation", re.IGNORECASE)
_TYPES = (
    (re.compile(r"\b(?:half|fp16)\b", re.IGNORECASE), "float16"),
    (re.compile(r"\b(?:float|fp32)\b", re.IGNORECASE), "float32"),
    (re.compile(r"\b(?:bfloat16|bf16)\b", re.IGNORECASE), "bfloat16"),
    (re.compile(r"\bint8\b", re.IGNORECASE), "int8"),
    (re.compile(r"\bfp8\b", re.IGNORECASE), "float8_e4m3fn"),
)


def inspected_steps(module: Any, logger: Any, plan: Path) -> list[Step] | None:
    """The steps of the engine in `plan`, or None where it cannot be loaded, as on a machine without a GPU."""
    runtime = module.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        return None
    text = engine.create_engine_inspector().get_engine_information(module.LayerInformationFormat.JSON)
    return parse_inspection(text)


def parse_inspection(text: str) -> list[Step] | None:
    """The steps in the inspector's JSON; None if it holds layer names only."""
    layers = json.loads(text).get("Layers", [])
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        return None
    return [_step(layer) for layer in layers]


def _step(layer: Mapping[str, Any]) -> Step:
    kernel = str(layer.get("TacticName") or layer.get("Name", ""))
    kind = str(layer.get("LayerType", ""))
    if "mha" in kernel:
        kind = "function"
    elif _PRODUCT.search(kind):
        kind = "fully_connected"
    operands = tuple(_dtype(str(item.get("Format/Datatype", ""))) for item in layer.get("Inputs", []))
    # The weights of a convolution are no input; they have the type of what they are multiplied with.
    if kind == "fully_connected" and len(operands) == 1:
        operands *= 2
    return Step(kind, kernel, operands, tuple(_LAYER.findall(str(layer.get("Metadata", "")))))


def _dtype(text: str) -> str:
    return next((name for pattern, name in _TYPES if pattern.search(text)), "")
