"""The exceptions of rap-edge: one class per thing that can be wrong, one sentence per message.

Every message says what is wrong and what to do about it. Command line programs print it to stderr and exit
with status 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RapEdgeError(Exception):
    """Base class of every error that rap-edge raises on purpose."""


class SpecError(RapEdgeError):
    """A model spec is malformed or combines values that cannot work together."""


class BundleError(RapEdgeError):
    """A bundle is missing, incomplete, altered, too new, or points outside its own folder."""


class CheckpointError(RapEdgeError):
    """A checkpoint file is missing, truncated, or does not hold the tensors that the network needs."""


class ExportError(RapEdgeError):
    """A graph could not be exported or does not compute what the PyTorch network computes."""


class CalibrationError(RapEdgeError):
    """A bundle could not be calibrated: its data, its target or what it reached is not what is needed."""


class EngineError(RapEdgeError):
    """An inference engine could not be created or does not match its graph contract."""


class PreflightError(EngineError):
    """An engine of a bundle cannot run here; the message names the fact that is wrong and the command that mends it."""


class MemoryPlanError(EngineError):
    """A bundle needs more memory than a device or the machine has; the message says what would fit."""


class NumericalError(RapEdgeError):
    """A stage of the chunk loop produced NaN or Inf."""


class MissingPackageError(RapEdgeError):
    """A package that is needed is not installed; the message names the extra that brings it."""


class AudioError(RapEdgeError):
    """Audio could not be read or has no usable samples."""


class PortraitError(RapEdgeError):
    """The portrait picture could not be read."""


class OutputError(RapEdgeError):
    """A result could not be written."""


class OutputKeptError(OutputError):
    """A result is complete, and could not take its name; the message says where it is, and so does `kept`."""

    def __init__(self, message: str, kept: Path) -> None:
        super().__init__(message)
        self.kept = kept


class SessionError(RapEdgeError):
    """A session or avatar was used after it was closed, or in an order that makes no sense."""


class FleetError(RapEdgeError):
    """Work for several boxes was described wrongly, or the cluster cannot do it."""


class ServeError(RapEdgeError):
    """The server was set up wrongly, or a client asked for something it cannot have."""


@contextmanager
def refuse_full_memory() -> Iterator[None]:
    """Raises `MemoryPlanError` where what runs inside finds no memory."""
    try:
        yield
    except MemoryError:
        raise full_memory() from None


def full_memory() -> MemoryPlanError:
    """The error of an allocation that failed."""
    return MemoryPlanError(
        "The memory of this machine is full; close other programs, or choose a smaller model or input."
    )


def first_line(error: Exception) -> str:
    """What somebody else's error says, short enough for a place in a sentence of ours."""
    lines = str(error).strip().splitlines()
    return "".join(filter(str.isprintable, lines[0]))[:200].rstrip(".") if lines else type(error).__name__
