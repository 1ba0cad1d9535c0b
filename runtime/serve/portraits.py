"""The portraits that a visitor can choose, encoded once and shared; uploads live in memory and are forgotten."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..avatar import Avatar
from ..bundle.bundle import Bundle
from ..errors import BundleError, PortraitError, ServeError
from ..inputs.picture.portrait import portrait_for
from ..inputs.picture.process import decode_picture
from ..outputs.png import encode_png
from ..spec import Crop, ModelSpec

MAX_UPLOAD_BYTES = 12 << 20
MOST_UPLOADS = 16
_LONGEST_NAME = 40


class Portrait:
    """A portrait that can speak.

    Attributes:
        id: how clients name it; an upload's cannot be guessed.
        name: for the page.
        picture: uint8 [size, size, 3] RGB.
        png: the picture as a file.
        uploaded: whether it came from a visitor.
    """

    def __init__(
        self, identity: str, name: str, picture: NDArray[np.uint8], open_avatar: Callable[[], Avatar], *, uploaded: bool
    ) -> None:
        """Ask `open_avatar` once, when somebody chooses the portrait."""
        self.id, self.name, self.picture, self.uploaded = identity, name, picture, uploaded
        self.png = encode_png(picture)
        self._open_avatar, self._lock = open_avatar, threading.Lock()
        self._avatar: Avatar | None = None

    @property
    def avatar(self) -> Avatar:
        """The model with this portrait; slow the first time, from any thread.

        Raises:
            EngineError, NumericalError: it could not be opened.
            PortraitError: the model cannot draw it, where that matters.
        """
        with self._lock:
            if self._avatar is None:
                self._avatar = self._open_avatar()
            return self._avatar


def sources_of(bundle: Bundle, files: tuple[Path, ...]) -> list[tuple[Path | bytes, str]]:
    """The operator's pictures and the bundle's golden one; without any of the operator's, those that it offers.

    Each has its name for the page.

    Raises:
        BundleError: there is no picture at all, or the bundle's is damaged.
    """
    offered, own = bundle.manifest.portraits, bundle.manifest.golden.portrait
    if offered and not files:
        return [(bundle.read(path), name[:_LONGEST_NAME]) for name, path in offered.items()]
    sources: list[tuple[Path | bytes, str]] = [(path, path.stem.replace("_", " ")[:_LONGEST_NAME]) for path in files]
    if own is not None:
        sources.append((bundle.read(own), "Built in"))
    if not sources:
        raise BundleError("The bundle has no portrait of its own; pass --portrait.")
    return sources


def cut(spec: ModelSpec, source: Path | bytes, crop: Crop) -> NDArray[np.uint8]:
    """A picture of `sources_of` as the model takes it; in the bundle's own the face stands where it should.

    Raises:
        PortraitError: the picture cannot be read.
    """
    return portrait_for(spec, source, crop if isinstance(source, Path) else "centre")


class Portraits:
    """Gives a model its portraits; opening one and `upload` are slow and safe to call from any thread."""

    def __init__(
        self, avatar: Avatar, sources: list[tuple[Path | bytes, str]], *, strict: bool = False, crop: Crop = "auto"
    ) -> None:
        """Read every picture of `sources_of`; the avatar has the first one.

        Under `strict` a picture that the model cannot draw is refused when it is opened; `crop` is `load_portrait`'s.

        Raises:
            PortraitError: a picture cannot be read.
        """
        self._avatar, self._strict, self._crop = avatar, strict, crop
        self._uploads: OrderedDict[str, Portrait] = OrderedDict()
        self._lock = threading.Lock()
        (_, title), *others = sources
        fixed = [Portrait("p0", title, avatar.portrait, lambda: avatar, uploaded=False)]
        for source, title in others:
            picture = cut(avatar.spec, source, crop)
            open_avatar = partial(self._opened, picture)
            fixed.append(Portrait(f"p{len(fixed)}", title, picture, open_avatar, uploaded=False))
        self._fixed = {portrait.id: portrait for portrait in fixed}

    def upload(self, data: bytes) -> Portrait:
        """Check, decode and open a visitor's picture; the oldest upload is forgotten when there are too many.

        Args:
            data: a picture file of any kind that `load_portrait` reads.

        Raises:
            PortraitError: no picture, damaged, too much to decode, or, where it matters, not to be drawn by the model.
        """
        picture = decode_picture(data, self._avatar.spec, self._crop)
        avatar = self._opened(picture)
        portrait = Portrait(secrets.token_urlsafe(12), "Your picture", picture, lambda: avatar, uploaded=True)
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

    def _opened(self, picture: NDArray[np.uint8]) -> Avatar:
        avatar = self._avatar.with_portrait(picture)
        if self._strict and avatar.portrait_fault:
            raise PortraitError(avatar.portrait_fault)
        return avatar

    def forget_uploads(self) -> None:
        """Forget every visitor's picture."""
        with self._lock:
            self._uploads.clear()
