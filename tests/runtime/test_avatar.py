"""An avatar's portraits: another one over the same engines."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, drain, frames_of, noisy_field, portrait, speech
from helpers.bundles.tiny import TINY, tiny_engines

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.errors import PortraitError, SessionError

BRIGHT = np.full((TINY.image_size, TINY.image_size, 3), 200, np.uint8)


def frames(face: Avatar) -> np.ndarray:
    with face.session(seed=2) as session:
        session.push(speech(2 * TINY.chunk_seconds))
        return frames_of(drain(session))


def test_another_portrait_gives_the_frames_of_an_avatar_that_was_opened_with_it() -> None:
    face = avatar(dit=noisy_field)
    before = frames(face)
    other = face.with_portrait(BRIGHT)
    alone = Avatar(TINY, tiny_engines(TINY, dit=noisy_field), BRIGHT, "fp32")
    assert np.array_equal(frames(other), frames(alone))
    assert np.array_equal(frames(face), before)
    assert np.array_equal(other.portrait, BRIGHT)
    assert np.array_equal(face.portrait, portrait())


def test_each_is_closed_for_itself() -> None:
    face = avatar()
    other = face.with_portrait(BRIGHT)
    face.close()
    assert len(frames(other))
    with pytest.raises(SessionError, match="closed"):
        face.with_portrait(BRIGHT)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(PortraitError):
        avatar().with_portrait(b"no picture")


def test_idle_motion_is_that_of_the_own_portrait() -> None:
    face = avatar()
    other = face.with_portrait(BRIGHT)
    assert other._reels is not face._reels
