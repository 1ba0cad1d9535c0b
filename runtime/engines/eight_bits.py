"""What an 8-bit bundle does in ONNX Runtime here, if not what it was calibrated for.

In: a manifest and the processor's features. Out: a sentence for reports, or nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from ..bundle.manifest import Manifest, recorded
from ..bundle.precision import Precision
from ..checks.bounds import Real, Text
from ..machine.cpu import FAST_INT8

# Two products of uint8 activations with weights up to this fit into 16 bits: 2 * 255 * 64 < 32768.
LARGEST_SAFE_WEIGHT = 64.0


@dataclass(frozen=True)
class _Target:
    activation_dtype: Annotated[str, Text(32)] = ""
    weight_limit: Annotated[float, Real(0.0, 1e6)] = 1e6

    @property
    def for_cpus(self) -> bool:
        return self.activation_dtype == "uint8"


@dataclass(frozen=True)
class _Calibration:
    target: _Target = _Target()


def trouble_on_cpu(manifest: Manifest, features: Collection[str] | None) -> str:
    """Why an int8 or fp8 bundle is worse on this processor than its calibration says; "" if it is not, or unknown.

    x86 processors without VNNI add two 8-bit products in 16 bits with saturation.

    Args:
        manifest: of the bundle.
        features: of `cpu_features`; None where the system does not tell.

    Raises:
        BundleError: the manifest's calibration says impossible things.
    """
    if manifest.precision == Precision.FP8:
        return "fp8 is for GPUs, and fp32 is faster here"
    if manifest.precision != Precision.INT8:
        return ""
    target = recorded(_Calibration, manifest.calibration, "calibration").target
    if not target.for_cpus:
        return "int8 was calibrated for GPUs, and fp32 is faster here; run rap-calibrate on an fp32 bundle"
    fits = target.weight_limit <= LARGEST_SAFE_WEIGHT
    if features is None or "AVX2" not in features or FAST_INT8.intersection(features) or fits:
        return ""
    return (
        "int8 was calibrated for a processor with VNNI, and 8-bit sums saturate on this one, so the frames may be "
        "worse; run rap-calibrate here"
    )


def trouble_on_gpu(manifest: Manifest) -> str:
    """Why ONNX Runtime shall not run an int8 bundle on a GPU; "" if it may; raises as `trouble_on_cpu`."""
    if manifest.precision != Precision.INT8:
        return ""
    if not recorded(_Calibration, manifest.calibration, "calibration").target.for_cpus:
        return ""
    # Its 32-bit biases have no kernel there: every one of them would be a copy to the CPU and back.
    return "int8 was calibrated for CPUs; use an fp16 bundle on the GPU"
