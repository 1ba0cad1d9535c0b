"""A client masks its WebSocket frames (RFC 6455, section 5.1); aiohttp reads them also if it does not."""

from __future__ import annotations

from typing import Protocol

_MASKED = 0x80
_EXTENDED = {126: 2, 127: 8}
_MASK_BYTES = 4
# A header whose reserved bits are set, which every reader refuses as a protocol error (code 1002).
_ILLEGAL = b"\xf0\x80"


class Reader(Protocol):
    """What takes a connection's bytes; aiohttp's WebSocketReader is one."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes; True once no more will be taken, and those that were too many."""

    def feed_eof(self) -> None:
        """Take note that no more will come."""


class MaskedFrames:
    """Passes frames on to a reader up to the first one that is not masked, in whose place comes an illegal one."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._held = b""
        self._payload_left = 0

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """See `Reader.feed_data`; a header is passed on once it is whole."""
        data = self._held + bytes(data)
        at = self._payload_left
        while at < len(data):
            if len(data) - at > 1 and not data[at + 1] & _MASKED:
                self._reader.feed_data(data[:at])
                return self._reader.feed_data(_ILLEGAL)
            size = _frame_size(data, at)
            if size is None:
                break
            at += size
        whole = min(at, len(data))
        self._held, self._payload_left = data[whole:], at - whole
        return self._reader.feed_data(data[:whole])

    def feed_eof(self) -> None:
        """See `Reader.feed_eof`."""
        self._reader.feed_eof()


def _frame_size(data: bytes, at: int) -> int | None:
    """Bytes of the masked frame that begins at `at`, header included; None if its header is not whole yet."""
    if len(data) - at < 2:
        return None
    size = data[at + 1] & ~_MASKED
    extended = _EXTENDED.get(size, 0)
    header = 2 + extended + _MASK_BYTES
    if len(data) - at < header:
        return None
    return header + (int.from_bytes(data[at + 2 : at + 2 + extended]) if extended else size)
