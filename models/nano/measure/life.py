"""Reads from frames how a head lives: its pose, its gaze and its lids, in the renderer's own units.

The pose is fitted to the upper face by Gauss-Newton over the renderer's displacement fields; gaze and lids are read off
the eyes of the frame that this pose has been taken from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..data.identity import Identity
from ..data.portrait import CX, EYE_Y
from ..data.renderer import neutral_motion, pose_fields, render
from ..data.view import View
from ..errors import MeasureError

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

POSES = ("yaw", "pitch", "roll", "shift_x", "shift_y")
_SIDE = 128  # of the pictures that the pose is fitted to
_LEVELS = (2.5, 0.8)  # their blur, from coarse to fine
_ROUNDS = 2
_TINY = 1e-6
_SHUT, _OPEN = 0.5, 0.3


@dataclass(frozen=True)
class Life:
    """What was read, frame by frame.

    Attributes:
        pose: float32 [T, 5], columns `POSES`, counted from the portrait's.
        blink: float32 [T], 0 open to about 1 shut.
        gaze: float32 [T, 2], to the right and down; without meaning while the lids are shut.
    """

    pose: Floats
    blink: Floats
    gaze: Floats

    @property
    def blinks(self) -> int:
        """How often the lids shut."""
        return count_blinks(self.blink)

    def spread(self) -> dict[str, float]:
        """Deviation over time of the head (root mean square over its five motions) and of the open eyes' gaze."""
        opened = self.gaze[self.blink < 0.3]
        return {
            "head": float(np.sqrt(self.pose.var(0).mean())),
            "gaze": float(np.sqrt(opened.var(0).mean())) if len(opened) > 1 else 0.0,
        }


