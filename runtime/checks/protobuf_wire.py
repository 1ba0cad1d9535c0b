"""Walks protobuf messages in place: what is not asked for is skipped by its length, so gigabytes cost nothing.

In: foreign bytes. Out: the fields of one message after the other; a `WireError` where the bytes are no message as
protobuf writes it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

Content = bytes | mmap.mmap
# Of the types of the wire format, those of numbers without a length; groups are given up since 2008.
VARINT, _FIXED64, LENGTH, _FIXED32 = 0, 1, 2, 5


class WireError(Exception):
    """The bytes are no protobuf message; says why, as part of a sentence."""


def tag(field: int, wire_type: int = LENGTH) -> int:
    """What begins a field of this number and wire type."""
    return field << 3 | wire_type


class WireReader:
    """Reads messages in one buffer."""

    def __init__(self, content: Content, most: int) -> None:
        """Take foreign bytes, of which at most `most` fields are read in all."""
        self._content, self._left = content, most

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The fields of the message in `start`..`end`, in their order; numbers of fixed width are left out.

        Yields:
            `tag`, and the start and end of the content, or the number and 0 for a varint.

        Raises:
            WireError: this is no message, or more fields than may be.
        """
        while start < end:
            self._left -= 1
            if self._left < 0:
                raise WireError("it has too many parts")
            found, start = self._varint(start, end)
            wire_type = found & 7
            if wire_type == LENGTH:
                length, start = self._varint(start, end)
                if length > end - start:
                    raise WireError("it is cut short")
                yield found, start, start + length
                start += length
            elif wire_type == VARINT:
                number, start = self._varint(start, end)
                yield found, number, 0
            elif wire_type in (_FIXED32, _FIXED64):
                start += 4 if wire_type == _FIXED32 else 8
            else:
                raise WireError("it is no protobuf message")
        if start != end:
            raise WireError("it is cut short")

    def bytes(self, start: int, end: int, most: int) -> bytes:
        """A copy of a field's content of at most `most` bytes; raises `WireError`."""
        if end - start > most:
            raise WireError("it has a name that is too long")
        return self._content[start:end]

    def _varint(self, start: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while start < end and shift < 70:
            byte = self._content[start]
            start += 1
            value |= (byte & 127) << shift
            if byte < 128:
                # Padded numbers are legal, but nobody writes them and readers differ in how many bytes they take.
                if byte == 0 and shift:
                    break
                return value, start
            shift += 7
        raise WireError("it is no protobuf message")
