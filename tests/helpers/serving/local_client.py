"""A client of `rap-serve --unix`, written after docs/local.md alone: what the server shares is read with `struct`."""

from __future__ import annotations

import array
import json
import mmap
import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_HEADER = struct.Struct("<8s12I8xQ")
_SLOT = struct.Struct("<QqdqII")


@dataclass(frozen=True)
class LocalFrame:
    """What a slot holds."""

    number: int
    published_ns: int
    pts: float
    utterance: int
    mark: int
    picture: np.ndarray
    sound: np.ndarray


class LocalClient:
    """Blocking; every wait ends after ten seconds."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.descriptors: list[int] = []
        self.next = 0
        self._received = b""

    def start(self, **fields: Any) -> dict[str, Any]:
        """Say hello; returns the answer."""
        self.send({"type": "start", "rate": 16000} | fields)
        answer = self.told()
        assert answer is not None
        if answer["type"] == "ready":
            memory, self.bell = self.descriptors
            self.memory = mmap.mmap(memory, os.fstat(memory).st_size, prot=mmap.PROT_READ)
            fields_ = _HEADER.unpack_from(self.memory)
            self.magic, (self.version, self.header, self.slots, self.slot, self.height, self.width) = (
                fields_[0],
                fields_[1:7],
            )
            self.channels, self.fps, self.rate, self.samples, self.picture, self.sound = fields_[7:13]
        return answer

    def send(self, message: dict[str, Any], data: bytes = b"") -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n" + data)

    def push(self, pcm: np.ndarray) -> None:
        """Say int16 [samples]."""
        self.send({"type": "audio", "bytes": 2 * len(pcm)}, pcm.astype("<i2").tobytes())

    def told(self) -> dict[str, Any] | None:
        """The server's next message; None at its end."""
        while b"\n" not in self._received:
            try:
                part, control, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(8))
            except ConnectionResetError:
                return None
            for _, _, data in control:
                self.descriptors += array.array("i", data)
            if not part:
                return None
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def until(self, **wanted: Any) -> dict[str, Any]:
        """The next message that has these fields."""
        while (message := self.told()) is not None:
            if wanted.items() <= message.items():
                return message
        raise AssertionError(f"the server left without {wanted}")

    @property
    def published(self) -> int:
        """Frames that there have been."""
        count: int = struct.unpack_from("<Q", self.memory, 64)[0]
        return count

    def frame(self) -> LocalFrame:
        """The next frame, in order; fails where it has been overwritten."""
        end = time.monotonic() + 10
        while self.published <= self.next:
            assert time.monotonic() < end, "no frame comes"
            select.select([self.bell], [], [], 1.0)
            if select.select([self.bell], [], [], 0)[0]:
                os.eventfd_read(self.bell)
        at = self.header + self.next % self.slots * self.slot
        state, published_ns, pts, utterance, mark, samples = _SLOT.unpack_from(self.memory, at)
        pixels = self.height * self.width * self.channels
        picture = np.frombuffer(bytes(self.memory[at + self.picture : at + self.picture + pixels]), np.uint8)
        sound = np.frombuffer(bytes(self.memory[at + self.sound : at + self.sound + 4 * samples]), "<f4")
        assert state == 2 * self.next + 2 == struct.unpack_from("<Q", self.memory, at)[0]
        self.next += 1
        shape = self.height, self.width, self.channels
        return LocalFrame(self.next - 1, published_ns, pts, utterance, mark, picture.reshape(shape), sound)

    def close(self) -> None:
        self.socket.close()
        for descriptor in self.descriptors:
            os.close(descriptor)

    def __enter__(self) -> LocalClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
