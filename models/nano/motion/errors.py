"""What can go wrong while nano 2 is trained."""

from rap_edge.runtime.errors import RapEdgeError


class TrainingError(RapEdgeError):
    """A stage cannot go on."""
