"""Request bodies with a limit of their own and a sentence when it is broken."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ...errors import ServeError

_SECONDS = 60.0


class BodyTooLargeError(ServeError):
    """The body is larger than its limit."""


class BodyTooSlowError(ServeError):
    """The body did not arrive in time."""


class BodyDamagedError(ServeError):
    """The body is not what its own headers announce."""


async def read_body(request: web.Request, most: int) -> bytes:
    """The whole body.

    Raises:
        BodyTooLargeError: more than `most` bytes, announced or sent.
        BodyTooSlowError: it took longer than a minute.
        BodyDamagedError: it cannot be unpacked as its headers say.
    """
    limit = f"{most >> 20} MiB" if most >= 1 << 20 else f"{most >> 10} KiB"
    error = BodyTooLargeError(f"The request is larger than {limit}; send less.")
    if (request.content_length or 0) > most:
        raise error
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            async for part in request.content.iter_chunked(64 << 10):
                body += part
                if len(body) > most:
                    raise error
    except TimeoutError:
        raise BodyTooSlowError("The request took longer than a minute to arrive; try again.") from None
    except web.RequestPayloadError:
        raise BodyDamagedError("The body is damaged or not packed as its headers say; send it again.") from None
    return bytes(body)
