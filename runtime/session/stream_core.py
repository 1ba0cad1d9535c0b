"""The rules of an avatar stream, without threads and without a clock: what is shown, and what is to be rendered.

In: pushed sound, ends of utterances, interrupts, rendered chunks. Out: one `StreamFrame` per frame time, and jobs for
whoever renders. The same calls in the same order give the same frames, bit for bit.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inputs.convert import Samples
from ..loop.carry import LoopState
from ..loop.pixels import Frames
from ..spec import ModelSpec
from . import overload
from .chunk import Mark
from .idle_reel import IdleReel, ReelPlayer
from .overload import Decision, Overload, Rung
from .utterances import Span, Utterances

# Chunks that are rendered ahead of what is shown; an interrupt throws no more than these away.
_AHEAD = 2
# Frames that the last picture is held where the sound of an open utterance has run out, before the face idles.
_PATIENCE_FRAMES = 8
# Frame times that a live source is given before the first chunk is shown, so that the second one is there in time: the
# least, and the most where chunks of the last stretches were late.
_LEAST_CUSHION, _MOST_CUSHION = 3, 12
# Frames over which idle motion is dissolved into speech, whose lips must not lag, and speech into idle motion.
_INTO_SPEECH, _INTO_IDLE = 2, 4
_RENDERINGS_KEPT = 1000
# The noise of speech is drawn apart from that of the reel, and that of every stretch apart from the others'.
_STRETCH_INDEX = 1 << 32


@dataclass(frozen=True)
class Started:
    """The first sound of an utterance is in this frame."""

    utterance: int


@dataclass(frozen=True)
class Ended:
    """The last sound of an utterance is in this frame; `played_ms` is how long it was in all."""

    utterance: int
    played_ms: float


@dataclass(frozen=True)
class Interrupted:
    """An utterance was cut off before this frame, after `played_ms` of it."""

    utterance: int
    played_ms: float


StreamEvent = Started | Ended | Interrupted


@dataclass(frozen=True)
class StreamFrame:
    """One frame time: what is seen, and what is heard meanwhile.

    Attributes:
        picture: uint8 [H, W, 3] RGB, read-only.
        sound: float32 [samples], mono, of this frame time.
        pts: seconds since the stream's first frame.
        utterance: what is being said, counted from 0; None while nothing is.
        mark: how good the picture is for this moment.
        events: what happened in this frame time, in order.
        played_ms: how much of the utterance was heard before this frame.
    """

    picture: NDArray[np.uint8]
    sound: Samples
    pts: float
    utterance: int | None
    mark: Mark
    events: tuple[StreamEvent, ...] = ()
    played_ms: float = 0.0


@dataclass(frozen=True)
class Rendering:
    """What became of a chunk of speech whose time has come.

    Attributes:
        frames: those of its frames that were rendered.
        seconds: what rendering took.
        late: it was there later than it had to be, or not at all.
        mark: how good its frames are.
    """

    frames: int
    seconds: float
    late: bool
    mark: Mark


@dataclass(frozen=True, eq=False)
class Job:
    """A chunk to be rendered.

    Attributes:
        state: where the loop stands before it.
        waveform: float32 [window_samples], what the model hears.
        rung: how it is rendered.
        piece: of speech; None for the reel.
    """

    state: LoopState
    waveform: Samples
    rung: Rung
    piece: _Piece | None


@dataclass(eq=False)
class _Piece:
    """A chunk of speech: its sound, and its frames once there are any."""

    first: int
    sound: Samples
    waveform: Samples
    spans: tuple[Span, ...]
    # Whether other sound came than the piece before was promised: the loop has to hear it again.
    surprising: bool = False
    frames: Frames | None = None
    mark: Mark = Mark.HELD


class _Stretch:
    """Speech without a pause: pieces that follow each other, from idle motion to idle motion."""

    def __init__(self, number: int, state: LoopState, window: int) -> None:
        self.state = dataclasses.replace(state.elsewhere(), index=(number + 1) * _STRETCH_INDEX)
        self.heard = np.zeros(window, np.float32)
        self.promised = np.empty(0, np.float32)
        self.pieces: deque[_Piece] = deque()
        self.composed = 0
        self.shown: int | None = None
        self.waited = self.cushion = 0


class StreamCore:
    """One viewer's stream. Not safe for threads; `AvatarStream` is."""

    def __init__(self, spec: ModelSpec, rate: int, reel: IdleReel, policy: Overload) -> None:
        """Idle until something is said.

        Args:
            spec: the model.
            rate: of the sound in the frames, in Hz.
            reel: of the avatar; it may still be empty.
            policy: what to do when chunks are late.

        Raises:
            AudioError: the rate is impossible.
        """
        self._spec, self._rate = spec, rate
        self._speech = Utterances(rate, spec.sample_rate)
        self._reel, self._idle = reel, ReelPlayer(reel)
        self._stretch: _Stretch | None = None
        self._stretches = self._frames = 0
        self._job: Job | None = None
        self._last = reel.frame(0)
        self._dissolve = self._fading = 0
        self._cushion = _LEAST_CUSHION
        # Samples of the utterances that have begun, and the number behind the last one that is over.
        self._played: dict[int, int] = {}
        self._over = 0
        self._events: list[StreamEvent] = []
        self._policy, self._ladder = policy, overload.rungs(spec.steps)
        self._load = overload.start(policy)
        self._renderings: deque[Rendering] = deque(maxlen=_RENDERINGS_KEPT)
        self.failures = 0

    @property
    def frames(self) -> int:
        """Frame times that have been given."""
        return self._frames

    @property
    def utterance(self) -> int:
        """The number of the utterance that is open, or else of the next one."""
        return self._speech.current

    @property
    def quiet(self) -> bool:
        """Whether every utterance is over."""
        return not self._speech.open and self._over == self._speech.current

    @property
    def unplayed_seconds(self) -> float:
        """Sound that has been pushed and not been heard."""
        stretch = self._stretch
        samples = self._speech.size
        if stretch is not None and stretch.pieces:
            played = 0 if stretch.shown is None else self._offset(stretch.pieces[0], stretch.shown)
            samples += sum(piece.spans[-1].stop for piece in stretch.pieces) - played
        return max(samples, 0) / self._rate

    def take_renderings(self) -> tuple[Rendering, ...]:
        """The chunks of speech since the last call, the oldest first."""
        taken = tuple(self._renderings)
        self._renderings.clear()
        return taken

    def push(self, pcm: Samples, rate: int) -> None:
        """Add float32 [samples] of `rate` Hz to what is to be said; raises `AudioError` for an impossible rate."""
        self._speech.push(pcm, rate)

    def end_utterance(self) -> None:
        """What has been pushed since the last end is one utterance."""
        self._speech.end()

    def interrupt(self) -> float:
        """Forget everything that has not been shown; returns how many milliseconds of the current utterance were."""
        stretch, self._stretch = self._stretch, None
        pieces = () if stretch is None else stretch.pieces
        lost = {*self._speech.clear(), *(span.utterance for piece in pieces for span in piece.spans)}
        cut = [Interrupted(number, self._end(number)) for number in sorted(lost) if number >= self._over]
        self._events += cut
        if stretch is not None and stretch.shown is not None:
            self._idle.jump_near(self._last)
        else:
            self._idle.wander()
        # The mouth closes with the next frame.
        self._dissolve = 0
        return max((event.played_ms for event in cut), default=0.0)

    def next_job(self) -> Job | None:
        """What is to be rendered now; None if nothing is, or something is being rendered."""
        if self._job is not None:
            return None
        self._compose()
        spec, stretch = self._spec, self._stretch
        if stretch is not None:
            waiting = [piece for piece in stretch.pieces if piece.frames is None]
            piece = next((piece for piece in waiting if self._admits(stretch, piece)), None)
            if piece is not None:
                state = stretch.state.elsewhere() if piece.surprising else stretch.state
                self._job = Job(state, piece.waveform, self._ladder[self._load.level], piece)
        elif (wanted := self._idle.wants) is not None:
            self._job = Job(wanted, np.zeros(spec.window_samples, np.float32), self._ladder[0], None)
        return self._job

    def rendered(self, job: Job, frames: Frames, after: LoopState, seconds: float) -> Decision | None:
        """Take what a job gave, uint8 [T, H, W, 3]; `seconds` is what it took. Dropped if it is wanted no more."""
        self._job = None
        self.failures = 0
        if job.piece is None:
            self._reel.add(job.state, frames, after)
            return None
        late_by = self._late_by(job.piece, seconds)
        decision = self._learn(late_by, seconds)
        if (stretch := self._stretch_of(job.piece)) is not None:
            stretch.state = after
            job.piece.frames = frames.repeat(job.rung.frame_step, axis=0)[: self._spec.new_frames]
            job.piece.frames.flags.writeable = False
            job.piece.mark = Mark.GOOD if job.rung == self._ladder[0] else Mark.REDUCED
            self._renderings.append(Rendering(len(frames), seconds, late_by > 0.0, job.piece.mark))
            self._adjust_cushion(stretch, job.piece)
        return decision

    def failed(self, job: Job) -> bool:
        """A job gave nothing; returns whether the policy forgives it. Its sound is heard with the last picture."""
        self._job = None
        self.failures += 1
        if job.piece is not None and (stretch := self._stretch_of(job.piece)) is not None:
            job.piece.frames = np.empty((0, *self._last.shape), np.uint8)
            stretch.state = LoopState(job.state.index + 1)
            self._renderings.append(Rendering(0, 0.0, False, Mark.HELD))
        return self.failures <= self._policy.failures

    def unwanted(self, job: Job) -> bool:
        """Whether nobody waits for a job any more; one that has not begun need not begin."""
        if job.piece is None:
            return not self._reel.lacks(job.state)
        return self._stretch_of(job.piece) is None

    def withdraw(self, job: Job) -> None:
        """A job has not been done and is wanted no more."""
        if job is self._job:
            self._job = None

    def next_frame(self) -> StreamFrame:
        """What is seen and heard in the next frame time. Never waits."""
        self._compose()
        stretch = self._stretch
        if stretch is not None and stretch.shown is None and self._may_begin(stretch):
            stretch.shown = 0
            self._dissolve = self._fading = _INTO_SPEECH
        samples = self._boundary(self._frames + 1) - self._boundary(self._frames)
        sound, utterance, mark = np.zeros(samples, np.float32), None, Mark.GOOD
        played = dict(self._played)
        if stretch is None or stretch.shown is None:
            picture = self._blended(self._idle.next())
        else:
            picture, sound, utterance, mark = self._spoken(stretch, samples)
        self._last = picture
        events, self._events = tuple(self._events), []
        before = 0.0 if utterance is None else self._milliseconds(played.get(utterance, 0))
        frame = StreamFrame(picture, sound, self._frames / self._spec.fps, utterance, mark, events, before)
        self._frames += 1
        return frame

    def _spoken(self, stretch: _Stretch, samples: int) -> tuple[Frames, Samples, int | None, Mark]:
        """The next frame of a stretch that is being shown; idle motion where it is over."""
        index = stretch.shown
        assert index is not None
        if not stretch.pieces:
            silence = np.zeros(samples, np.float32)
            stretch.waited += 1
            if self._speech.numbers and stretch.waited <= _PATIENCE_FRAMES:
                return self._last, silence, None, Mark.HELD
            self._stretch = None
            self._idle.jump_near(self._last)
            self._dissolve = self._fading = _INTO_IDLE
            return self._blended(self._idle.next()), silence, None, Mark.GOOD
        stretch.waited = 0
        stretch.shown = index + 1
        piece = stretch.pieces[0]
        offset = index - piece.first
        start, stop = self._offset(piece, index), self._offset(piece, index + 1)
        utterance = self._tell(piece, start, stop)
        picture, mark = self._last, Mark.HELD
        if piece.frames is not None and offset < len(piece.frames):
            picture, mark = self._blended(piece.frames[offset]), piece.mark
        if offset == self._spec.new_frames - 1:
            stretch.pieces.popleft()
            if piece.frames is None:
                stretch.state = stretch.state.elsewhere()
                self._renderings.append(Rendering(0, 0.0, True, Mark.HELD))
                self._adjust_cushion(stretch, piece)
        return picture, piece.sound[start:stop], utterance, mark

    def _blended(self, picture: Frames) -> Frames:
        """The picture, dissolved with the last one for some frames behind a change between speech and idle motion."""
        if not self._dissolve:
            return picture
        share = self._dissolve / (self._fading + 1)
        self._dissolve -= 1
        mixed: Frames = np.rint(picture + share * (self._last - picture.astype(np.float32))).astype(np.uint8)
        return mixed

    def _tell(self, piece: _Piece, start: int, stop: int) -> int | None:
        """Note what of the utterances is heard in samples start..stop of a piece; returns the one that begins first."""
        speaking = None
        for span in piece.spans:
            heard = min(span.stop, stop) - max(span.start, start)
            empty = span.start == span.stop and start <= span.start < stop
            if heard <= 0 and not empty:
                continue
            if speaking is None and heard > 0:
                speaking = span.utterance
            if span.utterance not in self._played:
                self._played[span.utterance] = 0
                self._events.append(Started(span.utterance))
            self._played[span.utterance] += max(heard, 0)
            if span.last and span.stop <= stop:
                self._events.append(Ended(span.utterance, self._end(span.utterance)))
        return speaking

    def _end(self, utterance: int) -> float:
        """Note that an utterance is over; returns the milliseconds of it that were played."""
        self._over = utterance + 1
        return self._milliseconds(self._played.pop(utterance, 0))

    def _compose(self) -> None:
        """Cut the next pieces of what is to be said, as far as there is sound and somebody will soon see them."""
        spec = self._spec
        while True:
            self._pass_empty()
            stretch = self._stretch
            number = 0 if stretch is None else stretch.composed
            ahead = 0 if stretch is None or stretch.shown is None else stretch.shown // spec.new_frames
            first = number * spec.new_frames
            heard = self._boundary(first + spec.new_frames) - self._boundary(first)
            if number - ahead >= _AHEAD or not self._speech.has(heard, spec.chunk_samples + spec.look_ahead_samples):
                return
            if stretch is None:
                stretch = self._stretch = _Stretch(self._stretches, self._idle.head_for_seam(), spec.window_samples)
                self._stretches += 1
            sound, model, spans = self._speech.take(heard, spec.chunk_samples)
            surprising = not np.array_equal(model[: stretch.promised.size], stretch.promised)
            stretch.promised = self._speech.peek(spec.look_ahead_samples)
            stretch.heard = np.concatenate([stretch.heard, model])[-spec.window_samples :]
            window = np.concatenate([stretch.heard, stretch.promised])[-spec.window_samples :]
            stretch.pieces.append(_Piece(first, sound, window, spans, surprising))
            stretch.composed += 1

    def _pass_empty(self) -> None:
        """Utterances without sound end where what was said before them ends; nothing is rendered for them."""
        while (empty := self._speech.pop_empty()) is not None:
            if self._stretch is not None and self._stretch.pieces:
                piece = self._stretch.pieces[-1]
                end = piece.sound.size - 1
                piece.spans = (*piece.spans, Span(empty, end, end, last=True))
            else:
                self._events += [Started(empty), Ended(empty, self._end(empty))]

    def _may_begin(self, stretch: _Stretch) -> bool:
        if stretch.pieces[0].frames is None:
            return False
        # Sound that comes no faster than it is heard would run out behind the first piece.
        if stretch.composed == 1 and not stretch.pieces[0].spans[-1].last and stretch.waited < self._cushion:
            stretch.waited += 1
            return False
        stretch.waited, stretch.cushion = 0, self._cushion
        return True

    def _adjust_cushion(self, stretch: _Stretch, piece: _Piece) -> None:
        """Learn from when a piece was there what the next stretch has to wait for."""
        if stretch.shown is None:
            return
        needed = stretch.cushion + stretch.shown - piece.first
        self._cushion = max(_LEAST_CUSHION, min(needed, _MOST_CUSHION, self._spec.new_frames), self._cushion - 1)

    def _late_by(self, piece: _Piece, seconds: float) -> float:
        """Seconds from when a piece had to be rendered to now; negative is early."""
        stretch, spec = self._stretch, self._spec
        if stretch is not None and stretch.shown is not None:
            return (stretch.shown - piece.first) / spec.fps
        return seconds - spec.chunk_seconds

    def _admits(self, stretch: _Stretch, piece: _Piece) -> bool:
        """Whether a piece is worth rendering; its sound would be over before its picture where it is not."""
        if stretch.shown is None:
            return True
        spec = self._spec
        self._load, decisions = overload.before_chunk(
            self._policy,
            self._ladder,
            self._load,
            waiting=(self._frames / spec.fps,),
            time_left=(piece.first - stretch.shown) / spec.fps,
            chunk_seconds=spec.chunk_seconds,
        )
        if not decisions:
            return True
        piece.frames = np.empty((0, *self._last.shape), np.uint8)
        stretch.state = stretch.state.passed(stretch.state.past)
        self._renderings.append(Rendering(0, 0.0, True, Mark.HELD))
        return False

    def _learn(self, late_by: float, seconds: float) -> Decision | None:
        spec = self._spec
        self._load, decision = overload.after_chunk(
            self._policy,
            self._ladder,
            self._load,
            pts=self._frames / spec.fps,
            late_by=late_by,
            render_seconds=seconds,
            chunk_seconds=spec.chunk_seconds,
        )
        return decision

    def _stretch_of(self, piece: _Piece) -> _Stretch | None:
        """The stretch that waits for a piece; None where it has been cut off, or its time has passed."""
        return self._stretch if self._stretch is not None and piece in self._stretch.pieces else None

    def _offset(self, piece: _Piece, frame: int) -> int:
        """Where a frame of the stretch begins in a piece's sound."""
        return self._boundary(frame) - self._boundary(piece.first)

    def _milliseconds(self, samples: int) -> float:
        return 1000.0 * samples / self._rate

    def _boundary(self, frame: int) -> int:
        """The first sample of a frame time, at the rate that is heard."""
        return round(frame * self._rate / self._spec.fps)
