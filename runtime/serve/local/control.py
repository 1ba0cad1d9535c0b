"""The messages of local clients, a JSON object on each line, checked before use: those of every client, and sound."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ...checks.bounds import Whole, shown
from ...errors import ServeError
from ..transports.protocol import MAX_BINARY, Start, parse_object, parse_start, parse_verb

VERSION = 1
VERBS = frozenset({"end_utterance", "interrupt", "finish"})
_BYTES = Whole(0, MAX_BINARY, "bytes")


@dataclass(frozen=True)
class Audio:
    """`size` bytes of samples follow the line."""

    size: int


class PassedOverError(ServeError):
    """A message is not taken; what follows it can be read all the same."""

    def __init__(self, reason: str, message: str) -> None:
        """`reason` is a word for programs, `message` a sentence for people."""
        super().__init__(message)
        self.reason = reason


def parse_hello(line: bytes) -> Start:
    """The first line; raises `ServeError` with a sentence for the client."""
    start = parse_start(_text(line))
    if not isinstance(start, Start):
        raise ServeError('A local client has a face of its own; the first message must be {"type": "start"}.')
    version = parse_object(line).get("version", VERSION)
    if version != VERSION:
        raise ServeError(
            f"The client speaks version {shown(version)} of the messages, this server {VERSION}; "
            "build the client of this release."
        )
    return start


def parse_message(line: bytes) -> Audio | str:
    """A later line: what announces sound, or one of `VERBS`.

    Raises:
        PassedOverError: a message that there is not.
        ServeError: no message, so that nobody knows where the next one begins.
    """
    message = parse_object(_text(line))
    if message.get("type") != "audio":
        try:
            return parse_verb(line, VERBS)
        except ServeError as error:
            raise PassedOverError("unknown-message", str(error)) from None
    size = message.get("bytes")
    if fault := _BYTES.fault(size):
        raise ServeError(f'"bytes" of an audio message {fault}.')
    assert isinstance(size, int)
    return Audio(size)


def encoded(message: dict[str, Any]) -> bytes:
    """A message as a line."""
    return json.dumps(message, ensure_ascii=False).encode() + b"\n"


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise ServeError("The line is not UTF-8; send one JSON object per line.") from None
