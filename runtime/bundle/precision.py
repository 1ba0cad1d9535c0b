"""In which numbers a bundle computes, and what follows from that."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Precision(StrEnum):
    """The numbers that a bundle's graphs compute in: a text in manifests, in reports and on command lines."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    FP8 = "fp8"

    @property
    def state_dtype(self) -> str:
        """Numpy dtype name of the audio keys and values, at the least: 8 bits keep those that they were made from."""
        return _TRAITS[self].state_dtype

    @property
    def width(self) -> int:
        """Bytes of a number that one layer hands to the next, at the least, likewise."""
        return _TRAITS[self].width

    @property
    def pays_on(self) -> str:
        """The processor that gains from it, "cpu" or "gpu"; of int8 the manifest's calibration says it."""
        return _TRAITS[self].pays_on

    @property
    def frame_psnr(self) -> float:
        """Least PSNR in dB of any frame of the golden clip."""
        return _TRAITS[self].frame_psnr


class _Traits(NamedTuple):
    state_dtype: str
    width: int
    pays_on: str
    frame_psnr: float


# Of another machine's sums, and for fp16 the exporter's gate of a roll-out whose state is fed back; 8 bits may cost
# more, yet a stale, black or shifted frame lies far below.
_TRAITS: Mapping[Precision, _Traits] = MappingProxyType(
    {
        Precision.FP32: _Traits("float32", 4, "cpu", 40.0),
        Precision.FP16: _Traits("float16", 2, "gpu", 30.0),
        Precision.INT8: _Traits("float16", 2, "cpu", 25.0),
        Precision.FP8: _Traits("float16", 2, "gpu", 25.0),
    }
)
