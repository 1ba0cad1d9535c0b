"""A badly placed face is found, on drawings and on a photo, and brought where the model wants it."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest

from rap_edge.models.nano.portraits import pictures
from rap_edge.models.presets import NANO
from rap_edge.runtime.errors import PortraitError
from rap_edge.runtime.inputs.picture import portrait as portrait_module
from rap_edge.runtime.inputs.picture.face import can_find_faces, find_face
from rap_edge.runtime.inputs.picture.framing import framed, stands_well
from rap_edge.runtime.inputs.picture.portrait import load_portrait, portrait_for
from rap_edge.runtime.spec import Framing

cv2 = pytest.importorskip("cv2")
FRAMING = NANO.framing
assert FRAMING is not None
with_detector = pytest.mark.skipif(not can_find_faces(), reason="OpenCV 5 comes without the detector's data")


def photo() -> np.ndarray:
    file = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])


def placed(picture: np.ndarray, angle: float, scale: float, right: int, down: int, size: int = 640) -> np.ndarray:
    """The picture, turned clockwise and made smaller, on a larger grey one."""
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -angle, scale)
    turn[:, 2] += size / 2 - width / 2 + right, size / 2 - height / 2 + down
    return cv2.warpAffine(picture, turn, (size, size), borderMode=cv2.BORDER_CONSTANT, borderValue=(128, 128, 128))


@with_detector
def test_the_drawn_portraits_stand_well_and_stay_as_they_are() -> None:
    for data in pictures().values():
        assert np.array_equal(portrait_for(NANO, data), portrait_for(NANO, data, "centre"))


@with_detector
@pytest.mark.parametrize(
    ("angle", "scale", "right", "down"), [(0, 0.6, 120, -90), (20, 0.7, -60, 40), (-30, 0.8, 0, 0)]
)
@pytest.mark.parametrize("name", ["Juno", "photo"])
def test_a_face_that_is_small_off_centre_or_turned_is_framed(name, angle, scale, right, down) -> None:
    original = photo() if name == "photo" else load_portrait(pictures()[name], 512)
    moved = placed(original, angle, scale, right, down)
    result = load_portrait(moved, 256, framing=FRAMING)
    found = find_face(result)
    assert found is not None
    assert stands_well(found, FRAMING, 256, 256)
    before = find_face(moved)
    assert before is not None
    assert not stands_well(before, FRAMING, 640, 640)


@with_detector
def test_what_is_insisted_on_is_given_or_refused() -> None:
    square = load_portrait(photo(), 256, crop="face")
    found = find_face(square)
    assert found is not None
    assert found.side / 256 == pytest.approx(0.5, abs=0.1)
    with pytest.raises(PortraitError, match="no face to be found"):
        load_portrait(np.full((300, 300, 3), 90, np.uint8), 256, crop="face")


def test_without_the_detector_the_centre_is_taken_and_a_face_cannot_be_insisted_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(portrait_module, "can_find_faces", lambda: False)
    moved = placed(photo(), 0, 0.5, 100, 0)
    assert np.array_equal(load_portrait(moved, 256, framing=FRAMING), load_portrait(moved, 256, crop="centre"))
    with pytest.raises(PortraitError, match=r"rap-edge\[face\]"):
        load_portrait(moved, 256, framing=FRAMING, crop="face")


def test_all_of_a_picture_is_taken_over_grey() -> None:
    wide = np.full((100, 200, 3), 250, np.uint8)
    result = load_portrait(wide, 64, crop="none")
    assert abs(int(result[2, 32, 0]) - 128) <= 1
    assert abs(int(result[32, 2, 0]) - 250) <= 1


@with_detector
def test_a_cut_beyond_the_edge_goes_on_in_its_colours() -> None:
    from rap_edge.runtime.inputs.picture.face import Face

    picture = np.full((100, 100, 3), 77, np.uint8)
    corner = framed(picture, Face(5, 5, 40, 0), Framing(face_side=0.5), 64, 64)
    assert corner.shape == (64, 64, 3)
    assert (corner == 77).all()
