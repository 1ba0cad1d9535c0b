"""The renderer: varied portraits, a large mouth that moves alone, and boxes that hold it."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from rap_edge.models.nano.data.identity import HAIR_STYLES, Identity
from rap_edge.models.nano.data.renderer import contact_sheet, main, mouth_box, neutral_motion, part_flow, render
from rap_edge.models.nano.data.view import View
from rap_edge.models.nano.errors import RenderError

SOME = [Identity.sample(np.random.default_rng(seed)) for seed in range(8)]
POSE = {"yaw": 0.7, "pitch": -0.6, "roll": 0.5, "shift_x": 0.8, "shift_y": -0.7}


def luma(frame: np.ndarray) -> np.ndarray:
    return frame.astype(np.float32) @ np.array([0.3, 0.59, 0.11], np.float32)


def test_same_generator_state_draws_same_portrait() -> None:
    first, second = (Identity.sample(np.random.default_rng(5)) for _ in range(2))
    assert first == second
    assert np.array_equal(render(first, neutral_motion()), render(second, neutral_motion()))


def test_identities_vary_in_hair_and_skin() -> None:
    rng = np.random.default_rng(0)
    many = [Identity.sample(rng) for _ in range(200)]
    assert {identity.hair_style for identity in many} == set(HAIR_STYLES)
    brightness = [sum(identity.skin) / 3 for identity in many]
    assert min(brightness) < 90
    assert max(brightness) > 200


@pytest.mark.parametrize("size", [64, 256, 512])
def test_picture_has_the_size_that_was_asked_for(size: int) -> None:
    frame = render(SOME[0], neutral_motion(), size)
    assert frame.shape == (size, size, 3)
    assert frame.dtype == np.uint8


def test_larger_picture_shows_the_same_portrait() -> None:
    small = render(SOME[1], neutral_motion(mouth_open=0.5))
    large = cv2.resize(render(SOME[1], neutral_motion(mouth_open=0.5), 512), (256, 256), interpolation=cv2.INTER_AREA)
    assert np.mean((small.astype(float) - large) ** 2) < 255**2 / 10**3.5


def test_resting_mouth_is_at_least_80_pixels_wide() -> None:
    for identity in SOME:
        x0, _, x1, _ = mouth_box(identity, neutral_motion())
        assert x1 - x0 >= 80


@pytest.mark.parametrize("identity", SOME[:4])
def test_opening_changes_the_mouth_and_the_chin_only(identity: Identity) -> None:
    closed, opened = neutral_motion(**POSE), neutral_motion(**POSE, mouth_open=0.9)
    difference = np.abs(render(identity, closed).astype(int) - render(identity, opened)).max(-1)
    x0, y0, x1, y1 = mouth_box(identity, opened)
    assert difference[y0:y1, x0:x1].mean() > 20
    # The lips' shadow and the jaw reach a little further, upwards nothing moves.
    assert difference[: y0 - 8].max() <= 2
    assert difference[y0 - 8 : y0].mean() < 2


def test_open_mouth_is_dark_inside() -> None:
    for identity in SOME:
        motion = neutral_motion(mouth_open=0.9)
        x0, y0, x1, y1 = mouth_box(identity, motion)
        middle = luma(render(identity, motion))[(y0 + y1) // 2 - 4 : (y0 + y1) // 2 + 4, (x0 + x1) // 2]
        assert middle.mean() < 50


def test_teeth_brighten_the_open_mouth() -> None:
    for identity in SOME:
        x0, y0, x1, y1 = mouth_box(identity, neutral_motion(mouth_open=0.6))
        bare, shown = (
            luma(render(identity, neutral_motion(mouth_open=0.6, teeth=teeth)))[y0 + 10 : y1 - 14, x0 + 20 : x1 - 20]
            for teeth in (0, 1)
        )
        assert shown.max() > 200
        assert shown.mean() > bare.mean() + 15


def test_wide_and_round_change_the_width_of_the_box() -> None:
    widths = [
        box[2] - box[0]
        for box in (
            mouth_box(SOME[2], neutral_motion(**motion)) for motion in ({"mouth_round": 1}, {}, {"mouth_wide": 1})
        )
    ]
    assert widths[0] + 10 < widths[1] < widths[2] - 4


def test_box_follows_the_head() -> None:
    left = mouth_box(SOME[3], neutral_motion(shift_x=-1, yaw=-1))
    right = mouth_box(SOME[3], neutral_motion(shift_x=1, yaw=1))
    assert right[0] - left[0] > 8


def test_box_holds_the_lips_tightly_in_any_pose() -> None:
    rng = np.random.default_rng(2)
    for identity in SOME:
        motion = neutral_motion(
            mouth_open=rng.random(), mouth_wide=rng.random(), **{name: rng.uniform(-1, 1) for name in POSE}
        )
        # Only the lips' colour differs between the two pictures.
        green, purple = (
            render(replace(identity, lips=lips), motion).astype(int) for lips in ((0, 200, 0), (200, 0, 200))
        )
        rows, columns = np.nonzero(np.abs(green - purple).max(-1) > 100)
        lips = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        outside = (lips - mouth_box(identity, motion)) * (1, 1, -1, -1)
        assert outside.min() >= 0
        assert outside.max() <= 8


def test_blink_changes_the_eyes_only() -> None:
    difference = np.abs(render(SOME[0], neutral_motion()).astype(int) - render(SOME[0], neutral_motion(blink=1))).max(
        -1
    )
    assert difference[90:122, 60:200].max() > 60
    difference[86:126, 50:206] = 0
    assert difference.max() == 0


def test_motion_is_continuous() -> None:
    frames = [render(SOME[1], neutral_motion(mouth_open=0.4 + step * 0.002, yaw=step * 0.002)) for step in range(3)]
    assert np.abs(frames[0].astype(float) - frames[2]).mean() < 0.5


@pytest.mark.parametrize("row", [np.zeros(12), np.full(13, np.nan)])
def test_bad_motion_row_is_refused(row: np.ndarray) -> None:
    with pytest.raises(RenderError, match="13 finite numbers"):
        render(SOME[0], row)


def test_bad_size_is_refused() -> None:
    with pytest.raises(RenderError, match="multiple of 64"):
        render(SOME[0], neutral_motion(), 100)


def test_unknown_motion_column_is_refused() -> None:
    with pytest.raises(RenderError, match="'jaw'"):
        neutral_motion(jaw=1.0)


def test_contact_sheet_is_written(tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert main([str(out), "--columns", "2", "--rows", "1", "--size", "64"]) == 0
    written = cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB)
    assert np.array_equal(written, contact_sheet(2, 1, 0, 64))


def test_contact_sheet_in_a_missing_folder_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere" / "sheet.png"), "--columns", "1", "--rows", "1", "--size", "64"]) == 2
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("view", [View(), View(scale=0.8, angle=12, shift_x=20)])
def test_irises_and_lips_of_a_frame_are_found_in_the_portrait(view: View) -> None:
    rows, columns = np.mgrid[:256, :256].astype(np.float32)
    for identity in SOME[:4]:
        still = neutral_motion(gaze_x=0.2)
        moved = neutral_motion(mouth_open=0.7, gaze_x=-0.6, gaze_y=0.3, yaw=0.4)
        portrait, frame = (render(identity, motion, 256, view) for motion in (still, moved))
        flow, there = part_flow(identity, still, moved, 256, view)
        bent = cv2.remap(portrait, columns + 128 * flow[..., 0], rows + 128 * flow[..., 1], cv2.INTER_LINEAR)
        assert there.sum() > 500
        unbent = np.abs(portrait.astype(int) - frame)[there].mean()
        assert np.abs(bent.astype(int) - frame)[there].mean() < 0.35 * unbent
