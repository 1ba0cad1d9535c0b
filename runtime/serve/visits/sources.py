"""Where a visitor's sound comes from: a microphone, which never pauses and cannot wait, or a program, which can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from ...inputs.convert import Samples
from .visit import Visit
from .voice_gate import VoiceGate

# A microphone that is further ahead of what is shown has lost real time; more would only grow the latency.
_MOST_CHUNKS_BEHIND, _MOST_SECONDS_BEHIND = 3, 0.5
_SLICE_SECONDS = 1.0


class Microphone:
    """Says what a voice says, and nothing of the silence between."""

    def __init__(self, visit: Visit, rate: int) -> None:
        """Speak in `visit`; samples have `rate` Hz."""
        self._visit, self._rate = visit, rate
        self._gate = VoiceGate(rate, visit.spec.chunk_seconds)
        self._dropping = False
        visit.line_lives()

    @property
    def verbs(self) -> Mapping[str, Callable[[], object]]:
        """What the visitor may ask for."""
        return {"interrupt": self._interrupt, "end_utterance": self._end, "finish": self._visit.finish}

    async def take(self, pcm: Samples) -> None:
        """Take float32 [samples]; dropped and counted where the face is too far behind.

        Raises:
            AudioError: NaN or Inf among the samples.
        """
        visit, chunk = self._visit, self._visit.spec.chunk_seconds
        visit.line_lives()
        for heard in self._gate.hear(pcm, asyncio.get_running_loop().time()):
            # One long gap does less harm than many short ones.
            most = _MOST_SECONDS_BEHIND + chunk * (_MOST_CHUNKS_BEHIND - self._dropping)
            self._dropping = visit.unplayed_seconds > most
            if self._dropping:
                visit.dropped_seconds += heard.pcm.size / self._rate
            else:
                visit.say(heard.pcm, self._rate, heard.came)
            if heard.last:
                visit.end_utterance()

    def _interrupt(self) -> None:
        self._gate.shut()
        self._visit.interrupt()

    def _end(self) -> None:
        self._gate.shut()
        self._visit.end_utterance()


class Program:
    """Says everything it is given, as fast as that comes, and waits where that is too fast."""

    def __init__(self, visit: Visit, rate: int) -> None:
        """Speak in `visit`; samples have `rate` Hz."""
        self._visit, self._rate = visit, rate

    @property
    def verbs(self) -> Mapping[str, Callable[[], object]]:
        """What the visitor may ask for."""
        visit = self._visit
        return {"interrupt": visit.interrupt, "end_utterance": visit.end_utterance, "finish": visit.finish}

    async def take(self, pcm: Samples) -> None:
        """Take float32 [samples].

        Raises:
            AudioError: NaN or Inf among the samples.
        """
        async for part in slices(pcm, self._rate):
            await self._visit.room()
            self._visit.say(part, self._rate)


Source = Microphone | Program


async def slices(pcm: Samples, rate: int) -> AsyncIterator[Samples]:
    """float32 [samples] a second at a time, as much of it takes a while to resample: others have their turn between."""
    size = round(_SLICE_SECONDS * rate)
    for start in range(0, pcm.size, size):
        yield pcm[start : start + size]
        await asyncio.sleep(0)
