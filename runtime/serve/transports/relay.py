"""Whether the TURN server that an operator named gives this machine a relay: better known at start than by visitors."""

from __future__ import annotations

import logging

from aiortc import RTCIceGatherer, RTCIceServer, RTCIceTransport

from .ice import IceServer

_LOG = logging.getLogger(__name__)


async def note_missing_relay(servers: tuple[IceServer, ...]) -> None:
    """Ask as for a visitor, which takes five seconds at most where nobody answers, and log if there is no relay."""
    url = next((url for server in servers for url in server.urls if url.startswith("turn")), None)
    if url is None:
        return
    gatherer = RTCIceGatherer([RTCIceServer(**server.told()) for server in servers])
    await gatherer.gather()
    if not any(candidate.type == "relay" for candidate in gatherer.getLocalCandidates()):
        _LOG.warning("The TURN server %s gives no relay to this machine; check its address and what opens it.", url)
    await RTCIceTransport(gatherer).stop()
