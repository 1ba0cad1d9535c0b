"""The server's log: a line per event on stderr, few of a kind at a time however often somebody makes them happen."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import traceback
from typing import Any

from aiortc import InvalidStateError

_WINDOW_SECONDS = 10.0
_MOST_PER_WINDOW = 5
# Their background tasks end in errors where a visitor sends what no browser sends.
_LIBRARIES = frozenset({"aioice", "aiortc"})
_LOG = logging.getLogger(__name__)


class Sparing(logging.Filter):
    """Lets five lines of one origin in the program through in ten seconds, and counts the others."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a record; the first one after a silence says how many were left out."""
        origin, now = (record.pathname, record.lineno), time.monotonic()
        began, count = self._seen.get(origin, (now, 0))
        if now - began >= _WINDOW_SECONDS:
            if count > _MOST_PER_WINDOW:
                record.msg = f"{record.getMessage()} ({count - _MOST_PER_WINDOW} more like this before)"
                record.args = ()
            began, count = now, 0
        self._seen[origin] = (began, count + 1)
        return count < _MOST_PER_WINDOW


def log_to_stderr(program: str) -> None:
    """Write warnings and errors of every library under the program's name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    handler.addFilter(Sparing())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # Its warnings quote what clients send.
    logging.getLogger("aiohttp").setLevel(logging.ERROR)


def note_loose_end(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An event loop's exception handler that has a line for what is known to end in the background."""
    error = context.get("exception")
    if is_farewell(context):
        return
    if isinstance(error, BaseException) and _ended_in(error) in _LIBRARIES:
        kind = type(error)
        _LOG.warning("What a visitor sent ended in %s.%s.", kind.__module__, kind.__qualname__)
    else:
        loop.default_exception_handler(context)


def is_farewell(context: dict[str, Any]) -> bool:
    """Whether an event loop's error is aiortc's surprise at a connection that was closed while it was being made."""
    return isinstance(context.get("exception"), InvalidStateError)


def _ended_in(error: BaseException) -> str:
    """The package whose code raised an error."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")).partition(".")[0] if frames else ""
