"""The measures, each on rendered truth with a distortion whose effect is known."""

from functools import cache

import cv2
import numpy as np
import pytest

from rap_edge.models.nano.data.identity import Identity
from rap_edge.models.nano.data.pairs import make_clip
from rap_edge.models.nano.data.renderer import mouth_box, neutral_motion, render
from rap_edge.models.nano.errors import MeasureError
from rap_edge.models.nano.measure import mouth as measure

CLIPS = 8


@cache
def clips() -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
    """(frames, motion, boxes) of held-out clips, 41 frames each."""
    made = [make_clip(7, "held-out", index, 41) for index in range(CLIPS)]
    return tuple(
        (
            np.stack([render(clip.identity, row) for row in clip.motion]),
            clip.motion,
            np.array([mouth_box(clip.identity, row) for row in clip.motion]),
        )
        for clip in made
    )


def gauge(index: int) -> measure.MouthGauge:
    identity = make_clip(7, "held-out", index).identity
    return measure.MouthGauge.calibrate(render(identity, neutral_motion()), mouth_box(identity, neutral_motion()))


@cache
def truth() -> np.ndarray:
    return np.stack([motion[:, 0] for _, motion, _ in clips()])


@cache
def read() -> np.ndarray:
    return np.stack([gauge(index).opening(frames) for index, (frames, _, _) in enumerate(clips())])


def test_opening_follows_the_truth_on_held_out_renders() -> None:
    assert measure.correlation(read(), truth()) > 0.97
    assert np.abs(read() - truth()).mean() < 0.06


def test_opening_survives_blur_and_noise() -> None:
    rng = np.random.default_rng(0)
    worn = []
    for index, (frames, _, _) in enumerate(clips()):
        blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in frames[::4]])
        noisy = np.clip(blurred + rng.normal(0, 6, blurred.shape), 0, 255).astype(np.uint8)
        worn.append(gauge(index).opening(noisy))
    assert measure.correlation(np.stack(worn), truth()[:, ::4]) > 0.97


def test_opening_at_another_size_is_the_same() -> None:
    identity = Identity.sample(np.random.default_rng(3))
    readings = []
    for size in (256, 512):
        portrait, box = render(identity, neutral_motion(), size), mouth_box(identity, neutral_motion(), size)
        frames = np.stack([render(identity, neutral_motion(mouth_open=opened), size) for opened in (0.0, 0.4, 0.8)])
        readings.append(measure.MouthGauge.calibrate(portrait, box).opening(frames))
    assert readings[0] == pytest.approx(readings[1], abs=0.04)
    assert readings[0] == pytest.approx([0, 0.4, 0.8], abs=0.12)


def test_frames_without_lips_do_not_read_as_an_open_mouth() -> None:
    frames = clips()[0][0][:2].copy()
    frames[:, 140:] = frames[:, 140:141]
    assert (gauge(0).opening(frames) < 0.1).all()


def test_static_video_correlates_with_nothing() -> None:
    still = np.repeat(read()[:, :1], read().shape[1], 1)
    assert abs(measure.within_latent_correlation(still, truth())) < 0.01


def test_late_picture_has_a_positive_lag() -> None:
    late = np.roll(read(), 2, axis=1)
    assert measure.best_lag(late, truth())[0] == 2
    assert measure.best_lag(read(), truth())[0] == 0
    assert measure.best_lag(np.roll(read(), -3, axis=1), truth())[0] == -3


def test_lagged_correlation_compares_the_overlap() -> None:
    track = np.random.default_rng(0).normal(size=50)
    assert measure.lagged_correlation(track[:-4], track[4:], 4) == pytest.approx(1)
    assert measure.lagged_correlation(track[4:], track[:-4], -4) == pytest.approx(1)


def test_one_mouth_per_latent_has_no_movement_within_it() -> None:
    groups = truth()[:, 1:].reshape(CLIPS, 5, 8)
    means = np.concatenate((truth()[:, :1], np.repeat(groups.mean(-1), 8, axis=-1)), 1)
    assert measure.correlation(means, truth()) > 0.4
    assert abs(measure.within_latent_correlation(means, truth())) < 0.05
    assert measure.within_latent_correlation(read(), truth()) > 0.95


def test_another_clips_mouth_does_not_correlate() -> None:
    assert measure.correlation(np.roll(read(), 1, axis=0), truth()) < 0.5


def test_summary_reports_every_mouth_figure() -> None:
    report = measure.summary(list(read()), list(truth()))
    assert report["correlation"] > 0.97
    assert report["best_lag"] == 0
    assert report["best_lag_correlation"] == report["correlation"]
    assert report["within_latent"] > 0.95


def test_mouth_is_closed_in_silence() -> None:
    assert measure.closedness(read(), truth()) == 1
    assert measure.closedness(read() + 0.2, truth()) == 0


def test_psnr_outside_ignores_the_mouth() -> None:
    frames, _, boxes = clips()[0]
    spoiled = frames.copy()
    for frame, (x0, y0, x1, y1) in zip(spoiled, boxes, strict=True):
        frame[y0:y1, x0:x1] = 0
    assert measure.psnr_outside(spoiled, frames, boxes) == float("inf")
    spoiled[:, :10] += 10
    assert 20 < measure.psnr_outside(spoiled, frames, boxes) < 60


@pytest.mark.parametrize(
    "call",
    [
        lambda: measure.correlation(np.zeros(4), np.zeros(5)),
        lambda: measure.within_latent_correlation(np.zeros(8), np.zeros(8)),
        lambda: measure.lagged_correlation(np.zeros(4), np.zeros(4), 3),
        lambda: measure.closedness(np.ones(4), np.ones(4)),
        lambda: measure.psnr_outside(*[np.zeros((1, 8, 8, 3), np.uint8)] * 2, np.array([[0, 0, 8, 8]])),
        lambda: measure.MouthGauge.calibrate(np.zeros((8, 9, 3), np.uint8), (0, 0, 8, 8)),
        lambda: measure.MouthGauge.calibrate(np.zeros((256, 256, 3), np.uint8), (80, 160, 180, 200)),
        lambda: gauge(0).opening(np.zeros((1, 64, 64, 3), np.uint8)),
    ],
)
def test_what_cannot_be_measured_is_refused(call) -> None:
    with pytest.raises(MeasureError):
        call()
