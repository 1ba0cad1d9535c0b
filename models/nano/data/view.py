"""How a portrait is photographed: the size, place and turn of the face in the picture, and the light on it.

Pictures of another view are `renderer.render`'s with `view`; `straighten` takes them back to the upright framing that
the measures read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from .drawing import Bytes, Colour, Floats

_CENTRE = 128.0
_MOUTH = (128.0, 180.0)
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class View:
    """One framing and one light.

    Attributes:
        scale: size of the face, 1 as drawn.
        angle: turn of the picture in degrees, clockwise.
        shift_x, shift_y: where the middle goes, in 1/256 of the side, to the right and down.
        saturation: 1 as drawn, 0 grey.
        gain: factor of the red, green and blue light.
        gamma: exponent of the tones before the gain; above 1 darkens the shadows.
    """

    scale: float = 1.0
    angle: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    saturation: float = 1.0
    gain: Colour = (1.0, 1.0, 1.0)
    gamma: float = 1.0

    @classmethod
    def sample(cls, rng: np.random.Generator) -> View:
        """A random view: a third of them as drawn, a third framed otherwise, a third framed and lit otherwise.

        The mouth's middle stays in the picture.
        """
        kind = int(rng.integers(3))
        scale = float(np.exp(rng.uniform(np.log(0.66), np.log(1.36))))
        angle = float(rng.uniform(-17, 17)) if rng.random() < 0.7 else 0.0
        shift_x, shift_y = (float(value) for value in rng.uniform(-70, 70, 2) * (rng.random() < 0.7))
        light = LIGHTS[tuple(LIGHTS)[int(rng.integers(len(LIGHTS)))]]
        strength = float(rng.uniform(0.2, 1.1))
        jitter = rng.uniform(0.92, 1.08, 3)
        gain = tuple(
            float(1 + (value - 1) * strength) * float(wobble) for value, wobble in zip(light.gain, jitter, strict=True)
        )
        framed = cls(scale, angle, shift_x, shift_y)
        out = framed.place(np.array(_MOUTH, np.float32))
        beyond = np.clip(out, 0.16 * 256, 0.84 * 256) - out
        framed = replace(framed, shift_x=shift_x + float(beyond[0]), shift_y=shift_y + float(beyond[1]))
        if kind < 2:
            return cls() if kind == 0 else framed
        return replace(
            framed,
            saturation=max(0.0, 1 + (light.saturation - 1) * strength),
            gain=(float(gain[0]), float(gain[1]), float(gain[2])),
            gamma=1 + (light.gamma - 1) * strength,
        )

    @property
    def reframes(self) -> bool:
        """Whether the face is not where it was drawn."""
        return (self.scale, self.angle, self.shift_x, self.shift_y) != (1.0, 0.0, 0.0, 0.0)

    def placement(self) -> npt.NDArray[np.float64]:
        """The affine map [2, 3] from drawn coordinates to those in the picture, both in 1/256 of the side."""
        radians = np.deg2rad(self.angle)
        cosine, sine = self.scale * np.cos(radians), self.scale * np.sin(radians)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        middle = np.array([_CENTRE, _CENTRE])
        return np.column_stack((turn, middle + (self.shift_x, self.shift_y) - turn @ middle))

    def place(self, points: Floats) -> Floats:
        """Drawn points [..., 2] in the picture."""
        affine = self.placement()
        return np.asarray(points @ affine[:, :2].T + affine[:, 2], np.float32)

    def find(self, points: Floats) -> Floats:
        """Where points [..., 2] of the picture were drawn."""
        affine = cv2.invertAffineTransform(self.placement())
        return np.asarray(points @ affine[:, :2].T + affine[:, 2], np.float32)

    def straighten(self, frames: Bytes) -> Bytes:
        """Frames uint8 [T, size, size, 3] of this view with the face where it was drawn, as large and upright."""
        if not self.reframes:
            return frames
        affine = cv2.invertAffineTransform(self.placement())
        size = frames.shape[1]
        # Pixel centres lie half a pixel inside.
        half = 0.5 * 256 / size
        affine[:, 2] += affine[:, :2] @ (half, half) - half
        affine[:, 2] *= size / 256
        flags, border = cv2.INTER_LINEAR if self.scale > 1 else cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
        warped = [cv2.warpAffine(frame, affine, (size, size), flags=flags, borderMode=border) for frame in frames]
        return np.asarray(np.stack(warped), np.uint8)

    def illuminate(self, frame: Bytes) -> Bytes:
        """The picture uint8 [H, W, 3] in this light."""
        if (self.saturation, self.gain, self.gamma) == (1.0, (1.0, 1.0, 1.0), 1.0):
            return frame
        grey = np.tile(np.asarray(_LUMA), (3, 1))
        mixer = self.saturation * np.eye(3) + (1 - self.saturation) * grey
        tones = (np.arange(256) / 255.0) ** self.gamma * 255
        table = np.stack([tones * gain for gain in self.gain], -1)[None]
        toned = cv2.LUT(cv2.transform(frame, mixer), np.clip(table + 0.5, 0, 255).astype(np.uint8))
        return np.asarray(toned, np.uint8)


LIGHTS: dict[str, View] = {
    "grey": View(saturation=0.0),
    "dark": View(gain=(0.38, 0.38, 0.4), gamma=1.1),
    "warm": View(gain=(1.1, 0.94, 0.7)),
    "cold": View(gain=(0.78, 0.94, 1.12)),
}
"""The lights that training and evaluation name; each is also a view."""
