"""The fp32 that a calibrated bundle is judged against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.errors import CheckpointError


def fp32_engines(
    bundle: Bundle, base: Mapping[str, Engine], checkpoint: Path | None
) -> tuple[Mapping[str, Engine], str]:
    """Engines that compute in fp32, and what they are.

    A bundle in fp32 is its own reference; for one in fp16 it is PyTorch on the checkpoint that the bundle came from,
    or the bundle itself where that checkpoint does not ship and is not given.

    Raises:
        CheckpointError: the checkpoint that was given cannot be read or is of another model.
    """
    if bundle.manifest.precision == Precision.FP32:
        return base, "the bundle in fp32"
    # torch takes seconds to import and fp32 bundles do without.
    from rap_edge.export.capture.torch_engine import torch_engines
    from rap_edge.export.sources.network_source import networks_of

    try:
        return torch_engines(networks_of(bundle.manifest, checkpoint)), "PyTorch in fp32"
    except CheckpointError:
        if checkpoint is not None:
            raise
        return base, f"the bundle in {bundle.manifest.precision}, because --checkpoint was not given"
