import numpy as np
import pytest

from rap_edge.runtime.loop.color import ColorMatcher, lab_to_rgb, rgb_to_lab
from rap_edge.runtime.loop.pixels import to_frames, to_pixels


def picture(seed: int, size: int = 32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(rng.uniform(90, 160, 3), 20, (size, size, 3)), 0, 255).astype(np.uint8)


def lab_of(codes: np.ndarray) -> np.ndarray:
    return rgb_to_lab(to_pixels(codes))


def test_known_colours_have_their_published_lab_values() -> None:
    colours = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    lab = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(lab_of(colours), lab, atol=0.02)


def test_every_grey_and_random_colour_survives_the_round_trip() -> None:
    greys = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    colours = np.random.default_rng(0).integers(0, 256, (5000, 3), np.uint8)
    for codes in (greys, colours):
        assert (to_frames(to_pixels(codes)) == codes).all()
        np.testing.assert_allclose(lab_to_rgb(lab_of(codes)), to_pixels(codes), atol=4e-4)


def test_matching_gives_frames_the_portraits_statistics() -> None:
    portrait, frames = picture(1), to_pixels(np.stack([picture(2), picture(3)]))
    ColorMatcher(portrait, 1.0).apply(frames)
    want = lab_of(portrait).reshape(-1, 3)
    for frame in frames:
        have = rgb_to_lab(frame).reshape(-1, 3)
        np.testing.assert_allclose(have.mean(0), want.mean(0), atol=0.1)
        np.testing.assert_allclose(have.std(0), want.std(0), atol=0.1)


def test_strength_zero_changes_nothing_and_half_goes_half_way() -> None:
    before = to_pixels(picture(5)[None])
    nothing, half, whole = before.copy(), before.copy(), before.copy()
    for strength, frames in ((0.0, nothing), (0.5, half), (1.0, whole)):
        ColorMatcher(picture(1), strength).apply(frames)
    assert np.array_equal(nothing, before)
    np.testing.assert_allclose(half, (before + whole) / 2, atol=1e-6)


def test_what_is_brighter_than_white_counts_as_white_and_is_clipped_when_it_is_shown() -> None:
    bright = np.array([[1.0, 1.0, 1.0], [1.7, 1.7, 1.7]], np.float32)
    assert np.array_equal(*rgb_to_lab(bright))
    assert to_frames(np.array([-7.0, -1.0, 0.0, 1.0, 7.0], np.float32)).tolist() == [0, 0, 128, 255, 255]


@pytest.mark.filterwarnings("error")
def test_a_frame_of_one_colour_stays_finite() -> None:
    for level in (-3.0, 0.1, 3.0):
        frames = np.full((1, 8, 8, 3), level, np.float32)
        ColorMatcher(picture(1), 1.0).apply(frames)
        assert np.isfinite(frames).all()
        assert np.ptp(frames.reshape(-1, 3), axis=0).max() < 1e-6


def test_grey_frames_take_the_portraits_tint_and_no_colour_of_their_rounding() -> None:
    rng = np.random.default_rng(0)
    portrait = rng.integers(0, 256, (64, 64, 3), np.uint8)
    codes = rng.integers(0, 256, (1, 64, 64, 1), np.uint8).repeat(3, axis=3)
    codes[0, 0, 0, 0] ^= 1
    frames = to_pixels(codes)
    ColorMatcher(portrait, 1.0).apply(frames)
    inside = (np.abs(frames[0, 16:48, 16:48]) < 1.0).all(-1)
    assert rgb_to_lab(frames[0])[16:48, 16:48, 1:][inside].std(0).max() < 1.0
