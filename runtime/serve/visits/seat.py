"""`Seat`: one client's part in a visit: what it may ask for, what it is told, and why it has to go."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .visit import Visit

Message = dict[str, Any]
# For a client that does not listen the oldest is lost.
_MOST_WAITING = 1024
_NOTICE_SECONDS = 1.0
_GONE_SECONDS = 3.0


@dataclass(frozen=True)
class End:
    """Why a client has to go.

    Attributes:
        reason: one word for programs.
        message: a sentence for the visitor.
        code: the WebSocket's close code (RFC 6455, section 7.4).
        more: what else a program has to know.
    """

    reason: str
    message: str
    code: int = 1000
    more: Message = field(default_factory=dict)

    def told(self, kind: str = "end") -> Message:
        """As the client is told it."""
        return {"type": kind, "reason": self.reason, "message": self.message, **self.more}


# The close code of what the server could not go on with.
FAILED = 1011
LEFT = End("left", "The visitor has left.")


class Mailbox:
    """Messages for one client, in order; of the figures only the newest are worth sending."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque(maxlen=_MOST_WAITING)
        self._figures: Message | None = None
        self._posted = asyncio.Event()

    def post(self, message: Message) -> None:
        """Leave a message."""
        if message["type"] == "stats":
            self._figures = message
        else:
            self._waiting.append(message)
        self._posted.set()

    def take(self) -> tuple[Message, ...]:
        """Everything that waits."""
        taken = (*self._waiting, *(() if self._figures is None else (self._figures,)))
        self._waiting.clear()
        self._figures = None
        self._posted.clear()
        return taken

    async def wait(self) -> None:
        """Until there is something to take."""
        await self._posted.wait()


class Seat:
    """Used from the event loop; `end` may be called any number of times, the first reason stays."""

    def __init__(
        self,
        visit: Visit,
        verbs: Mapping[str, Callable[[], object]],
        on_close: Callable[[Seat, End], None],
        mail: Mailbox | None = None,
    ) -> None:
        """Take part in `visit`.

        Args:
            visit: what is seen.
            verbs: what the client may ask for.
            on_close: is told once the client has gone.
            mail: where messages for the client are left, also while it is not there; None makes one.
        """
        self.id = secrets.token_urlsafe(12)
        self.visit, self.verbs = visit, verbs
        self.mail = Mailbox() if mail is None else mail
        visit.mails.add(self.mail)
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._on_close, self._own_mail = on_close, mail is None
        self._noticed = -_NOTICE_SECONDS
        self._gone = asyncio.Event()
        visit.seats.append(self)

    def notice(self, reason: str, message: str) -> None:
        """Tell the client of something that was passed over, at most once a second."""
        now = asyncio.get_running_loop().time()
        if now - self._noticed >= _NOTICE_SECONDS:
            self._noticed = now
            self.mail.post({"type": "notice", "reason": reason, "message": message})

    def end(self, end: End) -> None:
        """Ask the client's transport to stop and say why."""
        if not self.ended.done():
            self.ended.set_result(end)

    async def gone(self) -> None:
        """Wait a little until the transport has stopped and the place is free."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GONE_SECONDS):
                await self._gone.wait()

    def close(self, end: End) -> None:
        """Leave the visit; the transport calls it once it has stopped, and may call it again."""
        self.end(end)
        if self in self.visit.seats:
            self.visit.seats.remove(self)
            if self._own_mail:
                self.visit.mails.discard(self.mail)
            self._on_close(self, end)
            self._gone.set()
