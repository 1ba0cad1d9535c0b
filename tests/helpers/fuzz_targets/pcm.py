"""What a synthesiser writes into the pipe of `rap-run --audio -`: raw PCM of any format, and WAV."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any

import numpy as np
from helpers.fuzz_targets.mutations import byte_mutants
from helpers.fuzz_targets.target import Target
from hypothesis import strategies as st

from rap_edge.runtime.inputs.convert import AudioWarning
from rap_edge.runtime.inputs.pcm_pipe import FORMATS, PcmStream
from rap_edge.runtime.inputs.wav_header import CHANNELS

_PCM = (8000 * np.sin(np.arange(400))).astype("<i2").tobytes()
_FORMAT = b"fmt \x10\0\0\0\1\0\1\0\x22\x56\0\0\x44\xac\0\0\2\0\x10\0"
_WAV = b"RIFF\xff\xff\xff\xffWAVE" + _FORMAT + b"LIST\5\0\0\0title\0data\xff\xff\xff\xff" + _PCM
_OPTIONS = st.tuples(
    st.none() | st.sampled_from([22050, 48000]),
    st.none() | st.integers(CHANNELS.low, CHANNELS.high),
    st.none() | st.sampled_from(list(FORMATS)),
)


def _read(given: tuple[bytes, tuple[Any, ...]]) -> None:
    content, options = given
    ends = os.pipe()
    # A pipe may hold less than there is to write.
    writer = threading.Thread(target=_write, args=(ends[1], content))
    writer.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioWarning)
            stream = PcmStream(ends[0], *options)
            assert 1000 <= stream.rate <= 768_000
            for block in stream:
                assert block.shape[1] == stream.channels
                assert np.isfinite(block).all()
    finally:
        os.close(ends[0])
        writer.join()


def _write(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        try:
            file.write(content)
            file.flush()
        except BrokenPipeError:
            file.detach().close()


PCM = Target("pcm", st.tuples(byte_mutants(_WAV, 64) | byte_mutants(_PCM) | st.binary(max_size=200), _OPTIONS), _read)
