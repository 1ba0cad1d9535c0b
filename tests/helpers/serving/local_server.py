"""`rap-serve --unix` over the tiny bundle, in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.serve.kiosk import Kiosk
from rap_edge.runtime.serve.local.server import listening_at
from rap_edge.runtime.serve.portraits import Portraits, sources_of
from rap_edge.runtime.serve.settings import Settings


@contextlib.contextmanager
def served_locally(bundle: Path, path: Path, **settings: Any) -> Iterator[Kiosk]:
    """Serve at `path` during the block; two places unless the settings say otherwise. Nothing may be left of it."""
    opened = Bundle.open(bundle)
    portraits = Portraits(Avatar.open(opened, threads=1), sources_of(opened, ()))
    kiosk = Kiosk(Settings(**{"max_sessions": 2} | settings), portraits, rtf=0.1)
    loop, unseen = asyncio.new_event_loop(), []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    door = listening_at(path, kiosk)

    def wait_for(work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(20)

    try:
        wait_for(door.__aenter__())
        try:
            yield kiosk
        finally:
            wait_for(door.__aexit__(None, None, None))
        assert not path.exists()
    finally:
        wait_for(kiosk.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert unseen == []
    assert kiosk.admission.taken == 0
