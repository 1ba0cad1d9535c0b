"""The live loop: a source in real time -> session -> player, with sound and picture in the caller's thread.

Three threads: one reads the source, one renders, and the caller's moves sound and shows frames, because windows belong
to the main thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from time import monotonic, perf_counter

from ..avatar import Avatar
from ..errors import SessionError
from ..inputs.convert import Samples
from ..inputs.source import LiveSource
from ..reports.live_report import LiveMeter, LiveTimes
from ..reports.run_report import RunMeter
from ..session.chunk import Mark
from ..session.overload import Overload
from ..session.session import Session
from .player import Player
from .protocols import Display, Showing, Speaker
from .pump import Pump

_MARGIN_SECONDS = 0.1
_READ_AHEAD_BLOCKS = 64
_JOIN_SECONDS = 2.0


def play(
    avatar: Avatar,
    source: LiveSource,
    speaker: Speaker,
    display: Display,
    *,
    seed: int = 0,
    meter: RunMeter | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> LiveTimes:
    """Let the avatar speak until the source ends and all of it has been heard, or the display is closed.

    Call it in the thread that the display belongs to. The portrait is shown at once, marked held, then two chunks are
    rendered to measure the machine, which sets the latency: a chunk, one and a half times its rendering, and 0.1 s.
    Neither source nor speaker nor display is closed, except that the source is closed where its reader has to be woken.

    Args:
        avatar: the model and the portrait.
        source: the speech. Where it is live, the time from capture to ear is held.
        speaker, display: where it is heard and seen.
        seed: of the noise.
        meter: counts chunks and times, for a report; its `live` is set, after Ctrl-C too.
        on_progress: is told the rendered seconds after every chunk, in another thread.

    Raises:
        AudioError: the source breaks.
        NumericalError, EngineError: several chunks in a row could not be rendered.
        OutputError: speaker or display is gone.
    """
    chunk_seconds = avatar.spec.chunk_seconds
    # Something to look at before anything is computed.
    display.show(avatar.portrait, Showing(0.0, Mark.HELD))
    cost = avatar.chunk_cost(rounds=1)
    budget = min(max(1.5 * cost, cost + 0.05), chunk_seconds)
    reserve = chunk_seconds + budget
    live_meter = LiveMeter()
    with avatar.session(seed=seed, sample_rate=source.rate, overload=Overload(budget=budget)) as session:
        latency = reserve + _MARGIN_SECONDS if source.live else None
        player = Player(avatar.spec, speaker, display, live_meter, portrait=avatar.portrait, latency=latency)
        pump = Pump(source, session, player, speaker, reserve)
        reader = _Reader(source)
        renderer = _Renderer(session, player, meter, on_progress)
        try:
            _loop(reader, renderer, pump, player, unlimited=source.live, limit=2 * reserve)
        finally:
            session.close()
            reader.stop()
            renderer.stop()
            times = live_meter.times(session.decisions)
            if meter is not None:
                meter.live = times
                meter.note(session.notes)
        return times


def _loop(reader: _Reader, renderer: _Renderer, pump: Pump, player: Player, *, unlimited: bool, limit: float) -> None:
    pause = threading.Event()
    while True:
        # A source that is faster than real time waits; one in real time never may.
        while not reader.over and (unlimited or player.ahead < limit):
            block = reader.block()
            if block is None:
                break
            pump.take(block, monotonic())
        if reader.finished():
            pump.finish()
        elif not reader.over:
            pump.fill(monotonic())
        renderer.check()
        wanted = player.tick()
        if wanted is None:
            return
        pause.wait(wanted)


class _Reader:
    """Reads the source in a thread of its own."""

    def __init__(self, source: LiveSource) -> None:
        self._source = source
        self._blocks: queue.Queue[Samples | None] = queue.Queue(_READ_AHEAD_BLOCKS)
        self._error: BaseException | None = None
        self._stopped = self.over = self._ended = False
        self._thread = threading.Thread(target=self._read, name="rap-edge source", daemon=True)
        self._thread.start()

    def block(self) -> Samples | None:
        """The next block if there is one; raises what broke the source."""
        try:
            block = self._blocks.get_nowait()
        except queue.Empty:
            return None
        if block is None:
            self._ended = True
            if self._error is not None:
                raise self._error
        return block

    def finished(self) -> bool:
        """True once, after the last block."""
        if self._ended and not self.over:
            self.over = True
            return True
        return False

    def stop(self) -> None:
        """Close the source unless it has ended, and wait for the thread."""
        self._stopped = True
        if self._thread.is_alive():
            self._source.close()
            self._thread.join(_JOIN_SECONDS)

    def _read(self) -> None:
        try:
            for block in self._source:
                if not self._put(block):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._error = error
        self._put(None)

    def _put(self, block: Samples | None) -> bool:
        while not self._stopped:
            try:
                self._blocks.put(block, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False


class _Renderer:
    """Renders in a thread of its own and hands the chunks to the player."""

    def __init__(
        self,
        session: Session,
        player: Player,
        meter: RunMeter | None,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        self._session, self._player, self._meter, self._on_progress = session, player, meter, on_progress
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._render, name="rap-edge renderer", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what broke the rendering."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Wait for the thread; the session has been closed."""
        self._thread.join()

    def _render(self) -> None:
        try:
            while self._session.wait():
                started = perf_counter()
                for chunk in self._session.chunks():
                    if self._meter is not None:
                        self._meter.add_chunk(chunk, perf_counter() - started)
                        self._meter.note(self._session.notes)
                    self._player.add(chunk)
                    if self._on_progress is not None:
                        self._on_progress(chunk.pts + chunk.duration)
                    started = perf_counter()
        except SessionError:
            # The viewer has gone: `close` came between two chunks.
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._error = error
