"""The messages of clients, checked before use; foreign bytes meet nothing else of the server."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...checks.bounds import SEEDS, OneOf, Text, Whole
from ...errors import ServeError
from ...inputs.convert import to_float
from ..admission import Wish
from ..tickets import LONGEST_TICKET

MAX_TEXT = 4096
MAX_BINARY = 256 << 10
MIN_RATE, MAX_RATE = 8_000, 96_000
FORMATS = {"s16le": "<i2", "f32le": "<f4"}
_RATES, _FORMATS = Whole(MIN_RATE, MAX_RATE, "Hz"), OneOf(tuple(FORMATS))
_IDS, _TICKETS = Text(64), Text(LONGEST_TICKET)


@dataclass(frozen=True)
class Pcm:
    """Mono samples of `format` at `rate` Hz."""

    rate: int
    format: str


@dataclass(frozen=True)
class Key:
    """What opens a session that a program has made: its id, and the token of one of its two sides."""

    session: str
    token: str


@dataclass(frozen=True)
class Start:
    """A visitor: their sound, what they ask for, and whether a microphone gives the sound, which never pauses."""

    sound: Pcm
    wish: Wish
    live: bool


@dataclass(frozen=True)
class Feed:
    """A program that gives a session its sound."""

    key: Key
    sound: Pcm


@dataclass(frozen=True)
class Watch:
    """A watcher of a session."""

    key: Key


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


def parse_start(text: str) -> Start | Feed | Watch:
    """The first message; raises `ServeError` with a sentence for the client."""
    message = parse_object(text)
    kind = message.get("type")
    if kind == "feed":
        return Feed(parse_key(message), parse_sound(message))
    if kind == "watch":
        return Watch(parse_key(message))
    if kind != "start":
        raise ServeError('The first message must be {"type": "start"}; send it before any sound.')
    live = message.get("live", False)
    if not isinstance(live, bool):
        raise ServeError('"live" must be true for a microphone, and else false.')
    return Start(parse_sound(message), parse_wish(message), live)


def parse_verb(text: str | bytes, known: Collection[str]) -> str:
    """The type of a later message, one of `known`; raises `ServeError` with a sentence for anything else."""
    verb = parse_object(text).get("type")
    if not isinstance(verb, str) or verb not in known:
        raise ServeError(f"Only {', '.join(sorted(known))} may be asked for here; this message was passed over.")
    return verb


def parse_sound(message: dict[str, Any]) -> Pcm:
    """What a client's samples are; raises `ServeError` for what is not taken."""
    rate, form = message.get("rate"), message.get("format", "s16le")
    if fault := _RATES.fault(rate):
        raise ServeError(f"The rate {fault}; state the samples' own.")
    if fault := _FORMATS.fault(form):
        raise ServeError(f"The format {fault}; convert the samples.")
    if message.get("channels", 1) != 1:
        raise ServeError("Only mono is taken; mix the channels and state 1.")
    assert isinstance(rate, int)
    return Pcm(rate, str(form))


def parse_key(message: dict[str, Any]) -> Key:
    """A session's id and token in a message; raises `ServeError` for what is none."""
    session, token = message.get("session"), message.get("token")
    if _IDS.fault(session) or _IDS.fault(token):
        raise ServeError("The session must be its id and a token; POST /api/sessions gives both.")
    return Key(str(session), str(token))


def parse_wish(message: dict[str, Any]) -> Wish:
    """What a visitor asks for in a message; raises `ServeError` for what cannot be asked for."""
    portrait, seed, ticket = message.get("portrait"), message.get("seed", 0), message.get("ticket")
    if portrait is not None and _IDS.fault(portrait):
        raise ServeError("The portrait must be an id from the list of portraits; choose one.")
    if fault := SEEDS.fault(seed):
        raise ServeError(f"The seed {fault}; leave it out for the usual one.")
    if ticket is not None and _TICKETS.fault(ticket):
        raise ServeError("The ticket must be the text that the dispatcher gave; ask for another one.")
    return Wish(portrait, seed, ticket)


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
