"""`Session`: one viewer's stream, from pushed samples to chunks of frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import Resampler, to_float
from .chunk_loop import ChunkLoop
from .errors import SessionError
from .sample_buffer import SampleBuffer
from .spec import ModelSpec


@dataclass(frozen=True)
class Chunk:
    """A piece of video with its sound.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB at the spec's fps.
        audio: float32 [samples] at the spec's sample rate, exactly as long as was pushed for these frames.
        pts: presentation time of the first frame in seconds.
        late: computing took longer than the chunk plays.
        stats: seconds spent per stage.
    """

    frames: NDArray[np.uint8]
    audio: NDArray[np.float32]
    pts: float
    late: bool
    stats: Mapping[str, float]


class Session:
    """One viewer's audio, carried latents and clock.

    `push` may be called from one thread and `chunks` from another. The frames depend on the audio, the seed and
    the portrait alone, not on how the audio was split.
    """

    def __init__(self, spec: ModelSpec, loop: ChunkLoop, sample_rate: int) -> None:
        """Made by `Avatar.session`; `sample_rate` is that of the pushed audio in Hz."""
        self._spec, self._loop = spec, loop
        self._resampler = Resampler(sample_rate, spec.sample_rate)
        self._buffer = SampleBuffer(spec.window_samples)
        self._rendered = 0
        self._finished = False
        self._closed = False
        self._rendering = threading.Lock()

    def push(self, pcm: NDArray[Any]) -> None:
        """Add any number of mono samples.

        Args:
            pcm: [samples] float32 in -1..1, or int16, at the session's sample rate.

        Raises:
            AudioError: another dtype or shape, or NaN or Inf among the samples.
            SessionError: after `finish` or `close`.
        """
        self._require_open()
        if self._finished:
            raise SessionError("The session's audio has been finished; open a new session to push more.")
        self._buffer.append(self._resampler.push(to_float(pcm)))

    def finish(self) -> None:
        """End the audio: what is left becomes ready, and the last chunk ends where the audio ends."""
        self._require_open()
        if not self._finished:
            self._buffer.append(self._resampler.flush())
            self._finished = True

    def chunks(self) -> Iterator[Chunk]:
        """Render and yield every chunk that is ready.

        Raises:
            NumericalError: a stage gave NaN or Inf; the chunk is not yielded and the session is closed.
            EngineError: an engine failed; likewise.
            SessionError: after `close`.
        """
        while True:
            self._require_open()
            with self._rendering:
                if not self._ready():
                    return
                chunk = self._render()
            yield chunk

    def close(self) -> None:
        """End the session; it takes and gives nothing any more."""
        self._closed = True

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ready(self) -> bool:
        waiting = self._buffer.end - self._rendered * self._spec.chunk_samples
        return waiting >= self._spec.chunk_samples or (self._finished and waiting > 0)

    def _render(self) -> Chunk:
        spec = self._spec
        started = time.perf_counter()
        start = self._rendered * spec.chunk_samples
        stop = start + spec.chunk_samples
        self._buffer.read(stop - spec.window_samples, stop, self._loop.waveform)
        try:
            frames, stats = self._loop.render()
        except BaseException:
            # A half-rendered chunk leaves carried latents of two chunks behind; going on would show it.
            self.close()
            raise
        audio = np.empty(min(stop, self._buffer.end) - start, np.float32)
        self._buffer.read(start, start + audio.size, audio)
        self._rendered += 1
        self._buffer.drop_before(stop)
        count = -(-audio.size // spec.samples_per_frame)
        return Chunk(
            frames=frames[:count],
            audio=audio,
            pts=start / spec.sample_rate,
            late=time.perf_counter() - started > spec.chunk_seconds,
            stats=stats,
        )

    def _require_open(self) -> None:
        if self._closed:
            raise SessionError("The session is closed; open a new one with Avatar.session().")
