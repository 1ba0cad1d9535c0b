"""LiveKit Agents: a `VideoGenerator` for its `AvatarRunner`, in the agent's process or in a worker of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import numpy as np

from rap_edge.runtime import AudioError, AvatarStream, Ended
from rap_edge.runtime.cli.extras import needs_extra

from .pcm import to_bytes, to_samples

with needs_extra("livekit"):
    from livekit import rtc
    from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

_LOG = logging.getLogger(__name__)
_NOTHING = np.empty(0, np.float32)


class AvatarVideoGenerator(VideoGenerator):
    """Shows an `AvatarStream`: every segment of the agent's sound is an utterance.

    Every frame is followed by its sound; a frame in which nothing is said goes alone, since `AvatarRunner` takes the
    first sound for the beginning of a playback and counts it all. One segment is said at a time: the runner notices
    the end of a segment only if no sound of the next one has been read.
    """

    def __init__(self, stream: AvatarStream) -> None:
        """Show `stream`, which whoever opened it closes."""
        self._stream = stream
        # The utterance of the segment whose end has not been told yet.
        self._segment: int | None = None
        self._told = asyncio.Event()
        # Whether the last sound that was given has been dealt with.
        self._taken = asyncio.Event()
        self._taken.set()

    @property
    def options(self) -> AvatarOptions:
        """What `AvatarRunner` needs to know of the pictures and the sound."""
        stream = self._stream
        height, width = stream.image_size
        return AvatarOptions(width, height, stream.fps, stream.sample_rate, audio_channels=1)

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Take sound of any rate and number of channels. The end of a segment waits until it has been played.

        Raises:
            SessionError: the stream is closed.
        """
        if isinstance(frame, AudioSegmentEnd):
            # Behind a clear comes the end of what was cleared.
            if self._segment is not None:
                self._stream.end_utterance()
                await self._told.wait()
            return
        if self._segment is None:
            self._segment = self._stream.push(_NOTHING)
            self._told.clear()
        try:
            self._stream.push(to_samples(frame.data, frame.num_channels), frame.sample_rate)
        except AudioError as error:
            _LOG.error("A frame of the agent's sound is left out. %s", error)

    async def clear_buffer(self) -> None:
        """Stop speaking at once; no end is told of what was being said.

        Returns when the last sound has been dealt with, so that the runner counts it to what it has interrupted.

        Raises:
            SessionError: the stream is closed.
        """
        self._close_segment()
        self._stream.interrupt()
        await self._taken.wait()

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """Frames in real time, idle motion among them, until the stream is closed.

        Raises:
            NumericalError, EngineError: chunk after chunk could not be rendered.
        """
        (height, width), rate = self._stream.image_size, self._stream.sample_rate
        try:
            async for frame in self._stream:
                yield rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, frame.picture.tobytes())
                # Whoever iterates may have cleared the buffer meanwhile.
                if self._says(frame.utterance):
                    self._taken.clear()
                    yield rtc.AudioFrame(to_bytes(frame.sound), rate, 1, frame.sound.size)
                    self._taken.set()
                for event in frame.events:
                    if isinstance(event, Ended) and self._says(event.utterance):
                        yield AudioSegmentEnd()
                        if self._says(event.utterance):
                            self._close_segment()
        finally:
            self._taken.set()
            self._told.set()

    def _says(self, utterance: int | None) -> bool:
        return utterance is not None and utterance == self._segment

    def _close_segment(self) -> None:
        self._segment = None
        self._told.set()
