"""`AsyncSession`: a session in asyncio, rendering in worker threads so that the event loop never waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar, cast

from numpy.typing import NDArray

from ..errors import SessionError
from .chunk import Chunk
from .session import Session

T = TypeVar("T")


class AsyncSession:
    """Wraps a `Session` for one event loop.

    Each session has one worker thread while `chunks` is iterated, which waits for sound and renders one chunk when
    the loop asks for it; a viewer who does not ask costs nothing. Cancelling the iteration loses no chunk: one that is
    being rendered is given to the next iteration.
    """

    def __init__(self, session: Session) -> None:
        """Own `session`; `close` closes it."""
        self.session = session
        self._pending: asyncio.Future[Chunk | None] | None = None

    def push(self, pcm: NDArray[Any]) -> None:
        """As `Session.push`; it does not wait."""
        self.session.push(pcm)

    def finish(self) -> None:
        """As `Session.finish`; the iteration ends behind the last chunk."""
        self.session.finish()

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Wait for sound and give every chunk, until `finish` and the last one, or until `close`.

        Raises:
            NumericalError, EngineError: as `Session.chunks`.
        """
        while True:
            if self._pending is None:
                self._pending = _in_thread(self._next, asyncio.get_running_loop())
            # Shielded: a thread cannot be cancelled, and its chunk must not be lost.
            pending = self._pending
            chunk = await asyncio.shield(pending)
            if self._pending is pending:
                self._pending = None
            if chunk is None:
                return
            yield chunk

    async def close(self) -> None:
        """As `Session.close`: waits for the chunk in flight without holding up the loop, and frees; may be repeated."""
        closing = _in_thread(self._close, asyncio.get_running_loop())
        await asyncio.shield(closing)
        pending, self._pending = self._pending, None
        if pending is not None:
            # Its result, or error, has no one to go to any more.
            await asyncio.wait([pending])
            pending.exception()

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _next(self) -> Chunk | None:
        try:
            while self.session.wait():
                for chunk in self.session.chunks():
                    return chunk
        except SessionError:
            # Closed between two chunks: the end of the stream.
            return None
        return None

    def _close(self) -> None:
        self.session.close()


def _in_thread(work: Callable[[], T], loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
    """Run `work` in a thread of its own: a pool's threads would all be taken by sessions that wait for sound."""
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again where the future is awaited
            failure = error
        # A loop that has been closed meanwhile has no one left to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="rap-edge session", daemon=True).start()
    return future
