"""What becomes of a chunk whose sound is there: it is left out, idle motion is shown again, or it is rendered.

In: the session's sound and a chunk's index. Out: the `Chunk`, and the loop standing where the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, NumericalError
from ..inputs.silence import SilenceDetector
from ..loop.carry import Past
from ..loop.interface import Loop
from ..loop.pixels import Frames
from ..spec import ModelSpec
from .chunk import Chunk
from .idle import IdleReplay
from .overload import Rung
from .overload_governor import Governor
from .sample_buffer import SampleBuffer
from .whole_sound import WholeSound


class ChunkRenderer:
    """Makes one session's chunks, one after the other."""

    def __init__(
        self,
        spec: ModelSpec,
        loop: Loop,
        governor: Governor,
        clock: Callable[[], float],
        whole: WholeSound | None = None,
    ) -> None:
        """Render with `loop` as `governor` says, over windows or a `whole` sound; `clock` gives seconds."""
        self._spec, self._loop, self._governor, self._clock = spec, loop, governor, clock
        self._whole = whole
        self._best = Rung(spec.steps)
        self._silence, self._idle = SilenceDetector(spec.sample_rate), IdleReplay(spec.idle_replays)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report should say about how the chunks have been rendered."""
        return self._loop.notes

    def render(self, index: int, sound: SampleBuffer, captured: float, asked: float) -> Chunk:
        """Make the next chunk.

        Args:
            index: of the chunk in the session's sound.
            sound: the session's samples, those of the chunk and the window before them.
            captured: when the chunk's last sample was pushed, in seconds.
            asked: when the chunk was asked for, in seconds on the clock.

        Raises:
            NumericalError, EngineError: it cannot be rendered, and the governor does not go on without it.
        """
        chunk = self._unrendered(index, sound, captured)
        started = self._clock()
        features = None if self._whole is None else self._whole.features(index, sound)
        encoding = self._clock() - started
        if not self._governor.admits(index, self._clock()):
            return self._left_out(index, chunk)
        again = self._idle.replay(chunk.silent)
        if again is not None:
            return self._shown_again(chunk, *again)
        if features is None:
            sound.read(*self._spec.window_of(index), self._loop.waveform)
            return self._rendered(index, chunk, asked)
        rendered = self._rendered(index, chunk, asked, features)
        return replace(rendered, stats={"audio_encoder": encoding} | dict(rendered.stats))

    def _unrendered(self, index: int, sound: SampleBuffer, captured: float) -> Chunk:
        """The chunk with its sound and without frames."""
        spec, start = self._spec, index * self._spec.chunk_samples
        audio = np.empty(min(start + spec.chunk_samples, sound.end) - start, np.float32)
        sound.read(start, start + audio.size, audio)
        return Chunk(
            frames=np.empty((0, *spec.image_size, 3), np.uint8),
            audio=audio,
            pts=index * spec.new_frames / spec.fps,
            late=False,
            stats=MappingProxyType({}),
            duration=self._shown(audio.size) / spec.fps,
            silent=self._silence.is_silent(audio),
            captured=captured,
        )

    def _left_out(self, index: int, chunk: Chunk) -> Chunk:
        self._governor.left_out(index)
        self._pass_over(self._loop.state.past)
        return replace(chunk, dropped=True)

    def _shown_again(self, chunk: Chunk, frames: Frames, past: Past | None) -> Chunk:
        self._loop.restore(self._loop.state.passed(past))
        return replace(
            chunk, frames=frames[: self._shown(chunk.audio.size)], late=self._governor.replayed(self._clock())
        )

    def _rendered(self, index: int, chunk: Chunk, asked: float, features: NDArray[np.float32] | None = None) -> Chunk:
        loop = self._loop
        rung, before = self._governor.rung, loop.state.past
        try:
            frames, stats = loop.render(rung.steps, rung.frame_step, features)
        except (NumericalError, EngineError) as error:
            if not self._governor.forgives(index, str(error)):
                raise
            # Its past may be what it failed of: the next one begins with the portrait.
            self._pass_over(None)
            return replace(chunk, failed=True)
        now = self._clock()
        late = self._governor.rendered(index, now, now - asked)
        if rung == self._best:
            self._idle.rendered(frames, chunk.silent, before, loop.state.past)
        else:
            self._idle.reset()
        kept = -(-self._shown(chunk.audio.size) // rung.frame_step)
        return replace(
            chunk,
            frames=frames[:kept],
            on_device=None if loop.on_device is None else loop.on_device.every(1, kept),
            late=late,
            stats=stats,
            frame_step=rung.frame_step,
            steps=rung.steps,
            reduced=rung != self._best,
        )

    def _pass_over(self, past: Past | None) -> None:
        """No frames come of this chunk: the next one begins with `past`, and nothing is settled."""
        self._loop.restore(self._loop.state.passed(past))
        self._idle.reset()

    def _shown(self, samples: int) -> int:
        """Frames that so many samples are shown with."""
        return -(-samples // self._spec.samples_per_frame)
