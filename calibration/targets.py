"""What 8-bit numbers mean on a target: data, not code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

INT8_LIMIT, FP8_LIMIT = 127.0, 448.0


@dataclass(frozen=True)
class Target:
    """How layers are quantised for one kind of machine.

    Attributes:
        name: in reports and the manifest.
        dtype: "int8" or "float8e4m3" of the weights.
        activation_dtype: as `dtype`, or "uint8": the same symmetric numbers moved up by 128, as x86 kernels take them.
        base: precision of the bundle whose graphs carry the Q/DQ.
        activation_limit: largest magnitude of a quantised activation.
        weight_limit: largest magnitude of a quantised weight; 64 where the kernel adds two products of 8 bits in
            16 bits with saturation (AVX2's vpmaddubsw: 2 * 255 * 64 < 32767).
        quantize_outputs: whether a convolution's output needs Q/DQ, without which ONNX Runtime has no kernel.
        measured: whether times are measured here; otherwise they come from the cost model.
        speedup: of the products of a layer by operator against the base's precision, for the cost model.
        bytes_per_second: memory bandwidth, and `products_per_second` the base's multiply-adds, for the cost model.
    """

    name: str
    dtype: str
    activation_dtype: str
    base: str
    activation_limit: float
    weight_limit: float
    quantize_outputs: bool
    measured: bool
    speedup: float = 1.0
    products_per_second: float = 0.0
    bytes_per_second: float = 0.0


CPU = Target("cpu", "int8", "uint8", "fp32", INT8_LIMIT, INT8_LIMIT, quantize_outputs=True, measured=True)
CPU_16BIT_SUMS = Target("cpu-avx2", "int8", "uint8", "fp32", INT8_LIMIT, 64.0, quantize_outputs=True, measured=True)
