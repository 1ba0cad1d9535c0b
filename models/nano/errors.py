"""What can be wrong with nano's data, training and measurements."""

from rap_edge.runtime.errors import RapEdgeError


class RenderError(RapEdgeError):
    """A motion row or a picture size cannot be drawn."""


class SpeechError(RapEdgeError):
    """espeak-ng is missing, refused a voice, or produced no sound."""


class MeasureError(RapEdgeError):
    """Frames, boxes or tracks do not fit together or hold nothing to measure."""


class TrainingError(RapEdgeError):
    """A stage cannot go on."""
