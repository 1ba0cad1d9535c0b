"""`VoiceGate`: cuts the sound of a microphone, which never pauses, into what a voice says and the silence between."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from ...inputs.convert import Samples
from ...inputs.silence import SilenceDetector

_BLOCK_SECONDS = 0.02
# A voice is noticed when it is loud enough, which is after it has begun.
_LEAD_SECONDS = 0.2
# Pauses between words are shorter.
_PAUSE_SECONDS = 0.4


@dataclass(frozen=True)
class Heard:
    """Some of a voice: float32 [samples], when they came in, and whether what was said ends with them."""

    pcm: Samples
    came: float
    last: bool = False


class VoiceGate:
    """Passes a voice on from a moment before it is heard to a pause behind it, a whole number of chunks.

    So no more has to be rendered than comes in, however often somebody pauses.
    """

    def __init__(self, rate: int, chunk_seconds: float) -> None:
        """For samples at `rate` Hz and chunks of so many seconds."""
        self._silence = SilenceDetector(rate)
        self._block = max(round(_BLOCK_SECONDS * rate), 1)
        self._lead, self._pause = round(_LEAD_SECONDS * rate), round(_PAUSE_SECONDS * rate)
        self._chunk = chunk_seconds * rate
        self._before: deque[Heard] = deque()
        self._passed: int | None = None
        self._chunks = self._quiet = 0

    def hear(self, pcm: Samples, came: float) -> Iterator[Heard]:
        """Take float32 [samples] that came in at `came` seconds; gives what is to be said now."""
        for start in range(0, pcm.size, self._block):
            block = pcm[start : start + self._block]
            silent = self._silence.is_silent(block)
            self._quiet = self._quiet + block.size if silent else 0
            if self._passed is not None:
                yield from self._pass_on(block, came)
                continue
            self._before.append(Heard(block, came))
            if not silent:
                yield from self._open()
            elif sum(part.pcm.size for part in self._before) - self._before[0].pcm.size >= self._lead:
                self._before.popleft()

    def shut(self) -> None:
        """Pass nothing on before a voice is heard again."""
        self._passed = None
        self._before.clear()

    def _open(self) -> Iterator[Heard]:
        self._passed, self._chunks = 0, 1
        waiting, self._before = self._before, deque()
        for part in waiting:
            yield from self._pass_on(part.pcm, part.came)

    def _pass_on(self, block: Samples, came: float) -> Iterator[Heard]:
        assert self._passed is not None
        left = int(self._chunks * self._chunk) - self._passed
        if block.size < left:
            self._passed += block.size
            yield Heard(block, came)
            return
        self._chunks += 1
        if self._quiet < self._pause:
            self._passed += block.size
            yield Heard(block, came)
            return
        self.shut()
        self._before.append(Heard(block[left:], came))
        yield Heard(block[:left], came, last=True)
