"""What an 8-bit bundle does in ONNX Runtime here, if not what it was calibrated for.

In: a manifest and the processor's features. Out: a sentence for reports, or nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .bundle import Manifest
from .cpu_features import FAST_INT8

# Two products of uint8 activations with weights up to this fit into 16 bits: 2 * 255 * 64 < 32768.
LARGEST_SAFE_WEIGHT = 64.0


def trouble_on_cpu(manifest: Manifest, features: Collection[str] | None) -> str:
    """Why an int8 or fp8 bundle is worse on this processor than its calibration says; "" if it is not, or unknown.

    x86 processors without VNNI add two 8-bit products in 16 bits with saturation.

    Args:
        manifest: of the bundle.
        features: of `cpu_features`; None where the system does not tell.
    """
    if manifest.precision == "fp8":
        return "fp8 is for GPUs, and fp32 is faster here"
    if manifest.precision != "int8":
        return ""
    known = _target(manifest)
    if not _for_cpus(known):
        return "int8 was calibrated for GPUs, and fp32 is faster here; run rap-calibrate on an fp32 bundle"
    limit = known.get("weight_limit")
    fits = isinstance(limit, int | float) and limit <= LARGEST_SAFE_WEIGHT
    if features is None or "AVX2" not in features or FAST_INT8.intersection(features) or fits:
        return ""
    return (
        "int8 was calibrated for a processor with VNNI, and 8-bit sums saturate on this one, so the frames may be "
        "worse; run rap-calibrate here"
    )


def trouble_on_gpu(manifest: Manifest) -> str:
    """Why ONNX Runtime shall not run an int8 bundle on a GPU; "" if it may."""
    if manifest.precision != "int8" or not _for_cpus(_target(manifest)):
        return ""
    # Its 32-bit biases have no kernel there: every one of them would be a copy to the CPU and back.
    return "int8 was calibrated for CPUs; use an fp16 bundle on the GPU"


def _target(manifest: Manifest) -> Mapping[str, object]:
    target = manifest.calibration.get("target")
    return target if isinstance(target, dict) else {}


def _for_cpus(target: Mapping[str, object]) -> bool:
    return target.get("activation_dtype") == "uint8"
