"""How good what is shown is: a mark that travels from the chunk to the display."""

from __future__ import annotations

import enum


class Mark(enum.StrEnum):
    """How good a shown frame is; a display may tell the viewer, and must not hide it from tests and reports."""

    GOOD = "good"
    REDUCED = "reduced"
    """Rendered for this moment with fewer denoise steps or at a lower frame rate, because the machine is busy."""
    HELD = "held"
    """The last good frame, because this moment's chunk is late, failed or was dropped; its sound goes on."""
