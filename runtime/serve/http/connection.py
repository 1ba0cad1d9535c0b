"""One client's HTTP connection: aiohttp's own, with limits on time and answers of ours to whatever is no request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from ..metrics import Metrics
from .access import refusal, set_headers
from .crowd import Crowd
from .frames import MaskedFrames

_LOG = logging.getLogger(__name__)
# From the connection's beginning to the end of the first request's headers.
_HEAD_SECONDS = 10.0
# From there to the end of the answer; a body and a picture have limits of their own.
_ANSWER_SECONDS = 120.0
# From one answer to the end of the next request's headers.
_IDLE_SECONDS = 30.0
_LINGER_SECONDS = 5.0


class HttpConnection(web.RequestHandler):
    """Made for every connection that is accepted; used from the event loop."""

    __slots__ = ("_address", "_crowd", "_deadline", "_line", "_metrics", "_opening")

    def __init__(self, server: web.Server, crowd: Crowd, metrics: Metrics, address: str) -> None:
        """Belong to a crowd, from an IP address on; `opened_by` and `connection_made` follow."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=_LOG,
            access_log=None,  # type: ignore[arg-type]
            lingering_time=_LINGER_SECONDS,
        )
        self._crowd, self._metrics, self._address = crowd, metrics, address
        self._opening: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        # aiohttp lets go of its own when it closes, which may wait for a client that does not read.
        self._line: asyncio.Transport | None = None
        crowd.add(self, address)

    @property
    def is_open(self) -> bool:
        """Whether `connection_made` has come and `connection_lost` has not."""
        return self._line is not None

    def opened_by(self, opening: asyncio.Task[None]) -> None:
        """Remember what leads to `connection_made`, to be cancelled should the connection be dropped before."""
        self._opening = opening

    def drop(self) -> None:
        """Cut the connection off, also one that is not open yet."""
        self._metrics.refused.add(label="crowded")
        self._cut_off()

    @contextlib.contextmanager
    def has_place(self) -> Iterator[None]:
        """While somebody has a place over this connection, it is neither dropped nor limited in time."""
        self._crowd.remove(self)
        self._allow(None)
        try:
            yield
        finally:
            if self.is_open:
                self._crowd.add(self, self._address)
                self._allow(_HEAD_SECONDS)

    def request_came(self) -> None:
        """Note that the headers are complete."""
        self._crowd.renew(self)
        self._allow(_ANSWER_SECONDS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._line = transport
        super().connection_made(transport)
        self._allow(_HEAD_SECONDS)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.Protocol`."""
        self._line = None
        self._crowd.remove(self)
        self._allow(None)
        super().connection_lost(exc)

    def set_parser(self, parser: Any, *arguments: Any, **options: Any) -> None:
        """Let what follows the headers of a WebSocket be read by `parser`, if it is masked."""
        super().set_parser(MaskedFrames(parser), *arguments, **options)  # type: ignore[arg-type]

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; aiohttp's own errors get our words."""
        if isinstance(resp, web.HTTPException):
            resp = _in_our_words(resp.status, resp.reason)
        sent = await super().finish_response(request, resp, start_time)
        self._crowd.renew(self)
        self._allow(_IDLE_SECONDS)
        return sent

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP, or to a request whose handler failed; neither is quoted anywhere.

        Raises:
            ConnectionError: nobody can read an answer any more.
        """
        # aiohttp tells whoever reads from a closed connection by a RuntimeError.
        gone = isinstance(exc, ConnectionError) or (isinstance(exc, RuntimeError) and self.transport is None)
        if gone:
            raise ConnectionError("The client has gone.")
        if status < 500:
            self._metrics.refused.add(label="malformed")
            _LOG.warning("What came from %s is no HTTP request (%s).", self._address, type(exc).__name__)
            return _in_our_words(status, "malformed")
        _LOG.error("A request from %s could not be answered.", self._address, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("The client has half of an answer, which no other one can follow.")
        answer = refusal(status, "failed", "The kiosk could not answer; its log says why. Try again in a moment.")
        return _last(answer)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what aiohttp did not expect; a damaged body it meets a second time, after the answer."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def _allow(self, seconds: float | None) -> None:
        """Cut the connection off after so many seconds from now, if at all."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None and self.is_open:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._time_out)

    def _time_out(self) -> None:
        self._metrics.refused.add(label="too-slow")
        self._cut_off()

    def _cut_off(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._line is not None:
            self._line.abort()


def connection_of(request: web.BaseRequest) -> HttpConnection:
    """The connection over which a request came."""
    assert isinstance(request.protocol, HttpConnection)
    return request.protocol


@web.middleware
async def note_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware that tells the connection that its client has done its part."""
    connection_of(request).request_came()
    return await handler(request)


def _in_our_words(status: int, reason: str) -> web.Response:
    return _last(
        refusal(status, "bad-request", f"This is no request that is served here ({reason}); see the page at /.")
    )


def _last(answer: web.Response) -> web.Response:
    set_headers(answer)
    answer.force_close()
    return answer
