"""Rooms of LiveKit without a server: its own mock room, and two of them that hear each other's calls and streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

from livekit import rtc
from livekit.agents.ipc.mock_room import create_mock_room


def mock_room() -> Any:
    """The package's mock room, in which tracks can be published."""
    room = create_mock_room.__wrapped__()
    publication = MagicMock(wait_for_subscription=AsyncMock())
    room.local_participant.publish_track = AsyncMock(return_value=publication)
    return room


class ByteStream:
    """A stream of bytes from its writer to its reader."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.info = SimpleNamespace(attributes=attributes, stream_id="stream")
        self._blocks: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def write(self, block: bytes) -> None:
        self._blocks.put_nowait(block)

    async def aclose(self) -> None:
        self._blocks.put_nowait(None)

    async def __anext__(self) -> bytes:
        block = await self._blocks.get()
        if block is None:
            raise StopAsyncIteration
        return block


@dataclass
class Linked:
    """Two participants, each with a room of its own; what one calls, the other answers."""

    agent: Any
    avatar: Any

    @classmethod
    def rooms(cls) -> Linked:
        agent, avatar = _room("agent"), _room("avatar")
        _link(agent, avatar)
        _link(avatar, agent)
        return cls(agent, avatar)


def _room(identity: str) -> Any:
    room = mock_room()
    room.local_participant.identity = identity
    room.local_participant._rpc_handlers = {}
    room.local_participant.register_rpc_method = room.local_participant._rpc_handlers.__setitem__
    room.streams = {}
    room.register_byte_stream_handler = room.streams.__setitem__
    return room


def _link(here: Any, there: Any) -> None:
    """Let `here` see and reach `there`."""
    me, other = here.local_participant.identity, there.local_participant.identity
    kind, state = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT, rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE
    participant = MagicMock(identity=other, kind=kind, state=state, track_publications={})
    here.remote_participants = {other: participant}

    async def perform_rpc(*, destination_identity: str, method: str, payload: str, **_: object) -> str:
        handler: Callable[[Any], str] = there.local_participant._rpc_handlers[method]
        return handler(SimpleNamespace(caller_identity=me, payload=payload))

    async def stream_bytes(*, topic: str, attributes: dict[str, str], **_: object) -> ByteStream:
        stream = ByteStream(attributes)
        there.streams[topic](stream, me)
        return stream

    here.local_participant.perform_rpc = perform_rpc
    here.local_participant.stream_bytes = stream_bytes
