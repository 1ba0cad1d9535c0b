"""What a number or a text from outside may be: declared beside the field that holds it, checked here alone.

In: a value of a manifest, spec, configuration, report or command line. Out: None, or a phrase for an error's sentence
that says what the value must be and what it is. A field declares its bounds as `Annotated[int, Whole(1, 8192,
"pixels")]`, a command line argument as `type=argument(Whole(1, 1024))`.
"""

from __future__ import annotations

import argparse
import math
import re
import reprlib
import unicodedata
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, Protocol

_MAX_SHOWN = 60


class Bounds(Protocol):
    """What a value may be."""

    def fault(self, value: object) -> str | None:
        """What is wrong with `value`, as "must be ..., not ..."; None if nothing is."""


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, both included; `unit` is said in errors."""

    low: int
    high: int
    unit: str = ""

    def fault(self, value: object) -> str | None:
        """See `Bounds.fault`; True and False are no numbers."""
        if isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high:
            return None
        return f"must be a whole number from {self.low} to {self.high}{_after(self.unit)}, not {shown(value)}"


# What a user may choose for the noise; any whole number works.
SEEDS = Whole(0, (1 << 63) - 1)


@dataclass(frozen=True)
class Real:
    """A finite number from `low` to `high`, both included; `unit` is said in errors."""

    low: float
    high: float
    unit: str = ""

    def fault(self, value: object) -> str | None:
        """See `Bounds.fault`; whole numbers are real ones, True, False and NaN are none."""
        if isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high:
            return None
        return f"must be a number from {self.low:g} to {self.high:g}{_after(self.unit)}, not {shown(value)}"


@dataclass(frozen=True)
class Text:
    """A text of at most `longest` characters that a terminal shows as it is: no control or format characters."""

    longest: int = 256

    def fault(self, value: object) -> str | None:
        """See `Bounds.fault`."""
        if not isinstance(value, str):
            return f"must be a text, not {shown(value)}"
        if len(value) > self.longest:
            return f"must be at most {self.longest} characters long, not {len(value)}"
        if not printable(value):
            return f"must have no control characters, as {shown(value)} has"
        return None


@dataclass(frozen=True)
class Items:
    """A list of at most `longest` values, each within `each`."""

    each: Bounds
    longest: int

    def fault(self, value: object) -> str | None:
        """See `Bounds.fault`."""
        if not isinstance(value, list | tuple):
            return f"must be a list, not {shown(value)}"
        if len(value) > self.longest:
            return f"must have at most {self.longest} items, not {len(value)}"
        return next((f"has an item that {fault}" for item in value if (fault := self.each.fault(item))), None)


@dataclass(frozen=True)
class OneOf:
    """One of a few texts."""

    choices: tuple[str, ...]

    def fault(self, value: object) -> str | None:
        """See `Bounds.fault`."""
        return None if value in self.choices else f"must be one of {', '.join(self.choices)}, not {shown(value)}"


@dataclass(frozen=True)
class Json:
    """Any JSON value of at most `deepest` levels and `most` values, texts and numbers within what all have."""

    deepest: int = 16
    most: int = 1 << 18

    def fault(self, value: object) -> str | None:
        """See `Bounds.fault`."""
        left = self.most
        level = [value]
        for _ in range(self.deepest):
            left -= len(level)
            if left < 0:
                return f"must hold at most {self.most} values"
            inner: list[object] = []
            for item in level:
                if isinstance(item, Mapping):
                    inner += [*item, *item.values()]
                elif isinstance(item, list | tuple):
                    inner += item
                elif fault := _leaf_fault(item):
                    return f"has a value that {fault}"
            level = inner
            if not level:
                return None
        return f"must have at most {self.deepest} levels"


@dataclass(frozen=True)
class Count:
    """A list or object of at most `longest` entries, whatever they are."""

    longest: int

    def fault(self, value: object) -> str | None:
        """See `Bounds.fault`; what has no length is left to whoever reads the entries."""
        if isinstance(value, Sized) and len(value) > self.longest:
            return f"must have at most {self.longest} entries, not {len(value)}"
        return None


@dataclass(frozen=True)
class InsidePath:
    """A plain relative POSIX path that stays inside its folder: no `..`, backslash, drive letter or empty part."""

    folder: str = "the bundle"

    def fault(self, value: object) -> str | None:
        """See `Bounds.fault`."""
        plain = (
            isinstance(value, str)
            and 0 < len(value) <= 1024
            and printable(value)
            and not re.search(r"[\\:]", value)
            and all(part not in ("", ".", "..") and len(part.encode()) < 256 for part in value.split("/"))
            and not value.startswith("/")
        )
        return None if plain else f"must be a plain path inside {self.folder}, not {shown(value)}"


@dataclass(frozen=True)
class Sha256:
    """64 hexadecimal digits."""

    def fault(self, value: object) -> str | None:
        """See `Bounds.fault`."""
        if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
            return None
        return f"must be a sha256 in 64 hexadecimal digits, not {shown(value)}"


@dataclass(frozen=True)
class Elements:
    """A shape whose fixed dimensions have at most `most` elements together."""

    most: int

    def fault(self, value: object) -> str | None:
        """See `Bounds.fault`."""
        sizes = [size for size in value if isinstance(size, int)] if isinstance(value, list | tuple) else []
        return f"must have at most {self.most} elements" if math.prod(sizes) > self.most else None


def printable(text: str) -> bool:
    """Whether a terminal shows `text` as it is: no control, format, surrogate or line separating characters."""
    return not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text)


def shown(value: object) -> str:
    """`value` for a sentence: short, on one line, without characters that steer a terminal."""
    text = _Short().repr(value)
    return "".join(c if printable(c) else f"\\x{ord(c):02x}" for c in text)[: 2 * _MAX_SHOWN]


def argument(bounds: Whole | Real) -> Callable[[str], Any]:
    """A `type=` for argparse that reads a number and holds it to `bounds`."""
    read: type[int] | type[float] = int if isinstance(bounds, Whole) else float

    def parse(text: str) -> int | float:
        value: int | float | str
        try:
            value = read(text)
        except ValueError:
            value = text
        if fault := bounds.fault(value):
            raise argparse.ArgumentTypeError(fault)
        return read(text)

    return parse


def _leaf_fault(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return Text(4096).fault(value)
    return Real(-1e300, 1e300).fault(value)


def _after(unit: str) -> str:
    return f" {unit}" if unit else ""


class _Short(reprlib.Repr):
    """Cuts before it formats, so that neither a deep list, a long text nor a huge number is walked to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = _MAX_SHOWN

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() <= 128:
            return repr(x)
        return f"{'-' if x < 0 else ''}10^{round(x.bit_length() * math.log10(2))}"
