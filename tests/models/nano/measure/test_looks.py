"""Colours, sharpness and joints, on pictures whose answer is known."""

import cv2
import numpy as np
import pytest

from rap_edge.models.nano.data.identity import Identity
from rap_edge.models.nano.data.renderer import neutral_motion, render
from rap_edge.models.nano.data.view import LIGHTS
from rap_edge.models.nano.errors import MeasureError
from rap_edge.models.nano.measure.looks import PARTS, colour_errors, part_masks, sharpness
from rap_edge.models.nano.measure.seams import seam_ratio

SOMEBODY = Identity.sample(np.random.default_rng(4))


def test_masks_lie_on_the_iris_the_lips_and_the_clothes() -> None:
    masks = part_masks(SOMEBODY, 256)
    middles = {part: np.argwhere(masks[part]).mean(0) for part in PARTS}
    assert abs(middles["iris"][0] - 106) < 8
    assert abs(middles["lips"][0] - 180) < 8
    assert middles["clothes"][0] > 235


@pytest.mark.parametrize("light", ["warm", "dark"])
def test_a_change_of_colour_is_told_in_levels(light: str) -> None:
    portrait = render(SOMEBODY, neutral_motion(), view=LIGHTS[light])
    masks = part_masks(SOMEBODY, 256, LIGHTS[light])
    same, off = colour_errors(portrait, portrait[None], masks), portrait.astype(np.int16)
    assert set(same) == set(PARTS)
    assert max(same.values()) == 0
    off[masks["iris"]] += 10
    changed = colour_errors(portrait, np.clip(off, 0, 255).astype(np.uint8)[None], masks)
    assert changed["iris"] == pytest.approx(10)
    assert changed["lips"] == 0
    with pytest.raises(MeasureError, match="fit"):
        colour_errors(portrait, portrait[None, :128], masks)


def test_a_blurred_picture_is_less_sharp() -> None:
    portrait = render(SOMEBODY, neutral_motion())
    talking = render(SOMEBODY, neutral_motion(mouth_open=0.6, blink=1.0))
    assert sharpness(portrait, talking[None], SOMEBODY) == pytest.approx(1.0, abs=0.08)
    assert sharpness(portrait, cv2.GaussianBlur(portrait, (0, 0), 2.0)[None], SOMEBODY) < 0.5


def test_a_jump_every_so_often_is_a_seam_and_even_motion_is_none() -> None:
    boxes = np.tile([0, 0, 2, 2], (25, 1))
    even = np.arange(25, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    assert seam_ratio(even, boxes, 8) == pytest.approx(1.0)
    jumping = even.copy()
    for joint in (8, 16, 24):
        jumping[joint:] += 1
    assert seam_ratio(jumping, boxes, 8) == pytest.approx(2.0)
    with pytest.raises(MeasureError, match="joint"):
        seam_ratio(even[:5], boxes[:5], 8)
