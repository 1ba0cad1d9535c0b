"""When visitors who found every place taken should come again."""

from __future__ import annotations

import math

_SOONEST, _LATEST = 1.0, 60.0
# How far back departures count, in seconds.
_MEMORY = 60.0


class TurnedAway:
    """Gives everyone who is turned away the time at which, at the rate of late, a place becomes free for them.

    The second to be turned away waits for the second departure and so on, so that they do not come back all at once.
    Every method takes the time `at` in seconds, on one clock that never goes back.
    """

    def __init__(self) -> None:
        """Know of no departure yet."""
        self._since: float | None = None
        self._departures = self._counted = 0.0
        self._last_promise = 0.0

    def departed(self, at: float) -> None:
        """Count a place that has become free."""
        self._decay(at)
        self._departures += 1.0

    def wait(self, at: float) -> float:
        """Turn somebody away; returns the seconds after which they should come again, from 1 to 60."""
        self._decay(at)
        assert self._since is not None  # since the line above
        # Of a memory that is still filling only a part has been seen; before anything has, one a second is likely.
        seen = _MEMORY * -math.expm1(-(self._counted - self._since) / _MEMORY)
        between = (seen + 1.0) / (self._departures + 1.0)
        self._last_promise = min(max(self._last_promise, at) + between, at + _LATEST)
        return min(max(_SOONEST, self._last_promise - at), _LATEST)

    def _decay(self, at: float) -> None:
        if self._since is None:
            self._since = self._counted = at
        passed = max(0.0, at - self._counted)
        self._departures *= math.exp(-passed / _MEMORY)
        self._counted = max(self._counted, at)
