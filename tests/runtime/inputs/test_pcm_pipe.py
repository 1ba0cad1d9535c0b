import os
import struct
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.errors import AudioError
from rap_edge.runtime.inputs.convert import LOUDEST, AudioWarning
from rap_edge.runtime.inputs.pcm_doubt import SampleDoubt
from rap_edge.runtime.inputs.pcm_pipe import FORMATS, PcmDecoder, PcmStream


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


@pytest.mark.parametrize(("channels", "form"), [(0, "s16le"), (33, "s16le"), (1, "s20le")])
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


# What the programs write that a user would pipe in: espeak-ng and sox, ffmpeg, and those that know the length.
LENGTHS = [0x7FFFF000, 0xFFFFFFFF, 0, None]


def wav(form: str, content: bytes, rate: int = 22050, channels: int = 1, length: int | None = None, more: bytes = b""):
    encoding, width = 3 if form[0] == "f" else 1, FORMATS[form]
    head = struct.pack("<HHIIHH", encoding, channels, rate, rate * channels * width, channels * width, 8 * width)
    size = len(content) if length is None else length
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + head + more + b"data" + size.to_bytes(4, "little") + content


def sound_of(pipe, content: bytes, *options):
    """What a stream makes of a pipe's whole content, with its form."""
    writer = threading.Thread(target=lambda: (os.write(pipe[1], content), finish(pipe)))
    writer.start()
    try:
        stream = PcmStream(pipe[0], *options)
        blocks = list(stream)
    finally:
        writer.join()
    return np.concatenate(blocks), stream.rate, stream.channels


@pytest.mark.parametrize("length", LENGTHS)
def test_a_wav_in_the_pipe_has_the_form_that_its_header_says(pipe, length):
    pcm = np.arange(-50, 50, dtype="<i2").reshape(-1, 2)
    title = b"LIST\5\0\0\0title\0"
    found, rate, channels = sound_of(pipe, wav("s16le", pcm.tobytes(), 24000, 2, length, title))
    assert (rate, channels) == (24000, 2)
    assert np.array_equal(found * 2**15, pcm)


def test_what_follows_the_samples_of_a_wav_is_no_sound(pipe):
    content = wav("s16le", np.full(100, 7, "<i2").tobytes())
    found, _, _ = sound_of(pipe, content + b"LIST\4\0\0\0soft")
    assert np.array_equal(found * 2**15, np.full((100, 1), 7))


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("u8", np.uint8([0, 128, 192])),
        ("s16le", np.array([-(2**15), 0, 2**14], "<i2")),
        ("s24le", np.array([-(2**31), 0, 2**30], "<i4").view(np.uint8).reshape(-1, 4)[:, 1:]),
        ("s32le", np.array([-(2**31), 0, 2**30], "<i4")),
        ("f32le", np.array([-1, 0, 0.5], "<f4")),
        ("f64le", np.array([-1, 0, 0.5], "<f8")),
    ],
)
def test_every_format_has_full_scale_at_one(pipe, form, content):
    assert PcmDecoder(1, form).push(content.tobytes()).tolist() == [[-1.0], [0.0], [0.5]]
    assert sound_of(pipe, wav(form, content.tobytes()))[0].tolist() == [[-1.0], [0.0], [0.5]]


def test_a_wav_of_another_format_than_was_told_is_read_with_a_warning(pipe):
    content = wav("f32le", np.full(100, 0.5, "<f4").tobytes())
    with pytest.warns(AudioWarning, match="a WAV of f32le, so --format s16le was left out"):
        assert sound_of(pipe, content, 22050, None, "s16le")[0].tolist() == [[0.5]] * 100


def test_a_wav_of_another_rate_than_was_told_is_refused(pipe):
    with pytest.raises(AudioError, match=r"1 channels of 22050 Hz, not 1 of 16000 Hz; leave out --rate"):
        sound_of(pipe, wav("s16le", bytes(200)), 16000)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (wav("s16le", b"", rate=0), "sample rate .* must be a whole number from 1000 to 768000"),
        (wav("s16le", b"", channels=99), "number of channels .* must be"),
        (wav("s16le", b"")[:30], "does not say what its samples are"),
        (wav("s16le", b"")[:38], "no complete header"),
        (wav("s16le", b"").replace(b"\x10\0\0\0\1\0", b"\x10\0\0\0\x55\0"), "encoding 85, which are not read"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0" + bytes(100), "no complete header"),
        (b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\x7f" + bytes(100), "no complete header"),
        (b"OggS" + bytes(100), "is Ogg and no PCM"),
        (b"fLaC" + bytes(100), "is FLAC and no PCM"),
    ],
)
def test_what_cannot_be_read_from_a_pipe_says_so(pipe, content, said):
    with pytest.raises(AudioError, match=said):
        sound_of(pipe, content)


