"""One box: engines that render the clips that they are given, one after another."""

from __future__ import annotations

import contextlib
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.errors import AudioError, NumericalError, OutputError, PortraitError
from rap_edge.runtime.inputs.audio_file import read_audio
from rap_edge.runtime.inputs.convert import AudioWarning
from rap_edge.runtime.inputs.picture.portrait import PortraitWarning
from rap_edge.runtime.outputs.render import render
from rap_edge.runtime.outputs.sinks import open_sink
from rap_edge.runtime.spec import Crop

from .jobs import Job


@dataclass(frozen=True)
class BoxSettings:
    """What all boxes have in common.

    Attributes:
        bundle: its folder, under the same name on every machine.
        output: folder of the videos, likewise.
        engine, fallback, threads, steps, crop, strict_portrait: as for `Avatar.open`.
    """

    bundle: str
    output: str
    engine: str | None = None
    fallback: bool = False
    threads: int | None = None
    steps: int | None = None
    crop: Crop = "auto"
    strict_portrait: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a clip.

    Attributes:
        line: of the job.
        failure: the sentence that says why there is no video; "" where there is one.
        warnings: sentences about its sound and its portrait.
        frames: of the video.
        video_seconds: that they play.
        seconds: that it took, from opening the sound to the video's final name.
    """

    line: int
    failure: str = ""
    warnings: tuple[str, ...] = ()
    frames: int = 0
    video_seconds: float = 0.0
    seconds: float = 0.0


class ClipRenderer:
    """A bundle's engines, opened once.

    Attributes:
        engine, device: as of `Avatar`.
    """

    def __init__(self, settings: BoxSettings) -> None:
        """Load the engines.

        Raises:
            BundleError, EngineError, SpecError: as `Avatar.open`.
        """
        self._settings = settings
        bundle = Bundle.open(settings.bundle)
        # Without a portrait of the bundle's own every job brings one; until then anything will do.
        height, width = bundle.manifest.spec.image_size
        blank = None if bundle.manifest.golden.portrait else np.full((height, width, 3), 128, np.uint8)
        self._own = self._avatar = Avatar.open(
            bundle,
            blank,
            engine=settings.engine,
            fallback=settings.fallback,
            threads=settings.threads,
            steps=settings.steps,
            crop=settings.crop,
        )
        self._portrait: str | None = None
        self.engine, self.device = self._own.engine, self._own.device

    def render(self, job: Job) -> Outcome:
        """Make a clip, whole or not at all; what is wrong with it alone is in the outcome.

        Raises:
            EngineError: the engines are of no use any more.
        """
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                frames = self._render(job)
            except (AudioError, NumericalError, OutputError, PortraitError) as error:
                return Outcome(job.line, str(error), _sentences(caught))
        return Outcome(
            job.line,
            "",
            _sentences(caught),
            frames,
            frames / self._own.spec.fps,
            time.perf_counter() - started,
        )

    def _render(self, job: Job) -> int:
        avatar = self._with_portrait(job.portrait)
        output = Path(self._settings.output, job.output)
        # Where it cannot be made, opening the video says so.
        with contextlib.suppress(OSError):
            output.parent.mkdir(parents=True, exist_ok=True)
        with read_audio(job.audio) as source, open_sink(output, avatar.spec, source) as sink:
            render(avatar, source, sink, seed=job.seed)
            return sink.frames

    def _with_portrait(self, portrait: str | None) -> Avatar:
        """The avatar with it; clips with the same one in a row read it once."""
        if portrait != self._portrait:
            self._portrait, self._avatar = None, self._own
            if portrait is not None:
                self._avatar = self._own.with_portrait(portrait)
                self._portrait = portrait
        if self._settings.strict_portrait and (fault := self._avatar.portrait_fault):
            raise PortraitError(fault)
        return self._avatar


def _sentences(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    ours = (str(item.message) for item in caught if issubclass(item.category, AudioWarning | PortraitWarning))
    return tuple(dict.fromkeys(ours))
