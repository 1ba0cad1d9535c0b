"""What is to be said: pushed sound by utterance, at the rate it is heard with and at the model's, side by side."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..inputs.convert import Samples
from ..inputs.resampler import Resampler

_SMALL_BLOCK = 1024


@dataclass(frozen=True)
class Span:
    """Where an utterance lies in a piece of sound.

    Attributes:
        utterance: its number.
        start, stop: its samples in the piece, at the rate it is heard with; equal for an utterance without sound.
        last: it ends with this piece.
    """

    utterance: int
    start: int
    stop: int
    last: bool


@dataclass
class _Queue:
    """Samples in order, added and taken in any pieces."""

    _blocks: deque[Samples] = field(default_factory=deque)
    size: int = 0

    def add(self, samples: Samples) -> None:
        """Add float32 [samples] at the end."""
        if not samples.size:
            return
        self.size += samples.size
        if self._blocks and self._blocks[-1].size + samples.size <= _SMALL_BLOCK:
            # An array for every sample would take more memory than all of them.
            samples = np.concatenate([self._blocks.pop(), samples])
        self._blocks.append(samples)

    def take(self, most: int) -> Samples:
        """The first samples, `most` of them or all that there are: float32 [samples]."""
        parts, missing = [], min(most, self.size)
        self.size -= missing
        while missing:
            block = self._blocks.popleft()
            if block.size > missing:
                self._blocks.appendleft(block[missing:])
                block = block[:missing]
            parts.append(block)
            missing -= block.size
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def peek(self, most: int) -> Samples:
        """What `take` would give."""
        parts, missing = [np.empty(0, np.float32)], most
        for block in self._blocks:
            if not missing:
                break
            parts.append(block[:missing])
            missing -= parts[-1].size
        return np.concatenate(parts)


@dataclass
class _Utterance:
    number: int
    to_model: Resampler
    from_rate: int
    to_heard: Resampler
    heard: _Queue
    model: _Queue
    begun: bool = False
    ended: bool = False

    def holds(self, heard: int, model: int) -> bool:
        """Whether so many samples can be taken at either rate."""
        return self.heard.size >= heard and self.model.size >= model


class Utterances:
    """Takes sound of any rate in any pieces; gives pieces of exact lengths, with what is said in them.

    Sound that has been pushed becomes available a few milliseconds later, when the resamplers can give it; the end of
    its utterance makes all of it available at once.
    """

    def __init__(self, heard_rate: int, model_rate: int) -> None:
        """Give sound at `heard_rate` to be heard, and at `model_rate` for the model, both in Hz."""
        self._rates = heard_rate, model_rate
        self._waiting: deque[_Utterance] = deque()
        self._count = 0

    @property
    def open(self) -> bool:
        """Whether the last utterance has begun and not been ended."""
        return bool(self._waiting) and not self._waiting[-1].ended

    @property
    def current(self) -> int:
        """The number of the utterance that is open, or else of the next one."""
        return self._waiting[-1].number if self.open else self._count

    @property
    def numbers(self) -> tuple[int, ...]:
        """The utterances of which something is waiting, or which may get more, in order."""
        return tuple(utterance.number for utterance in self._waiting)

    @property
    def size(self) -> int:
        """Samples that are waiting, at the rate they are heard with."""
        return sum(utterance.heard.size for utterance in self._waiting)

    def push(self, pcm: Samples, rate: int) -> None:
        """Add float32 [samples] of `rate` Hz to the utterance that is open, or to a new one.

        Raises:
            AudioError: the rate is impossible.
        """
        utterance = self._current(rate)
        if utterance.from_rate != rate:
            following = Resampler(rate, self._rates[0])
            self._heard(utterance, utterance.to_heard.flush())
            utterance.from_rate, utterance.to_heard = rate, following
        self._heard(utterance, utterance.to_heard.push(pcm))

    def end(self) -> None:
        """End the utterance that is open; one without sound if none is."""
        utterance = self._current(self._rates[0])
        self._heard(utterance, utterance.to_heard.flush())
        utterance.model.add(utterance.to_model.flush())
        utterance.ended = True

    def pop_empty(self) -> int | None:
        """Take the next utterance out if it has ended without any sound, and return its number."""
        first = self._waiting[0] if self._waiting else None
        if first is None or first.begun or not first.ended or first.heard.size:
            return None
        return self._waiting.popleft().number

    def has(self, heard: int, model: int) -> bool:
        """Whether a piece of so many samples can be taken: that much is there, or its utterance has ended."""
        if not self._waiting:
            return False
        first = self._waiting[0]
        return first.ended or first.holds(heard, model)

    def take(self, heard: int, model: int) -> tuple[Samples, Samples, tuple[Span, ...]]:
        """The next piece. It is silent behind an utterance that has ended, unless the next one can fill it.

        Args:
            heard: its samples at the rate it is heard with.
            model: its samples at the model's rate.

        Returns:
            float32 [heard], float32 [model], and what is said in it.
        """
        sounds = np.zeros(heard, np.float32), np.zeros(model, np.float32)
        filled, spans = [0, 0], []
        while self._waiting and filled[0] < heard:
            utterance, start = self._waiting[0], filled[0]
            if not utterance.ended and not utterance.holds(heard - filled[0], model - filled[1]):
                break
            utterance.begun = True
            for which, queue in enumerate((utterance.heard, utterance.model)):
                part = queue.take(sounds[which].size - filled[which])
                sounds[which][filled[which] : filled[which] + part.size] = part
                filled[which] += part.size
            last = utterance.ended and utterance.heard.size == 0
            spans.append(Span(utterance.number, start, filled[0], last))
            if not last:
                break
            self._waiting.popleft()
        return *sounds, tuple(spans)

    def peek(self, model: int) -> Samples:
        """The model's next samples, float32 [model], without taking them; silence where there are none yet."""
        parts, missing = [], model
        for utterance in self._waiting:
            parts.append(utterance.model.peek(missing))
            missing -= parts[-1].size
            if not missing or not utterance.ended:
                break
        return np.concatenate([*parts, np.zeros(missing, np.float32)])

    def clear(self) -> tuple[int, ...]:
        """Forget everything that has not been taken; returns the utterances that are lost with it."""
        lost = self.numbers
        self._waiting.clear()
        return lost

    def _current(self, rate: int) -> _Utterance:
        if not self.open:
            heard, model = self._rates
            resamplers = Resampler(heard, model), Resampler(rate, heard)
            self._waiting.append(_Utterance(self._count, resamplers[0], rate, resamplers[1], _Queue(), _Queue()))
            self._count += 1
        return self._waiting[-1]

    def _heard(self, utterance: _Utterance, samples: NDArray[np.float32]) -> None:
        utterance.heard.add(samples)
        utterance.model.add(utterance.to_model.push(samples))
