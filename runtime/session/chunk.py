"""`Chunk`: a piece of video with its sound, and how good it is."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..loop.device_frames import DeviceFrames


@dataclass(frozen=True)
class Chunk:
    """A piece of video with its sound.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB; T is 0 where the chunk was dropped or failed: hold the last good frame, and
            let the sound go on.
        audio: float32 [samples] at the spec's sample rate, exactly as long as was pushed for these frames.
        pts: presentation time of the first frame in seconds.
        late: rendered later than it had to be: computing took longer than the chunk plays or, under an overload
            policy, it was rendered after its budget.
        stats: seconds spent per stage.
        duration: seconds until the next chunk's first frame.
        frame_step: frame i is due at `pts + i * frame_step / fps`; more than 1 is a lower frame rate.
        steps: denoise steps; 0 where nothing was rendered (dropped, failed, or idle motion shown again).
        silent: there is silence in all of `audio`.
        reduced: rendered with fewer steps or at a lower frame rate than the model has.
        dropped: not rendered, because the machine is too slow.
        failed: could not be rendered.
        on_device: the same frames in a GPU's memory, for renderers; good until two more chunks of the session have been
            rendered. None without a GPU, and where idle motion is shown again.
        captured: `time.monotonic()` when its last sample was pushed; with the time at which it is shown this gives
            the latency.
    """

    frames: NDArray[np.uint8]
    audio: NDArray[np.float32]
    pts: float
    late: bool
    stats: Mapping[str, float]
    duration: float = 0.0
    frame_step: int = 1
    steps: int = 0
    silent: bool = False
    reduced: bool = False
    dropped: bool = False
    failed: bool = False
    on_device: DeviceFrames | None = None
    captured: float = 0.0

    @property
    def mark(self) -> Mark:
        """How good its frames are."""
        if self.dropped or self.failed:
            return Mark.HELD
        return Mark.REDUCED if self.reduced else Mark.GOOD

    def at_full_rate(self, fps: int, held: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One frame for every 1/fps seconds, uint8 [T, H, W, 3], for a sink that knows no other rate.

        Args:
            fps: of the spec.
            held: uint8 [H, W, 3], the last good frame, which fills a chunk without frames.
        """
        count = round(self.duration * fps)
        if not len(self.frames):
            return np.broadcast_to(held, (count, *held.shape))
        return self.frames if self.frame_step == 1 else self.frames.repeat(self.frame_step, axis=0)[:count]


class Mark(enum.StrEnum):
    """How good a shown frame is; a display may tell the viewer, and must not hide it from tests and reports."""

    GOOD = "good"
    REDUCED = "reduced"
    """Rendered for this moment with fewer denoise steps or at a lower frame rate, because the machine is busy."""
    HELD = "held"
    """The last good frame, because this moment's chunk is late, failed or was dropped; its sound goes on."""