class LifeGauge:
    """Reads one identity.

    Args:
        identity: who.
        view: the light of the frames; their framing must have been taken out, see `View.straighten`.
        size: side of the frames in pixels.
    """

    def __init__(self, identity: Identity, size: int, view: View | None = None) -> None:
        light = View() if view is None else View(saturation=view.saturation, gain=view.gain, gamma=view.gamma)
        self.size = size
        scale = size / 256
        self._fields = pose_fields(_SIDE) * np.float32(_SIDE / 256)
        self._weight = _upper_face(_SIDE)
        portrait = render(identity, neutral_motion(), size, light)
        self._targets = [_blurred(_small(portrait), blur) for blur in _LEVELS]
        self._solvers = [self._solver(target) for target in self._targets]
        reach = identity.eye_gap + identity.eye_width + 3, identity.eye_height + 5
        self._rows = slice(round((EYE_Y - reach[1]) * scale), round((EYE_Y + reach[1]) * scale))
        self._columns = slice(round((CX - reach[0]) * scale), round((CX + reach[0]) * scale))
        self._eye_fields = pose_fields(size)[:, self._rows, self._columns] * np.float32(scale)
        self._opened = self._eyes(portrait, np.zeros(len(POSES)))
        shut = self._eyes(render(identity, neutral_motion(blink=1.0), size, light), np.zeros(len(POSES))) - self._opened
        self._closing = shut / max(float(np.square(shut).sum()), _TINY)
        looks = []
        for name in ("gaze_x", "gaze_y"):
            ends = (render(identity, neutral_motion(**{name: value}), size, light) for value in (0.4, -0.4))
            right, left = (self._eyes(end, np.zeros(len(POSES))) for end in ends)
            looks.append((right - left) / 0.8)
        basis = np.stack([shut, *looks], -1).reshape(-1, 3)
        self._looking = np.linalg.pinv(basis)

    def read(self, frames: Bytes) -> Life:
        """Read frames uint8 [T, size, size, 3] that follow each other.

        Raises:
            MeasureError: the frames have another shape.
        """
        if frames.ndim != 4 or frames.shape[1:] != (self.size, self.size, 3):
            raise MeasureError(f"Frames must have shape [T, {self.size}, {self.size}, 3]; got {frames.shape}.")
        poses, lids, looks = [], [], []
        pose = np.zeros(len(POSES))
        for frame in frames:
            pose = self._pose(frame, pose)
            change = (self._eyes(frame, pose) - self._opened).ravel()
            poses.append(pose)
            lids.append(float(change @ self._closing.ravel()))
            looks.append((self._looking @ change)[1:])
        return Life(np.array(poses, np.float32), np.array(lids, np.float32), np.array(looks, np.float32))

    def taken(self, frame: Bytes, pose: npt.ArrayLike) -> Bytes:
        """A frame uint8 [size, size, 3] with this pose taken out of it, so that it lies over the portrait."""
        fields = pose_fields(self.size) * np.float32(self.size / 256)
        still = _taken(frame.astype(np.float32), fields, np.asarray(pose, np.float64))
        return np.asarray(np.clip(still + 0.5, 0, 255), np.uint8)

    def _pose(self, frame: Bytes, pose: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        small = _small(frame)
        for target, solver, blur in zip(self._targets, self._solvers, _LEVELS, strict=True):
            soft = _blurred(small, blur)
            for _ in range(_ROUNDS):
                error = (_taken(soft, self._fields, pose) - target)[self._weight > 0]
                pose = np.clip(pose + solver @ error.ravel(), -3, 3)
        return pose

    def _eyes(self, frame: Bytes, pose: npt.NDArray[np.float64]) -> Floats:
        """The eyes with this pose taken out of them."""
        corner = (self._columns.start, self._rows.start)
        return _taken(frame.astype(np.float32), self._eye_fields, pose, corner)

    def _solver(self, target: Floats) -> npt.NDArray[np.float64]:
        """Turns differences of the weighted pixels into a pose: the least squares of the linearised picture."""
        down, across = np.gradient(target, axis=(0, 1))
        slopes = [field[..., :1] * across + field[..., 1:] * down for field in self._fields]
        mask = self._weight > 0
        columns = np.stack([-slope[mask].ravel() for slope in slopes], -1)
        weight = np.repeat(self._weight[mask], 3)
        normal = (columns * weight[:, None]).T @ columns
        normal += 1e-3 * np.trace(normal) / len(normal) * np.eye(len(normal))
        return np.linalg.solve(normal, (columns * weight[:, None]).T)


def pooled_spread(lives: Sequence[Life]) -> dict[str, float]:
    """Root mean square of the spreads of several clips."""
    spreads = [life.spread() for life in lives]
    return {name: float(np.sqrt(np.mean([spread[name] ** 2 for spread in spreads]))) for name in spreads[0]}


def _taken(frame: Floats, fields: Floats, pose: npt.NDArray[np.float64], corner: tuple[int, int] = (0, 0)) -> Floats:
    """The part of the frame where the fields lie, with the pose taken out of it."""
    height, width = fields.shape[1:3]
    places = np.stack(np.meshgrid(np.arange(width) + corner[0], np.arange(height) + corner[1]), -1)
    moved = (places + np.tensordot(pose, fields, 1)).astype(np.float32)
    # OpenCV's annotations know no single map of both coordinates.
    taken = cv2.remap(frame, moved, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(taken, np.float32)


def _small(frame: Bytes) -> Floats:
    return np.asarray(cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)


def _blurred(frame: npt.NDArray[Any], deviation: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(frame.astype(np.float32), (0, 0), deviation), np.float32)


def _upper_face(size: int) -> Floats:
    """Where the pose is read: brows, nose, cheeks and the head's outline, but neither eyes nor mouth."""
    x, y = np.meshgrid((np.arange(size) + 0.5) * 256 / size, (np.arange(size) + 0.5) * 256 / size)
    weight = ((np.abs(x - CX) < 112) & (y > 8) & (y < 160)).astype(np.float32)
    weight[(np.abs(y - EYE_Y - 1) < 17) & (np.abs(np.abs(x - CX) - 41) < 27)] = 0
    return weight


def count_blinks(closed: npt.ArrayLike) -> int:
    """How often the lids shut: rises above 0.5 that fall below 0.3 again or end the clip."""
    blinks, shut = 0, False
    for value in np.asarray(closed, np.float64):
        if not shut and value > _SHUT:
            blinks, shut = blinks + 1, True
        elif shut and value < _OPEN:
            shut = False
    return blinks
