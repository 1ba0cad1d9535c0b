"""Other framings and light: the face goes where the view says, comes back straightened, and flows to its portrait."""

import cv2
import numpy as np
import pytest

from rap_edge.models.nano.data.identity import Identity
from rap_edge.models.nano.data.renderer import eye_box, flow_between, mouth_box, neutral_motion, render
from rap_edge.models.nano.data.view import LIGHTS, View
from rap_edge.models.nano.measure.mouth import MouthGauge

SOMEBODY = Identity.sample(np.random.default_rng(4))
FRAMED = (View(scale=0.72), View(scale=1.3, shift_y=-20.0), View(angle=15.0), View(shift_x=-64.0, shift_y=20.0))


@pytest.mark.parametrize("view", FRAMED)
def test_the_mouth_lies_where_the_view_puts_it(view: View) -> None:
    x0, y0, x1, y1 = mouth_box(SOMEBODY, neutral_motion())
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2], np.float32)
    placed = view.place(middle)
    px0, py0, px1, py1 = mouth_box(SOMEBODY, neutral_motion(), view=view)
    assert np.allclose(placed, ((px0 + px1) / 2, (py0 + py1) / 2), atol=4)
    assert np.allclose(view.find(placed), middle, atol=1e-3)


@pytest.mark.parametrize("view", FRAMED)
def test_a_straightened_picture_shows_the_face_as_drawn(view: View) -> None:
    row = neutral_motion(mouth_open=0.6, yaw=0.4)
    drawn, straight = render(SOMEBODY, row), view.straighten(render(SOMEBODY, row, view=view)[None])[0]
    face = (slice(90, 200), slice(85, 170))
    assert np.abs(drawn[face].astype(int) - straight[face]).mean() < 5


@pytest.mark.parametrize("view", [*FRAMED, *LIGHTS.values()])
def test_the_gauge_reads_the_mouth_in_every_view(view: View) -> None:
    portrait = view.straighten(render(SOMEBODY, neutral_motion(), view=view)[None])[0]
    gauge = MouthGauge.calibrate(portrait, mouth_box(SOMEBODY, neutral_motion()))
    opening = np.array([0.0, 0.2, 0.5, 0.8])
    frames = np.stack([render(SOMEBODY, neutral_motion(mouth_open=value), view=view) for value in opening])
    assert np.corrcoef(gauge.opening(view.straighten(frames)), opening)[0, 1] > 0.94


def test_a_portrait_bent_by_the_flow_shows_the_frame() -> None:
    view = View(scale=0.8, angle=-10.0, shift_x=30.0)
    still, moved = neutral_motion(yaw=0.6, pitch=-0.3), neutral_motion(yaw=-0.7, roll=0.8, shift_y=0.5)
    portrait, frame = (render(SOMEBODY, row, view=view).astype(np.float32) for row in (still, moved))
    flow = cv2.resize(flow_between(still, moved, 32, view) * 128, (256, 256), interpolation=cv2.INTER_LINEAR)
    places = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).astype(np.float32) + flow
    bent = cv2.remap(portrait, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(bent - frame).mean() < 0.35 * np.abs(portrait - frame).mean()


def test_the_eyes_lie_in_their_box() -> None:
    opened, shut = neutral_motion(yaw=0.5), neutral_motion(yaw=0.5, blink=1.0)
    changed = np.abs(render(SOMEBODY, opened).astype(int) - render(SOMEBODY, shut)).max(-1) > 12
    x0, y0, x1, y1 = eye_box(SOMEBODY, opened)
    assert changed[y0:y1, x0:x1].sum() == changed.sum() > 0


def test_light_changes_the_colours_and_not_the_framing() -> None:
    as_drawn = render(SOMEBODY, neutral_motion())
    grey, dark = (render(SOMEBODY, neutral_motion(), view=LIGHTS[name]) for name in ("grey", "dark"))
    assert np.ptp(grey.astype(int), axis=-1).max() <= 1
    assert dark.mean() < 0.5 * as_drawn.mean()
    assert not LIGHTS["warm"].reframes


def test_samples_keep_the_mouth_in_the_picture() -> None:
    rng = np.random.default_rng(0)
    views = [View.sample(rng) for _ in range(200)]
    places = np.array([view.place(np.array([128.0, 180.0], np.float32)) for view in views])
    assert places.min() > 35
    assert places.max() < 221
    assert {view.reframes for view in views} == {True, False}
