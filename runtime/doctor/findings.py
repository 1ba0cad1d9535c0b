"""What rap-doctor finds: facts with a verdict, and the command that mends what is wrong; as JSON and for a screen."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

State = Literal["ok", "absent", "problem"]

_SIGNS: Mapping[State, str] = MappingProxyType({"ok": "✓", "absent": "–", "problem": "✗"})
_WORDS: Mapping[State, str] = MappingProxyType({"ok": "ok", "absent": "--", "problem": "NO"})
_COLOURS: Mapping[State, str] = MappingProxyType({"ok": "\x1b[32m", "absent": "\x1b[2m", "problem": "\x1b[31m"})
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
_TOPIC_WIDTH = 15


@dataclass(frozen=True)
class Finding:
    """One fact.

    Attributes:
        topic: what it is about.
        state: "ok"; "absent" for what is not here and need not be; "problem" for what should work and does not.
        text: the fact.
        cure: the command that mends or runs it, "" if there is none.
    """

    topic: str
    state: State
    text: str
    cure: str = ""


@dataclass(frozen=True)
class Section:
    """Findings about one thing."""

    title: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Diagnosis:
    """All that was found; `sections` in the order in which they are read."""

    program: str
    sections: tuple[Section, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is a problem."""
        return all(finding.state != "problem" for section in self.sections for finding in section.findings)

    def to_json(self) -> str:
        """One JSON object; every finding has topic, state, text and cure."""
        return json.dumps({"healthy": self.healthy, **dataclasses.asdict(self)}, indent=2, allow_nan=False)

    def to_screen(self, width: int = 100, *, colour: bool = False, signs: bool = True) -> str:
        """For people.

        Args:
            width: columns.
            colour: use a terminal's colours.
            signs: use signs outside ASCII.
        """
        paint = _Paint(colour, signs)
        lines = [self.program]
        for section in self.sections:
            lines += ["", paint.title(_printable(section.title))]
            for finding in section.findings:
                lines += _lines(finding, width, paint)
        return "\n".join(lines)


class _Paint:
    def __init__(self, colour: bool, signs: bool) -> None:
        self._colour, self._signs = colour, _SIGNS if signs else _WORDS

    def title(self, text: str) -> str:
        return f"{_BOLD}{text}{_PLAIN}" if self._colour else text

    def sign(self, state: State) -> str:
        sign = self._signs[state]
        return f"{_COLOURS[state]}{sign}{_PLAIN}" if self._colour else sign

    @property
    def width(self) -> int:
        return max(map(len, self._signs.values()))


def _lines(finding: Finding, width: int, paint: _Paint) -> Iterator[str]:
    margin = " " * (2 + paint.width + 2 + _TOPIC_WIDTH + 1)
    room = max(width - len(margin), 20)
    # A command is never broken, so that it can be copied.
    texts = textwrap.wrap(_printable(finding.text), room, break_long_words=False, break_on_hyphens=False) or [""]
    yield f"  {paint.sign(finding.state)}  {_printable(finding.topic):<{_TOPIC_WIDTH}} {texts[0]}"
    for text in texts[1:]:
        yield margin + text
    if finding.cure:
        yield f"{margin}$ {_printable(finding.cure)}"


def _printable(text: str) -> str:
    """A stranger's manifest must not move the cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)
