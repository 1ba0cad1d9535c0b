"""Exports of networks at test size."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

from helpers.bundles.small import drawn

from rap_edge.export.exporter import ExportReport, ExportSettings, export_bundle
from rap_edge.export.stages import Stages
from rap_edge.models.networks import Networks


@dataclasses.dataclass(frozen=True)
class Given:
    """Networks made by the test."""

    networks: Networks

    def load(self) -> Networks:
        return self.networks

    def provenance(self) -> dict[str, str]:
        return {"weights": "test"}


def export(networks: Networks, folder: Path, **settings) -> ExportReport:
    quiet = Stages(io.StringIO())
    return export_bundle(Given(networks), folder, ExportSettings(threads=1, **settings), drawn, quiet)
