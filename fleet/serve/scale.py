"""How many boxes a fleet should have, by the places that are taken."""

from __future__ import annotations

import math

from ..placement import Load

# So full are boxes that the next visitors find a place while another box is started.
_FULL = 0.8
# Fewer are needed for so long before one is given up, in seconds.
_PATIENCE = 120.0


class Scale:
    """Grows at once, shrinks by one box at a time, and stays within its bounds."""

    def __init__(self, least: int, most: int) -> None:
        """Between `least` and `most` boxes."""
        self._least, self._most = least, most
        self._wanted: int | None = None
        self._since = 0.0

    def wanted(self, load: Load, at: float) -> int:
        """The number of boxes now; `at` in seconds on a clock that never goes back."""
        if not load.boxes:
            return self._least if self._wanted is None else self._wanted
        need = math.ceil(load.taken / (_FULL * max(1.0, load.places / load.boxes)))
        need = min(max(need, self._least), self._most)
        # A dispatcher that follows another finds the boxes of that one.
        wanted = min(max(load.boxes, self._least), self._most) if self._wanted is None else self._wanted
        if need >= wanted:
            wanted, self._since = need, at
        elif self._wanted is None:
            self._since = at
        elif at - self._since >= _PATIENCE:
            wanted, self._since = wanted - 1, at
        self._wanted = wanted
        return wanted
