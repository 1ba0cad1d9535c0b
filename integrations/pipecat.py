"""Pipecat: a service that stands before `transport.output()` and gives the voice a face."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from rap_edge.runtime import AudioError, AvatarStream, Ended, EngineError, Interrupted, NumericalError, StreamFrame
from rap_edge.runtime.cli.extras import needs_extra

from .pcm import to_bytes, to_samples

with needs_extra("pipecat"):
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        Frame,
        InterruptionFrame,
        OutputImageRawFrame,
        StartFrame,
        SystemFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection
    from pipecat.services.ai_service import AIService
    from pipecat.services.settings import ServiceSettings


@dataclass(frozen=True)
class _Held:
    """A frame that goes on when `seconds` of an utterance have been played; None stands for all of it."""

    frame: Frame
    utterance: int
    seconds: float | None


class AvatarVideoService(AIService):
    """Shows an `AvatarStream`: what is spoken between two `TTSStoppedFrame` is an utterance.

    `TTSAudioRawFrame` goes in; `OutputImageRawFrame` comes out once per frame time, each before its own
    `TTSAudioRawFrame` while something is said. Every other frame that is not a system frame keeps its place in the
    sound: it goes on when what came before it has been played. An interruption drops what has not.
    """

    def __init__(self, stream: AvatarStream, **kwargs: Any) -> None:
        """Show `stream`, which is closed with the pipeline; `kwargs` are those of `AIService`."""
        super().__init__(settings=ServiceSettings(model=None), **kwargs)
        self._stream = stream
        self._held: deque[_Held] = deque()
        # The last utterance, how much of it has been pushed, and whether more may come.
        self._utterance, self._pushed, self._open = -1, 0.0, False
        # The utterance that is being played and how much of it has been; the last one that is over, or was cut off.
        self._playing, self._played, self._over = -1, 0.0, -1
        self._contexts: dict[int, str | None] = {}
        # Held while frames are pushed, so that none of an old utterance gets behind an interruption.
        self._order = asyncio.Lock()
        self._silent = asyncio.Event()
        self._silent.set()
        self._showing: asyncio.Task[None] | None = None
        self._failed = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take one frame of the pipeline."""
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)
            self._showing = self.create_task(self._show())
        elif isinstance(frame, InterruptionFrame):
            await self._interrupt(frame, direction)
        elif self._failed or direction is FrameDirection.UPSTREAM or isinstance(frame, SystemFrame):
            await self.push_frame(frame, direction)
        elif isinstance(frame, TTSAudioRawFrame):
            await self._speak(frame)
        elif isinstance(frame, EndFrame):
            self._end_utterance()
            await self._silent.wait()
            await self.push_frame(frame, direction)
        else:
            if isinstance(frame, TTSStoppedFrame):
                self._end_utterance()
            await self._in_its_place(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Say nothing more."""
        await super().cancel(frame)
        self._stream.close()

    async def cleanup(self) -> None:
        """Close the stream."""
        await super().cleanup()
        self._stream.close()
        if self._showing is not None:
            await self.cancel_task(self._showing)
            self._showing = None

    async def _speak(self, frame: TTSAudioRawFrame) -> None:
        try:
            samples = to_samples(frame.audio, frame.num_channels)
            number = self._stream.push(samples, frame.sample_rate)
        except AudioError as error:
            # It is heard, without lips.
            await self.push_error(str(error), exception=error)
            await self._in_its_place(frame)
            return
        if samples.size == 0:
            return
        if number != self._utterance:
            self._utterance, self._pushed = number, 0.0
        self._pushed += samples.size / frame.sample_rate
        self._open = True
        self._contexts[number] = frame.context_id
        self._silent.clear()

    def _end_utterance(self) -> None:
        if self._open:
            self._stream.end_utterance()
            self._open = False

    async def _in_its_place(self, frame: Frame) -> None:
        """Push a frame when what came before it has been played."""
        async with self._order:
            if self._silent.is_set():
                await self.push_frame(frame)
            else:
                self._held.append(_Held(frame, self._utterance, self._pushed if self._open else None))

    async def _interrupt(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        async with self._order:
            if not self._failed:
                self._stream.interrupt()
            self._over, self._open = self._utterance, False
            self._contexts.clear()
            kept = [held.frame for held in self._held if not held.frame.interruptible]
            self._held.clear()
            self._silent.set()
            await self.push_frame(frame, direction)
            for other in kept:
                await self.push_frame(other)

    async def _show(self) -> None:
        try:
            async for frame in self._stream:
                async with self._order:
                    await self._pass_on(frame)
        except (NumericalError, EngineError) as error:
            await self.push_error(f"The voice goes on without a face. {error}", exception=error)
        # Whatever ended the stream, nothing waits for it any more.
        async with self._order:
            self._failed, self._over = True, self._utterance
            await self._release()

    async def _pass_on(self, frame: StreamFrame) -> None:
        """Push a picture, its sound, and what was held until then; nothing of what was cut off."""
        number = frame.utterance
        if number is not None and number <= self._over:
            return
        height, width = self._stream.image_size
        image = OutputImageRawFrame(image=frame.picture.tobytes(), size=(width, height), format="RGB")
        image.sync_with_audio = True
        await self.push_frame(image)
        if number is not None:
            sound, rate = to_bytes(frame.sound), self._stream.sample_rate
            await self.push_frame(TTSAudioRawFrame(sound, rate, 1, context_id=self._contexts.get(number)))
            if number != self._playing:
                self._playing, self._played = number, 0.0
            self._played += frame.sound.size / rate
        for event in frame.events:
            if isinstance(event, Ended | Interrupted):
                self._over = max(self._over, event.utterance)
                self._contexts.pop(event.utterance, None)
        await self._release()

    async def _release(self) -> None:
        while self._held and self._is_due(self._held[0]):
            await self.push_frame(self._held.popleft().frame)
        if self._over >= self._utterance:
            self._silent.set()

    def _is_due(self, held: _Held) -> bool:
        if held.utterance <= self._over:
            return True
        return held.utterance == self._playing and held.seconds is not None and held.seconds <= self._played
