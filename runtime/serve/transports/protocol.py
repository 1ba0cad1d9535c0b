"""The messages of the WebSocket, checked before use; foreign bytes meet nothing else of the server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ServeError
from ...inputs.convert import to_float

MAX_TEXT = 4096
MAX_BINARY = 256 << 10
MIN_RATE, MAX_RATE = 8_000, 96_000
FORMATS = {"s16le": "<i2", "f32le": "<f4"}
_LONGEST_ID = 64


@dataclass(frozen=True)
class Start:
    """What a client announces: mono samples of `format` at `rate` Hz, and a portrait's id or None."""

    rate: int
    format: str
    portrait: str | None


def parse_object(text: str | bytes, most: int = MAX_TEXT) -> dict[str, Any]:
    """A JSON object of at most `most` characters; raises `ServeError` for anything else."""
    if len(text) > most:
        raise ServeError(f"The message is longer than {most} characters; send less.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ServeError('The message is not JSON; send an object such as {"type": "start", "rate": 16000}.') from None
    if not isinstance(value, dict):
        raise ServeError('The message is not a JSON object; send one such as {"type": "start", "rate": 16000}.')
    return value


def parse_start(text: str) -> Start:
    """The first message; raises `ServeError` with a sentence for the client."""
    message = parse_object(text)
    if message.get("type") != "start":
        raise ServeError('The first message must be {"type": "start"}; send it before any sound.')
    rate, form = message.get("rate"), message.get("format", "s16le")
    if type(rate) is not int or not MIN_RATE <= rate <= MAX_RATE:
        raise ServeError(
            f"The rate must be a whole number of Hz from {MIN_RATE} to {MAX_RATE}; state the samples' own."
        )
    if not isinstance(form, str) or form not in FORMATS:
        raise ServeError(f"The format must be one of {', '.join(FORMATS)}; convert the samples.")
    if message.get("channels", 1) != 1:
        raise ServeError("Only mono is taken; mix the channels and state 1.")
    return Start(rate, form, parse_portrait(message))


def parse_portrait(message: dict[str, Any]) -> str | None:
    """The portrait's id in a message, if any; raises `ServeError` for what is no id."""
    portrait = message.get("portrait")
    if portrait is not None and (not isinstance(portrait, str) or len(portrait) > _LONGEST_ID):
        raise ServeError("The portrait must be an id from the list of portraits; choose one.")
    return portrait


def is_finish(text: str) -> bool:
    """Whether a later message ends the audio; raises `ServeError` if it is anything else."""
    if parse_object(text).get("type") != "finish":
        raise ServeError('Only {"type": "finish"} may follow the start; send sound as binary messages.')
    return True


def decode_pcm(data: bytes, form: str) -> NDArray[np.float32]:
    """Samples of a binary message as float32 [samples] in -1..1.

    Raises:
        ServeError: not a whole number of samples.
        AudioError: NaN, Inf, or a magnitude that no recording has.
    """
    dtype = np.dtype(FORMATS[form])
    if len(data) % dtype.itemsize:
        raise ServeError(
            f"A message has {len(data)} bytes, not a whole number of {form} samples; cut the sound between samples."
        )
    return to_float(np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False))
