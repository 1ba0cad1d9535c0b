import numpy as np

from rap_edge.runtime.loop.color import ColorMatcher, lab_to_rgb, rgb_to_lab


def picture(seed: int, size: int = 32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(rng.uniform(90, 160, 3), 20, (size, size, 3)), 0, 255).astype(np.uint8)


def test_known_colours_have_their_published_lab_values() -> None:
    colours = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    lab = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(rgb_to_lab(colours), lab, atol=0.15)


def test_every_grey_and_random_colour_survives_the_round_trip() -> None:
    greys = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    colours = np.random.default_rng(0).integers(0, 256, (5000, 3), np.uint8)
    for codes in (greys, colours):
        assert np.abs(lab_to_rgb(rgb_to_lab(codes)).astype(int) - codes).max() <= 1


def test_matching_gives_frames_the_portraits_statistics() -> None:
    portrait, frames = picture(1), np.stack([picture(2), picture(3)])
    ColorMatcher(portrait, 1.0).apply(frames)
    want = rgb_to_lab(portrait).reshape(-1, 3)
    for frame in frames:
        have = rgb_to_lab(frame).reshape(-1, 3)
        np.testing.assert_allclose(have.mean(0), want.mean(0), atol=0.5)
        np.testing.assert_allclose(have.std(0), want.std(0), atol=0.5)


def test_strength_zero_changes_nothing() -> None:
    frames = picture(5)[None]
    before = frames.copy()
    ColorMatcher(picture(1), 0.0).apply(frames)
    assert np.abs(frames.astype(int) - before).max() <= 1


def test_a_frame_of_one_colour_stays_finite() -> None:
    frames = np.full((1, 8, 8, 3), 128, np.uint8)
    ColorMatcher(picture(1), 1.0).apply(frames)
    assert len(np.unique(frames.reshape(-1, 3), axis=0)) == 1


def test_grey_frames_take_the_portraits_tint_and_no_colour_of_their_rounding() -> None:
    rng = np.random.default_rng(0)
    portrait = rng.integers(0, 256, (64, 64, 3), np.uint8)
    frames = rng.integers(0, 256, (1, 64, 64, 1), np.uint8).repeat(3, axis=3)
    frames[0, 0, 0, 0] ^= 1
    ColorMatcher(portrait, 1.0).apply(frames)
    tint = rgb_to_lab(frames[0])[16:48, 16:48, 1:]
    inside = (frames[0, 16:48, 16:48] > 0).all(-1) & (frames[0, 16:48, 16:48] < 255).all(-1)
    assert tint[inside].std(0).max() < 1.0
