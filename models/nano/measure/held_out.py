"""Held-out faces that say held-out sentences by held-out voices: what nano is measured on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.effects import noise
from ..data.identity import Identity
from ..data.renderer import mouth_box, neutral_motion, render
from ..data.sentences import sample_text, sample_voice
from ..data.speech import FRAME_RATE, FRAME_SAMPLES, synthesize
from .mouth import MouthGauge

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
LEAD_FRAMES = 12
SEED = 20_000


@dataclass(frozen=True)
class Subject:
    """A held-out face that says something.

    Attributes:
        portrait: uint8 [H, W, 3], mouth closed.
        waveform: float32 [frames * 640].
        mouth: float32 [frames, 5], the truth.
        still: uint8 [frames, H, W, 3], the renderer's frames with that mouth and a head that keeps the portrait's pose.
        boxes: [frames, 4], where the mouth is in them.
        gauge: measures the mouth.
    """

    portrait: Bytes
    waveform: Floats
    mouth: Floats
    still: Bytes
    boxes: npt.NDArray[np.int64]
    gauge: MouthGauge

    @classmethod
    def sample(cls, index: int, frames: int, size: int, *, silent: bool = False) -> Subject:
        """Subject `index` of the held-out split, `frames` long; a silent one hears nothing, or noise if odd."""
        rng = np.random.default_rng([SEED, index])
        identity = Identity.sample(rng)
        waveform, mouth = speech_track(rng, frames, 0 if silent else frames - FRAME_RATE)
        if silent and index % 2:
            waveform += noise(rng, len(waveform)) * np.float32(0.005)
        portrait = render(identity, neutral_motion(), size)
        motion = np.tile(neutral_motion(), (frames, 1))
        motion[:, :5] = mouth
        still = np.stack([render(identity, row, size) for row in motion])
        boxes = np.array([mouth_box(identity, row, size) for row in motion])
        gauge = MouthGauge.calibrate(portrait, mouth_box(identity, neutral_motion(), size))
        return cls(portrait, np.clip(waveform, -1, 1), mouth, still, boxes, gauge)


def speech_track(rng: np.random.Generator, frames: int, last: int) -> tuple[Floats, Floats]:
    """Held-out sentences by held-out voices, one after the other, after a silence of `LEAD_FRAMES`.

    Args:
        rng: chooses sentences, voices, loudness and pauses.
        frames: length.
        last: no sentence begins at this frame or later.

    Returns:
        float32 [frames * 640] and the mouth's motion, float32 [frames, 5].
    """
    waveform = np.zeros(frames * FRAME_SAMPLES, np.float32)
    mouth = np.zeros((frames, 5), np.float32)
    filled = LEAD_FRAMES
    while filled < last:
        utterance = synthesize(sample_text(rng, "held-out"), sample_voice(rng, "held-out"))
        length = min(len(utterance.mouth), frames - filled)
        spoken = utterance.waveform[: length * FRAME_SAMPLES]
        level = rng.uniform(0.04, 0.12) / max(float(np.sqrt(np.mean(spoken**2))), 1e-6)
        first = filled * FRAME_SAMPLES
        waveform[first : first + len(spoken)] = spoken * level
        mouth[filled : filled + length] = utterance.mouth[:length]
        filled += length + int(rng.integers(3, 12))
    return waveform, mouth
