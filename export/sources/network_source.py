"""Where the networks of an export come from: the shipped checkpoint, a folder, or random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rap_edge.models.nano import SHIPPED
from rap_edge.models.presets import NANO
from rap_edge.runtime.bundle.manifest import Manifest, recorded
from rap_edge.runtime.checks.bounds import Text, Whole, shown
from rap_edge.runtime.errors import CheckpointError, ExportError
from rap_edge.runtime.spec import ModelSpec

RANDOM_SEED = 0
_PATH = Text(4096)


@dataclass(frozen=True)
class _Provenance:
    weights: Annotated[str, Text(32)] = ""
    seed: Annotated[int, Whole(0, (1 << 63) - 1)] = RANDOM_SEED
    checkpoint: Annotated[str, _PATH] | None = None
    model: Annotated[str, Text(256)] | None = None


@dataclass(frozen=True)
class NetworkSource:
    """How to get the networks, and how to get them again.

    Attributes:
        checkpoint: the folder, or None for random weights.
        spec: stands in for the checkpoint's own spec; needed for random weights.
        seed: of random weights.
    """

    checkpoint: Path | None
    spec: ModelSpec | None = None
    seed: int = RANDOM_SEED

    def load(self) -> Any:
        """The networks, a `rap_edge.models.Networks` in fp32 and eval mode.

        Raises:
            CheckpointError: the checkpoint cannot be read or does not fit the spec.
            ExportError: there is no spec to draw random weights for.
        """
        from rap_edge.models import load_networks, random_networks

        if self.checkpoint is not None:
            return load_networks(self.checkpoint, self.spec)
        if self.spec is None:
            raise ExportError("Random weights need a spec; pass --spec.")
        return random_networks(self.spec, self.seed)

    def provenance(self) -> dict[str, Any]:
        """The manifest's record of this source."""
        if self.checkpoint is None:
            return {"weights": "random", "seed": self.seed}
        if self.checkpoint == SHIPPED:
            return {"weights": "shipped"}
        return {"weights": "checkpoint", "checkpoint": str(self.checkpoint.resolve())}


def choose_source(checkpoint: str | None, spec: ModelSpec | None, *, random_weights: bool) -> NetworkSource:
    """The source that the command line asks for.

    Raises:
        CheckpointError: the spec's weights do not ship, or those that do are missing, or no manifest could name the
            checkpoint's folder.
    """
    if checkpoint is not None:
        # The manifest will name it, and no manifest may hold anything else.
        if fault := _PATH.fault(str(Path(checkpoint).resolve())):
            raise CheckpointError(f"The checkpoint's path {fault}; rename the folder.")
        return NetworkSource(Path(checkpoint), spec)
    if random_weights:
        return NetworkSource(None, spec or NANO)
    if spec is not None and spec.name != NANO.name:
        raise CheckpointError(
            f"The weights of {spec.name!r} do not ship with rap-edge; pass --checkpoint DIR or --random-weights."
        )
    if not SHIPPED.is_dir():
        raise CheckpointError(
            f"The shipped checkpoint {SHIPPED} is missing; install rap-edge again or pass --checkpoint DIR."
        )
    return NetworkSource(SHIPPED, None)


def networks_of(manifest: Manifest, checkpoint: Path | None = None) -> Any:
    """The networks that a bundle was exported from, `rap_edge.models.Networks`.

    Args:
        manifest: of the bundle. A checkpoint that it names is not opened: it may be a stranger's.
        checkpoint: the folder; not needed where the weights ship with rap-edge or are random.

    Raises:
        CheckpointError: the checkpoint is needed and not given, cannot be read, or is of another model.
        BundleError: the bundle says impossible things about it.
    """
    if checkpoint is not None:
        return NetworkSource(checkpoint, manifest.spec).load()
    record = recorded(_Provenance, manifest.provenance, "provenance")
    if record.weights == "random":
        return NetworkSource(None, manifest.spec, record.seed).load()
    if record.weights == "shipped":
        return NetworkSource(SHIPPED, manifest.spec).load()
    if record.weights == "own model":
        raise CheckpointError(
            f"The bundle came from modules of somebody's own ({shown(record.model)}), which are not run for this; "
            "leave PyTorch out."
        )
    if record.weights != "checkpoint" or record.checkpoint is None:
        raise CheckpointError("The bundle does not say which checkpoint it came from; export it again.")
    raise CheckpointError(f"The bundle came from the checkpoint {shown(record.checkpoint)}; pass --checkpoint DIR.")
