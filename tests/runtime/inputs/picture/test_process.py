"""Pictures from strangers: decoded in a child that has little memory and little time."""

import dataclasses

import numpy as np
import pytest
from helpers.bundles.tiny import TINY
from helpers.media.pictures import encode, face

from rap_edge.runtime.errors import PortraitError
from rap_edge.runtime.inputs.picture import process as picture_process
from rap_edge.runtime.inputs.picture.portrait import portrait_for
from rap_edge.runtime.inputs.picture.process import decode_picture

SPEC = TINY


def test_the_child_gives_the_same_picture() -> None:
    data = encode(face(200, 160), "mjpeg", "yuvj420p", qmin="2", qmax="2")
    for resizing in ("lanczos", "bilinear"):
        spec = dataclasses.replace(SPEC, portrait_resizing=resizing)
        assert np.array_equal(decode_picture(data, spec), portrait_for(spec, data))
    assert np.array_equal(decode_picture(data, SPEC, "none"), portrait_for(SPEC, data, "none"))


def test_what_the_child_refuses_is_said_in_its_sentence() -> None:
    for data, match in ((b"", "no picture"), (encode(face(), "png", "rgb24")[:200], "damaged or cut off")):
        with pytest.raises(PortraitError, match=match):
            decode_picture(data, SPEC)


def test_a_picture_that_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(np.zeros((2000, 2000, 3), np.uint8), "png", "rgb24")
    monkeypatch.setattr(picture_process, "MOST_BYTES", 40 << 20)
    with pytest.raises(PortraitError, match="memory"):
        decode_picture(data, SPEC)


def test_a_picture_that_takes_too_long_is_refused_and_its_child_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_process, "_PATIENCE", 0.0)
    with pytest.raises(PortraitError, match="too much memory or time"):
        decode_picture(encode(face(), "png", "rgb24"), SPEC)


def test_a_picture_of_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_process, "MOST_PIXELS", 128 * 128 - 1)
    with pytest.raises(PortraitError, match="128 x 128 pixels"):
        decode_picture(encode(face(), "png", "rgb24"), SPEC)
