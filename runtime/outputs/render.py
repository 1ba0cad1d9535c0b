"""The loop without a display: source -> session -> chunks -> sink, in constant memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import numpy as np

from ..avatar import Avatar
from ..errors import AudioError
from ..inputs.convert import AudioWarning, to_mono
from ..inputs.soundtrack import Soundtrack
from ..inputs.source import LiveSource
from ..reports.run_report import RunMeter
from ..session.overload import Overload
from ..session.session import Session
from ..spec import AudioEncodeMode
from .protocols import Sink

# -80 dB of full scale; 16-bit dither is quieter than this.
_SILENCE = 1e-4


def render(
    avatar: Avatar,
    source: LiveSource,
    sink: Sink,
    *,
    seed: int = 0,
    overload: Overload | None = None,
    meter: RunMeter | None = None,
    on_progress: Callable[[float], None] | None = None,
    audio_encode_mode: AudioEncodeMode = "stream",
) -> None:
    """Render a source to its end into a sink; silence is rendered too, with an `AudioWarning`.

    Args:
        avatar: the model and the portrait.
        source: the speech; it is read to its end.
        sink: takes frames and sound; it is not closed.
        seed: of the noise.
        overload: what to do when chunks are late, for a source in real time; the sink is then given the last good frame
            where there is no better one. None never degrades.
        meter: counts chunks and times, for a report.
        on_progress: is told the rendered seconds after every chunk.
        audio_encode_mode: as for `Avatar.session`; "once" keeps all of the sound in memory.

    Raises:
        AudioError: the source holds NaN or changes its form half way, or is live or too long to be encoded at once.
        BundleError, SpecError: as `Avatar.session`.
        NumericalError, EngineError: a chunk cannot be rendered.
        OutputError: the sink cannot take it.
    """
    if audio_encode_mode == "once" and source.live:
        raise AudioError("A live source has no end after which it could be encoded at once; take 'stream'.")
    peak = 0.0
    meter = RunMeter(avatar.spec) if meter is None else meter
    soundtrack = Soundtrack(source.rate, source.channels, sink.rate, sink.channels)
    with avatar.session(
        seed=seed, sample_rate=source.rate, overload=overload, audio_encode_mode=audio_encode_mode
    ) as session:
        loop = _Loop(avatar, session, soundtrack, sink, meter, on_progress)
        for block in source:
            peak = max(peak, float(np.abs(block).max()))
            session.push(to_mono(block))
            soundtrack.push(block)
            loop.drain()
        session.finish()
        soundtrack.finish()
        loop.drain()
        loop.finish()
    if peak < _SILENCE:
        warnings.warn("The audio is silent from start to end, so the face does not speak.", AudioWarning, stacklevel=2)


class _Loop:
    """Takes what is ready from the session and passes it on."""

    def __init__(
        self,
        avatar: Avatar,
        session: Session,
        soundtrack: Soundtrack,
        sink: Sink,
        meter: RunMeter,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        self._spec, self._session, self._soundtrack, self._sink = avatar.spec, session, soundtrack, sink
        self._good = avatar.portrait
        self._meter, self._on_progress = meter, on_progress
        self._waiting_since = perf_counter()
        self._input_seconds = 0.0

    def drain(self) -> None:
        """Pass on every ready chunk; the time since the last call went into reading the source."""
        self._input_seconds += perf_counter() - self._waiting_since
        chunks = self._session.chunks()
        while True:
            started = perf_counter()
            chunk = next(chunks, None)
            if chunk is None:
                break
            end = chunk.pts + chunk.duration
            frames = chunk.at_full_rate(self._spec.fps, self._good)
            self._good = frames[-1]
            self._meter.stages.add({"audio_input": self._input_seconds})
            # Counted as it is written, with the frames that are held.
            self._meter.add_chunk(replace(chunk, frames=frames), perf_counter() - started)
            self._meter.note(self._session.notes)
            self._input_seconds = 0.0
            with self._meter.stages.time("video_output"):
                self._sink.write(frames, self._soundtrack.take_until(end))
            if self._on_progress is not None:
                self._on_progress(end)
        self._waiting_since = perf_counter()

    def finish(self) -> None:
        """Pass on the samples that rounding has left over."""
        rest = self._soundtrack.take_rest()
        if len(rest):
            self._sink.write(np.empty((0, *self._spec.image_size, 3), np.uint8), rest)
