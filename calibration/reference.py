"""The fp32 that a calibrated bundle is judged against."""

from __future__ import annotations

from collections.abc import Mapping

from rap_edge.runtime.bundle import Bundle
from rap_edge.runtime.engine import Engine
from rap_edge.runtime.errors import CheckpointError


def fp32_engines(bundle: Bundle, base: Mapping[str, Engine]) -> tuple[Mapping[str, Engine], str]:
    """Engines that compute in fp32, and what they are.

    A bundle in fp32 is its own reference; for one in fp16 it is PyTorch on the checkpoint that the bundle came from,
    or the bundle itself where that checkpoint is gone.
    """
    if bundle.manifest.precision == "fp32":
        return base, "the bundle in fp32"
    # torch takes seconds to import and fp32 bundles do without.
    from rap_edge.export.source import networks_of
    from rap_edge.export.torch_engine import torch_engines

    try:
        return torch_engines(networks_of(bundle.manifest)), "PyTorch in fp32"
    except CheckpointError:
        return base, f"the bundle in {bundle.manifest.precision}, because its checkpoint is not there"
