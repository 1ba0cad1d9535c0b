"""Standard input, output and error of a program, each of which may be closed, full, abandoned or unable to show a text.

What standard output does not take ends the program; messages that standard error does not take are lost, and the work
goes on.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from ..errors import OutputError


class ReaderGoneError(Exception):
    """Whoever read standard output, such as `head`, has had enough."""


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make `sys.stdin`, `sys.stdout` and `sys.stderr` streams that can be used, whatever the program was given.

    A closed one is open during the block, and every use of it fails as that of a closed one does. Characters that a
    stream cannot show are written as escapes.

    Raises:
        OutputError: standard output cannot be written.
        ReaderGoneError: nobody reads it any more.
    """
    _fill_closed_descriptors()
    before = sys.stdin, sys.stdout, sys.stderr
    output, messages = sys.stdout or _opened(1, "w"), sys.stderr or _opened(2, "w")
    sys.stdin = sys.stdin or _opened(0, "r")
    sys.stdout, sys.stderr = _guarded(output, _refuse), _guarded(messages, _lose)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        for stream in (output, messages):
            _let_go(stream)


class _Guarded:
    """A text stream that hands over to `fail` what the system refuses to take."""

    def __init__(self, stream: TextIO, fail: Callable[[OSError], None]) -> None:
        self._stream, self._fail = stream, fail

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _opened(number: int, mode: str) -> TextIO:
    return cast(TextIO, open(number, mode, encoding="utf-8", closefd=False))


def _guarded(stream: TextIO, fail: Callable[[OSError], None]) -> TextIO:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return cast(TextIO, _Guarded(stream, fail))


def _refuse(error: OSError) -> None:
    if isinstance(error, BrokenPipeError):
        raise ReaderGoneError from None
    raise OutputError(f"Standard output cannot be written ({error.strerror}); send it somewhere else.") from None


def _lose(error: OSError) -> None:
    pass


def _fill_closed_descriptors() -> None:
    """Keep files from being opened as number 0, 1 or 2, into which libraries write their messages."""
    for number, unusable in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, which is this one.
            os.open(os.devnull, unusable)


def _let_go(stream: TextIO) -> None:
    """Keep what could not be written from being tried again, and complained of, when Python ends."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
