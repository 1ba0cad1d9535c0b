"""A progress bar with an estimate of the time left, and sentences that come between, on stderr."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

_WIDTH = 24
_TTY_INTERVAL, _LINE_INTERVAL = 0.1, 5.0


def say(line: str) -> None:
    """Write a line to stderr at once; on a terminal it takes the place of a bar, which is drawn again below it."""
    if sys.stderr.isatty():
        line = "\r" + line.ljust(shutil.get_terminal_size().columns - 1)
    print(line, file=sys.stderr, flush=True)


class Progress:
    """One line that is redrawn on a terminal; elsewhere a new line every few seconds."""

    def __init__(
        self,
        label: str,
        total: float | None,
        unit: str = "",
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at 0.

        Args:
            label: what is being done.
            total: the amount of work, or None if it is unknown.
            unit: of the amount, such as "s".
            stream: where to draw, stderr by default.
            clock: seconds, for tests.
        """
        self._label, self._total, self._unit = label, total, f" {unit}" if unit else ""
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._tty = self._stream.isatty()
        self._started = self._drawn = clock()
        self._done = 0.0
        self._length = 0

    def update(self, done: float) -> None:
        """Show that `done` of the total is finished; draws only as often as it can be read."""
        self._done = done
        if self._clock() - self._drawn >= (_TTY_INTERVAL if self._tty else _LINE_INTERVAL):
            self._draw()

    def close(self) -> None:
        """Draw the last state and end the line."""
        if self._tty:
            self._draw()
            self._stream.write("\n")
            self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _draw(self) -> None:
        self._drawn = self._clock()
        line = self._line(self._drawn - self._started)
        if self._tty:
            self._stream.write("\r" + line.ljust(self._length))
            self._length = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _line(self, elapsed: float) -> str:
        if not self._total:
            return f"{self._label} {self._done:.1f}{self._unit}, {_clock_time(elapsed)} elapsed"
        part = min(max(self._done / self._total, 0.0), 1.0)
        bar = ("#" * round(part * _WIDTH)).ljust(_WIDTH, ".")
        left = _clock_time(elapsed * (1.0 - part) / part) if part else "-:--"
        return (
            f"{self._label} [{bar}] {100 * part:3.0f} % {self._done:.1f}/{self._total:.1f}{self._unit}, "
            f"{_clock_time(elapsed)} elapsed, {left} left"
        )


def _clock_time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
