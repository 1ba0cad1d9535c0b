"""What a layer would save on a GPU that is not here: the larger of arithmetic and memory traffic, before and after.

A model, not a measurement: the ledger says so for every figure that comes from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Gpu:
    """Peak rates of one GPU, dense, from its vendor's data sheet.

    Attributes:
        name: of the card.
        half: fp16 operations per second, accumulated in fp32.
        eighth: operations per second of the 8-bit types by name, accumulated in int32 or fp32.
        bandwidth: bytes per second.
        floor: seconds that no kernel is faster than.
    """

    name: str
    half: float
    eighth: Mapping[str, float]
    bandwidth: float
    floor: float = 2e-6


# NVIDIA Ada GPU architecture white paper, appendix A (GeForce RTX 4090).
RTX_4090 = Gpu("GeForce RTX 4090", 165.2e12, MappingProxyType({"int8": 660.6e12, "float8e4m3": 330.3e12}), 1008e9)
# Kernels reach about this share of both peaks.
EFFICIENCY = 0.6


@dataclass(frozen=True)
class Work:
    """One run of a layer: multiply-adds, and elements of its input, its weights and its output."""

    products: int
    activations: int
    weights: int
    outputs: int


def half_seconds(work: Work, gpu: Gpu = RTX_4090) -> float:
    """Seconds of one run in fp16."""
    traffic = 2.0 * (work.activations + work.weights + work.outputs)
    return max(max(2.0 * work.products / gpu.half, traffic / gpu.bandwidth) / EFFICIENCY, gpu.floor)


def saving(work: Work, dtype: str, readers: int, gpu: Gpu = RTX_4090) -> float:
    """Seconds that one run saves in 8 bits against fp16; negative if it loses.

    Args:
        work: of the layer.
        dtype: "int8" or "float8e4m3".
        readers: layers that share the quantised input, and so the cost of quantising it.
        gpu: the target.
    """
    traffic = work.activations + work.weights + 2.0 * work.outputs
    eighth = max(2.0 * work.products / gpu.eighth[dtype], traffic / gpu.bandwidth) / EFFICIENCY
    # TensorRT quantises in the pointwise kernel before the layer, which then writes one more byte per element.
    quantizing = work.activations / gpu.bandwidth / EFFICIENCY / readers
    return half_seconds(work, gpu) - max(eighth, gpu.floor) - quantizing
