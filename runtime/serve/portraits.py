"""The portraits that a visitor can choose, encoded once and shared; uploads live in memory and are forgotten."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..avatar import Avatar
from ..bundle.bundle import Bundle
from ..errors import BundleError, ServeError
from ..inputs.picture.process import decode_picture
from ..outputs.png import encode_png

MAX_UPLOAD_BYTES = 12 << 20
MOST_UPLOADS = 16


@dataclass(frozen=True)
class Portrait:
    """A portrait that can speak.

    Attributes:
        id: how clients name it; an upload's cannot be guessed.
        name: for the page.
        picture: uint8 [size, size, 3] RGB.
        png: the picture as a file.
        avatar: opened with it.
        uploaded: whether it came from a visitor.
    """

    id: str
    name: str
    picture: NDArray[np.uint8]
    png: bytes
    avatar: Avatar
    uploaded: bool


def sources_of(bundle: Bundle, files: tuple[Path, ...]) -> list[tuple[Path | bytes, str]]:
    """The operator's pictures and the bundle's own, each with its name for the page.

    Raises:
        BundleError: there is no picture at all, or the bundle's is damaged.
    """
    own = bundle.manifest.golden.portrait
    sources: list[tuple[Path | bytes, str]] = [(path, path.stem.replace("_", " ")[:40]) for path in files]
    if own is not None:
        sources.append((bundle.read(own), "Built in"))
    if not sources:
        raise BundleError("The bundle has no portrait of its own; pass --portrait.")
    return sources


class Portraits:
    """Gives a model its portraits; opening one and `upload` are slow and safe to call from any thread."""

    def __init__(self, avatar: Avatar, sources: list[tuple[Path | bytes, str]]) -> None:
        """Open every picture of `sources_of`; the avatar has the first one.

        Raises:
            PortraitError: a picture cannot be read.
        """
        self._avatar = avatar
        self._uploads: OrderedDict[str, Portrait] = OrderedDict()
        self._lock = threading.Lock()
        avatars = [avatar, *(avatar.with_portrait(source) for source, _ in sources[1:])]
        self._fixed = {
            f"p{index}": _portrait(f"p{index}", name, opened, uploaded=False)
            for index, (opened, (_, name)) in enumerate(zip(avatars, sources, strict=True))
        }

    def upload(self, data: bytes) -> Portrait:
        """Check, decode and open a visitor's picture; the oldest upload is forgotten when there are too many.

        Args:
            data: a picture file of any kind that `load_portrait` reads.

        Raises:
            PortraitError: no picture, damaged, or too much to decode.
        """
        avatar = self._avatar.with_portrait(decode_picture(data, self._avatar.spec.image_size))
        portrait = _portrait(secrets.token_urlsafe(12), "Your picture", avatar, uploaded=True)
        with self._lock:
            self._uploads[portrait.id] = portrait
            while len(self._uploads) > MOST_UPLOADS:
                self._uploads.popitem(last=False)
        return portrait

    def listed(self) -> list[Portrait]:
        """What every visitor may see: the operator's pictures, not those of other visitors."""
        return list(self._fixed.values())

    def find(self, name: str | None) -> Portrait:
        """The portrait called `name`, or the first one for None; raises `ServeError` if there is none."""
        if name is None:
            return next(iter(self._fixed.values()))
        with self._lock:
            found = self._fixed.get(name) or self._uploads.get(name)
            if found is not None and found.uploaded:
                self._uploads.move_to_end(name)
        if found is None:
            raise ServeError("This portrait is not here any more; choose another one.")
        return found

    def forget_uploads(self) -> None:
        """Forget every visitor's picture."""
        with self._lock:
            self._uploads.clear()


def _portrait(name: str, title: str, avatar: Avatar, *, uploaded: bool) -> Portrait:
    picture = avatar.portrait
    return Portrait(name, title, picture, encode_png(picture), avatar, uploaded)
