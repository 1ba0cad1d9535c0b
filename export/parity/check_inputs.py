"""The portrait and the speech that an export is checked with: the demo's; and drawn ones, which need no file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.errors import BundleError
from rap_edge.runtime.inputs.audio_file import AudioFile
from rap_edge.runtime.inputs.convert import to_mono
from rap_edge.runtime.inputs.picture.portrait import portrait_for
from rap_edge.runtime.inputs.resampler import Resampler
from rap_edge.runtime.inputs.sound_container import BUNDLE_CONTAINERS, CONTAINERS
from rap_edge.runtime.spec import ModelSpec, height_and_width


@dataclass(frozen=True)
class RealInputs:
    """What the roll-out is run with.

    Attributes:
        portrait: uint8 [*image_size, 3] RGB.
        speech: int16 [samples] at the spec's sample rate.
        origin: where they came from, for the manifest.
    """

    portrait: NDArray[np.uint8]
    speech: NDArray[np.int16]
    origin: str

    def waveform(self, samples: int) -> NDArray[np.float32]:
        """The first `samples` samples as float32 in -1..1; the speech is repeated if it is too short."""
        return np.resize(self.speech, samples).astype(np.float32) / np.float32(32768.0)


def golden_inputs(bundle: Bundle) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The golden portrait and speech of a bundle, uint8 [H, W, 3] and float32 [samples] at the spec's rate, to measure.

    Raises:
        BundleError: the bundle has no golden clip, or a file of it has changed.
    """
    spec, golden = bundle.manifest.spec, bundle.manifest.golden
    if golden.portrait is None or golden.audio is None:
        raise BundleError("The bundle has no golden clip to measure with; export it again.")
    bundle.verify([golden.audio])
    portrait = portrait_for(spec, bundle.read(golden.portrait), "centre")
    return portrait, read_mono(bundle.path(golden.audio), spec.sample_rate, BUNDLE_CONTAINERS)


def real_inputs(spec: ModelSpec) -> RealInputs:
    """The demo's portrait and speech."""
    with as_file(files("rap_edge.assets")) as folder:
        portrait = portrait_for(spec, folder / "portrait.png", "centre")
        return RealInputs(portrait, to_int16(read_mono(folder / "speech.wav", spec.sample_rate)), "demo assets")


def read_mono(path: str | Path, rate: int, containers: tuple[str, ...] = CONTAINERS) -> NDArray[np.float32]:
    """A whole audio file of one of `containers` as float32 [samples] at `rate` Hz; raises `AudioError`."""
    with AudioFile(path, containers) as file:
        resampler = Resampler(file.rate, rate)
        blocks = [resampler.push(to_mono(block)) for block in file]
    return np.concatenate([*blocks, resampler.flush()])


def to_int16(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    """float32 in -1..1 to int16, as a WAVE file holds it."""
    pcm: NDArray[np.int16] = np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)
    return pcm


def drawn_portrait(size: int | tuple[int, int]) -> NDArray[np.uint8]:
    """A plain face, uint8 [height, width, 3] RGB."""
    height, width = height_and_width(size)
    side = min(height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / side
    y, x = y - height / side / 2, x - width / side / 2
    picture = np.empty((height, width, 3), np.float32)
    picture[...] = np.array([120.0, 140.0, 170.0]) + 60.0 * y[..., None]
    for cx, cy, rx, ry, color in (
        (0.0, 0.0, 0.28, 0.38, (222, 180, 150)),
        (-0.11, -0.08, 0.045, 0.028, (250, 250, 250)),
        (0.11, -0.08, 0.045, 0.028, (250, 250, 250)),
        (-0.11, -0.08, 0.018, 0.022, (50, 40, 40)),
        (0.11, -0.08, 0.018, 0.022, (50, 40, 40)),
        (0.0, 0.19, 0.10, 0.035, (170, 70, 75)),
    ):
        distance = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        cover = np.clip((1.0 - distance) * 0.25 * rx * side, 0.0, 1.0)[..., None]
        picture += cover * (np.array(color, np.float32) - picture)
    return np.clip(picture, 0, 255).astype(np.uint8)


def drawn_speech(rate: int, seconds: float = 10.0) -> NDArray[np.float32]:
    """Harmonics of a moving pitch under syllables of four a second, with noise for consonants."""
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * rate)) / rate
    pitch = 120.0 + 30.0 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 4.0 * time + np.sin(2 * np.pi * 0.9 * time)), 0.0, 1.0)
    noise = 0.15 * rng.standard_normal(time.size) * (1.0 - syllables) * (np.sin(2 * np.pi * 2.0 * time) > 0.5)
    waveform: NDArray[np.float32] = (0.3 * (0.5 * voice * syllables + noise)).clip(-1, 1).astype(np.float32)
    return waveform
