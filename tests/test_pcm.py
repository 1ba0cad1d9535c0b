import os
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.runtime.audio import LOUDEST
from rap_edge.runtime.errors import AudioError
from rap_edge.runtime.pcm import PcmDecoder, PcmStream


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8), st.integers(1, 4))
def test_sixteen_bit_samples_are_the_same_however_the_bytes_are_split(data, cuts, channels):
    whole = len(data) - len(data) % (2 * channels)
    expected = np.frombuffer(data[:whole], "<i2").reshape(-1, channels).astype(np.float32) / 32768
    decoder = PcmDecoder(channels, "s16le")
    got = [decoder.push(piece) for piece in pieces(data, cuts)]
    assert np.array_equal(np.concatenate(got) if got else np.empty((0, channels)), expected)
    assert decoder.rest == len(data) - whole


@given(st.binary(max_size=200), st.integers(1, 3))
def test_any_bytes_as_float_are_finite_samples_or_one_sentence(data, channels):
    whole = data[: len(data) - len(data) % (4 * channels)]
    decoder = PcmDecoder(channels, "f32le")
    if np.all(np.abs(np.frombuffer(whole, "<f4")) <= LOUDEST):
        assert decoder.push(data).shape == (len(whole) // (4 * channels), channels)
    else:
        with pytest.raises(AudioError, match="--format"):
            decoder.push(data)


@pytest.mark.parametrize(("channels", "form"), [(0, "s16le"), (33, "s16le"), (1, "s24le")])
def test_a_form_that_is_not_read_is_refused(channels, form):
    with pytest.raises(AudioError):
        PcmDecoder(channels, form)


@pytest.fixture
def pipe():
    ends = list(os.pipe())
    yield ends
    for end in ends:
        if end is not None:
            os.close(end)


def finish(pipe):
    os.close(pipe[1])
    pipe[1] = None


def test_a_pipe_gives_its_sound_as_it_arrives_and_ends_with_it(pipe):
    stream = iter(PcmStream(pipe[0], 16000, 1, "s16le"))
    os.write(pipe[1], b"\x00\x40\x00")
    assert next(stream).tolist() == [[0.5]]
    os.write(pipe[1], b"\xc0")
    assert next(stream).tolist() == [[-0.5]]
    finish(pipe)
    assert list(stream) == []


def test_a_pipe_that_ends_inside_a_sample_says_what_was_left_out(pipe):
    os.write(pipe[1], b"\x00\x40\x00")
    finish(pipe)
    with pytest.warns(UserWarning, match="middle of a sample; its 1 bytes"):
        assert len(list(PcmStream(pipe[0], 16000, 1, "s16le"))) == 1


def test_a_pipe_without_a_sample_is_an_error(pipe):
    finish(pipe)
    with pytest.raises(AudioError, match="without a sample"):
        list(PcmStream(pipe[0], 16000, 1, "s16le"))


def test_closing_ends_a_reader_that_waits(pipe):
    stream = PcmStream(pipe[0], 16000, 1, "s16le")
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    time.sleep(0.05)
    stream.close()
    reader.join(5.0)
    assert not reader.is_alive()


def test_a_rate_that_no_sound_has_is_refused(pipe):
    with pytest.raises(AudioError, match="sample rate"):
        PcmStream(pipe[0], 10, 1, "s16le")