def test_a_told_rate_does_not_wait_for_the_first_sound(pipe):
    stream = PcmStream(pipe[0], 8000, 2)
    assert (stream.rate, stream.channels) == (8000, 2)


def voice(rate: int, seed: int, loudness: float) -> np.ndarray:
    """Voiced sound and hissing in turn, with pauses, as int16."""
    rng = np.random.default_rng(seed)
    times = np.arange(2 * rate) / rate
    pitch = np.cumsum(rng.uniform(80, 300) * (1 + 0.1 * np.sin(7 * times))) / rate
    voiced = sum(np.sin(2 * np.pi * n * pitch + rng.uniform(0, 6)) / n for n in range(1, 12))
    hiss = np.diff(rng.standard_normal(times.size + 1))
    turn = np.sin(2 * np.pi * rng.uniform(1, 4) * times)
    sound = np.where(turn > 0.2, 0.3 * voiced, np.where(turn < -0.6, 0.2 * hiss, 0.0))
    return (loudness * np.clip(sound, -1, 1) * 32767).astype("<i2")


HONEST = {
    "speech": lambda rng: voice(
        int(rng.choice([8000, 16000, 22050, 48000])), int(rng.integers(99)), rng.uniform(0.01, 1)
    ),
    "music": lambda rng: rng.uniform(30, 32000) * np.sin(np.cumsum(rng.choice([0.05, 0.3, 1.0, 2.5], 40)).repeat(800)),
    "white noise": lambda rng: rng.standard_normal(40_000) * rng.choice([0.7, 3, 100, 3000, 9000]),
    "loud noise": lambda rng: rng.integers(-32768, 32768, 40_000),
    "a tone": lambda rng: rng.uniform(1, 32000) * np.sin(np.arange(40_000) * rng.uniform(0.01, np.pi)),
    "silence": lambda rng: np.zeros(40_000),
    "a click in silence": lambda rng: np.r_[np.zeros(20_000), 20_000, np.zeros(20_000)],
    "clipping": lambda rng: np.sign(np.sin(np.arange(40_000) * rng.uniform(0.01, 3))) * rng.choice([1, 16000, 32767]),
    "8 bits": lambda rng: np.round(100 * np.sin(np.cumsum(rng.uniform(0, 0.5, 40_000)))) * 256,
}


@pytest.mark.parametrize("channels", [1, 2, 32])
@pytest.mark.parametrize("kind", HONEST)
@given(st.integers(0, 10_000), st.sampled_from([997, 4096, 65536]))
@settings(max_examples=8, deadline=None)
def test_no_sound_is_doubted(kind, channels, seed, piece):
    pcm = np.clip(HONEST[kind](np.random.default_rng(seed)), -32768, 32767).astype("<i2").repeat(channels)
    doubt = SampleDoubt(channels)
    step = piece * channels
    assert [doubt.push(pcm[at : at + step]) for at in range(0, pcm.size, step)] == [None] * -(-pcm.size // step)
    assert doubt.verdict() is None


@pytest.mark.parametrize("silence", [0, 1, 12_345])
@given(
    st.integers(0, 10_000),
    st.sampled_from([16000, 22050, 48000]),
    st.floats(0.05, 1.0),
    st.sampled_from([997, 4096, 65536]),
)
@settings(max_examples=8, deadline=None)
def test_speech_in_another_format_is_doubted(silence, seed, rate, loudness, piece):
    spoken = np.r_[np.zeros(silence, "<i2"), voice(rate, seed, loudness)]
    floats = (spoken / 32768).astype("<f4").view("<i2")
    # Swapped bytes of quiet speech are a smooth sound too: nobody can tell.
    swapped = [(spoken.byteswap(), "in the other order")] if loudness >= 0.3 else []
    for pcm, said in ((floats, "--format f32le"), *swapped):
        doubt = SampleDoubt(1)
        heard = [doubt.push(pcm[at : at + piece]) for at in range(0, pcm.size, piece)]
        assert [said in words for words in [*heard, doubt.verdict()] if words] == [True]


def test_a_stream_in_another_format_is_read_with_a_warning(pipe):
    swapped = voice(16000, 1, 0.5).byteswap().tobytes()
    with pytest.warns(AudioWarning, match="does not look like s16le: these may be samples whose two bytes"):
        sound_of(pipe, swapped)
