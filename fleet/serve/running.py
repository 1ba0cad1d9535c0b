"""A fleet while its block runs: deployed on Ray Serve, up when a box is, and gone in the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.exceptions import RayError

from rap_edge.runtime.errors import FleetError, first_line

from ..cluster import ended_by
from .application import Fleet, application
from .ray_boxes import stop_all

_NAME = "rap-fleet"
_GOODBYE_SECONDS = 15.0


@dataclass(frozen=True)
class Listening:
    """Where visitors come to the door."""

    host: str
    port: int
    certificate: str | None = None
    key: str | None = None

    def options(self) -> dict[str, Any]:
        """As Ray Serve takes it."""
        return {
            "host": self.host,
            "port": self.port,
            "ssl_certfile": self.certificate,
            "ssl_keyfile": self.key,
        }


@contextmanager
def running(fleet: Fleet, listening: Listening) -> Iterator[None]:
    """Deploy the fleet on the cluster that this process is connected to, and end it and its boxes after the block.

    Raises:
        FleetError: it cannot be deployed.
    """
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    began = application(fleet)
    try:
        serve.start(proxy_location="HeadOnly", http_options=listening.options())
        serve.run(began, name=_NAME, route_prefix="/")
    except (RayError, RuntimeError, OSError, ValueError) as error:
        raise FleetError(
            f"The dispatcher cannot be started ({first_line(error)}); see whether port {listening.port} is free."
        ) from error
    with ended_by(_end):
        yield


def _end() -> None:
    serve.delete(_NAME)
    stop_all(_GOODBYE_SECONDS)
    serve.shutdown()


def wait_for_signal() -> None:
    """Until Ctrl-C or SIGTERM."""
    while True:
        time.sleep(3600)
