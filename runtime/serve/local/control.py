"""The messages of local clients, a JSON object on each line, checked before use; docs/local.md describes them."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any

from ...checks.bounds import Whole, shown
from ...errors import ServeError
from ...session.stream_core import Ended, Interrupted, StreamEvent
from ..transports.protocol import MAX_BINARY, Start, parse_object, parse_start

VERSION = 1
_BYTES = Whole(0, MAX_BINARY, "bytes")


class Verb(enum.Enum):
    """Messages that are only a type."""

    END_UTTERANCE = "end_utterance"
    INTERRUPT = "interrupt"
    FINISH = "finish"


@dataclass(frozen=True)
class Audio:
    """`size` bytes of samples follow the line."""

    size: int


class RefusedError(ServeError):
    """A message is not taken; what follows it can be read all the same."""


def parse_hello(line: bytes) -> Start:
    """The first line; raises `ServeError` with a sentence for the client."""
    start = parse_start(_text(line))
    version = parse_object(line).get("version", VERSION)
    if version != VERSION:
        raise ServeError(
            f"The client speaks version {shown(version)} of the messages, this server {VERSION}; "
            "build the client of this release."
        )
    return start


def parse_message(line: bytes) -> Audio | Verb:
    """A later line.

    Raises:
        RefusedError: a message of a type that there is not.
        ServeError: no message, so that nobody knows where the next one begins.
    """
    message = parse_object(_text(line))
    kind = message.get("type")
    if kind == "audio":
        size = message.get("bytes")
        if fault := _BYTES.fault(size):
            raise ServeError(f'"bytes" of an audio message {fault}.')
        assert isinstance(size, int)
        return Audio(size)
    for verb in Verb:
        if kind == verb.value:
            return verb
    raise RefusedError(f"A message of type {shown(kind)} is not known; send audio, {', '.join(v.value for v in Verb)}.")


def described(event: StreamEvent, frame: int) -> dict[str, Any]:
    """An event as a message; `frame` is the number of the frame in which it happened."""
    names = {Ended: "ended", Interrupted: "interrupted"}
    message = {"type": "utterance", "event": names.get(type(event), "started"), "utterance": event.utterance}
    if isinstance(event, Ended | Interrupted):
        message["played_ms"] = round(event.played_ms, 3)
    return message | {"frame": frame}


def encoded(message: dict[str, Any]) -> bytes:
    """A message as a line."""
    return json.dumps(message, ensure_ascii=False).encode() + b"\n"


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise ServeError("The line is not UTF-8; send one JSON object per line.") from None
