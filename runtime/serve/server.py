"""The server's life: load, measure, listen, stop cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial

from aiohttp import web

from ..engines.engine_set import open_model
from ..errors import ServeError
from .app import build_app
from .http.crowd import Crowd, most_connections
from .http.listener import Listener
from .kiosk import Kiosk
from .log import note_loose_end
from .settings import Settings
from .transports.relay import note_missing_relay

_SHUTDOWN_SECONDS = 3.0


async def serve(kiosk: Kiosk, on_ready: Callable[[str | None], None], stop: asyncio.Event | None = None) -> None:
    """Listen until SIGINT, SIGTERM or `stop`, or until a drained kiosk is empty.

    Args:
        kiosk: what to serve; it is stopped in the end.
        on_ready: is told the page's address, or None where the settings have no port, once connections are taken.
        stop: ends the server when set.

    Raises:
        ServeError: an address or the socket's path is taken or does not exist, or the certificate cannot be used.
    """
    stop, settings = stop or asyncio.Event(), kiosk.settings
    asyncio.get_running_loop().set_exception_handler(note_loose_end)
    async with contextlib.AsyncExitStack() as doors:
        doors.push_async_callback(kiosk.stop)
        if settings.unix is not None:
            # What it imports is there on Linux alone.
            from .local.server import listening_at

            await doors.enter_async_context(listening_at(settings.unix, kiosk))
        address = None if settings.port is None else await doors.enter_async_context(listening(kiosk))
        with _signals(stop, kiosk):
            on_ready(address)
            kiosk.start(note_missing_relay(settings.ice_servers))
            waits = [asyncio.ensure_future(event.wait()) for event in (stop, kiosk.over)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for waiting in waits:
                waiting.cancel()


@contextlib.asynccontextmanager
async def listening(kiosk: Kiosk) -> AsyncIterator[str]:
    """Serve during the block, at the address that it is given; then stop the kiosk.

    Raises:
        ServeError: as `serve`.
    """
    settings = kiosk.settings
    assert settings.port is not None
    tls = _tls(settings)
    runner = web.AppRunner(build_app(kiosk), shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    assert runner.server is not None
    try:
        crowd = Crowd(most_connections(kiosk.admission.places))
        listener = Listener(runner.server, crowd, kiosk.metrics, tls)
        try:
            port = await _open(listener, settings.host, settings.port)
            address = _address(settings, port)
            kiosk.public_url = (settings.public_url or address).removesuffix("/")
            yield address
        finally:
            await listener.close()
    finally:
        await runner.cleanup()


def open_kiosk(bundle_folder: str | None, settings: Settings) -> Kiosk:
    """Check the settings and load everything; see `Settings.validate`, `open_model` and `Kiosk.open`."""
    settings.validate()
    bundle, engine = open_model(bundle_folder, settings.engine)
    return Kiosk.open(bundle, replace(settings, engine=engine))


async def _open(listener: Listener, host: str, port: int) -> int:
    try:
        return await listener.open(host, port)
    except OSError as error:
        reason = error.strerror or "the address cannot be used"
        raise ServeError(f"Port {port} of {host!r} cannot be opened ({reason}); choose another one.") from None


def _address(settings: Settings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'http' if settings.certificate is None else 'https'}://{host}:{port}/"


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise ServeError(
            f"The certificate {str(settings.certificate)!r} and its key cannot be used "
            f"({getattr(error, 'strerror', None) or error}); pass two PEM files."
        ) from None
    return context


@contextlib.contextmanager
def _signals(stop: asyncio.Event, kiosk: Kiosk) -> Iterator[None]:
    """Set an event on SIGINT, and drain or do the same on SIGTERM, where the platform lets an event loop do so."""
    loop = asyncio.get_running_loop()
    caught = []
    # The second one does not wait.
    answers = iter([partial(kiosk.drain, kiosk.settings.drain)] if kiosk.settings.drain else [])

    def terminate() -> None:
        next(answers, stop.set)()

    for number, action in ((signal.SIGINT, stop.set), (signal.SIGTERM, terminate)):
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, action)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
