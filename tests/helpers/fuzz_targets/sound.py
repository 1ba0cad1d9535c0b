"""A sound file of the user's, or a bundle's golden one, of every kind that is opened."""

from __future__ import annotations

import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from helpers.fuzz_targets.mutations import byte_mutants
from helpers.fuzz_targets.target import Target
from helpers.media.sound_files import write_sound
from hypothesis import strategies as st

from rap_edge.runtime.inputs.audio_file import read_audio
from rap_edge.runtime.inputs.convert import AudioWarning

_KINDS = [
    ("aac", "aac", "fltp"),
    ("aiff", "pcm_s16be", "s16"),
    ("au", "pcm_mulaw", "s16"),
    ("flac", "flac", "s16"),
    ("mp3", "libmp3lame", "fltp"),
    ("mp4", "aac", "fltp"),
    ("ogg", "libopus", "flt"),
    ("w64", "pcm_s16le", "s16"),
    ("wav", "adpcm_ms", "s16"),
    ("webm", "libopus", "flt"),
    ("mka", "eac3", "fltp"),
]
_MOST_SAMPLES = 1_000_000


@cache
def _good_files() -> list[bytes]:
    pcm = np.random.default_rng(0).uniform(-0.5, 0.5, (4800, 2)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        kinds = [(Path(folder, f"a.{suffix}"), codec, form) for suffix, codec, form in _KINDS]
        return [write_sound(path, pcm, 48000, codec, form).read_bytes() for path, codec, form in kinds]


def _read(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        file.write(content)
        file.flush()
        with read_audio(file.name) as sound:
            left = _MOST_SAMPLES
            for block in sound:
                assert block.dtype == np.float32
                assert np.isfinite(block).all()
                left -= block.size
                if left < 0:
                    break


SOUND = Target(
    "sound",
    st.integers(0, len(_KINDS) - 1).flatmap(lambda kind: byte_mutants(_good_files()[kind])) | st.binary(max_size=200),
    _read,
)
