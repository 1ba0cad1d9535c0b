"""Which sink a file's name gets, and that one line makes another one known to `rap-run`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.bundles.tiny import TINY
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.media.waves import speech, write_wav

from rap_edge.runtime.cli import run as cli
from rap_edge.runtime.errors import OutputError
from rap_edge.runtime.outputs import sinks
from rap_edge.runtime.outputs.mp4_writer import Mp4Writer

SOURCE = SimpleNamespace(rate=TINY.sample_rate, channels=1)


class Frames:
    """A sink that keeps the frames in a file of numpy's."""

    rate, channels, frames = TINY.sample_rate, 1, 0

    def __init__(self, path: Path, spec: object, source: object, *, fragmented: bool = False) -> None:
        self._path, self._kept = path, []

    def write(self, frames: np.ndarray, audio: np.ndarray) -> None:
        self._kept.append(frames.copy())
        self.frames += len(frames)

    def close(self) -> None:
        np.save(self._path, np.concatenate(self._kept))

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("name", ["a.mp4", "a.MOV", "a.m4v", "a"])
def test_names_of_videos_and_names_without_a_suffix_get_the_writer_of_mp4(tmp_path: Path, name: str) -> None:
    with sinks.open_sink(tmp_path / name, TINY, SOURCE) as sink:
        assert isinstance(sink, Mp4Writer)
        frame = np.zeros((1, *TINY.image_size, 3), np.uint8)
        sink.write(frame, np.zeros((TINY.samples_per_frame, 1), np.float32))


def test_a_name_that_no_sink_writes_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"'.*a\.avi' is no name of a video; .* \.mp4, \.m4v, \.mov\."):
        sinks.open_sink(tmp_path / "a.avi", TINY, SOURCE)


def test_another_sink_is_one_registration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "SINKS", {**sinks.SINKS, ".npy": Frames})
    bundle = write_tiny_bundle(tmp_path / "tiny")
    audio = write_wav(str(tmp_path / "talk.wav"), speech(1.0, TINY.sample_rate), TINY.sample_rate)
    assert cli.main(["--bundle", str(bundle), "--audio", audio, "-o", str(tmp_path / "out.npy")]) == 0
    assert np.load(tmp_path / "out.npy").shape == (TINY.fps, *TINY.image_size, 3)
