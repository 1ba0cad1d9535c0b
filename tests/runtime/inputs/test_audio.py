import math
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media.sound_files import write_sound
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.errors import AudioError
from rap_edge.runtime.inputs.audio_file import read_audio
from rap_edge.runtime.inputs.convert import AudioWarning, to_float, to_int16, to_mono
from rap_edge.runtime.inputs.resampler import Resampler

RATES = [8000, 11025, 16000, 22050, 44100, 44101, 48000, 96000, 192000]


def resample(pcm: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    resampler = Resampler(rate_in, rate_out)
    return np.concatenate([resampler.push(pcm), resampler.flush()])


def sine(rate: int, seconds: float = 1.0, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def decode(path: Path) -> tuple[np.ndarray, int]:
    with read_audio(path) as audio:
        return np.concatenate(list(audio)), audio.rate


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([(a, b) for a in RATES for b in (16000, 48000)]),
    st.integers(0, 5000),
    st.lists(st.integers(0, 900), max_size=8),
)
def test_any_split_of_the_samples_resamples_to_the_same_bits(rates, samples, cuts) -> None:
    pcm, split = noise(samples), Resampler(*rates)
    parts, start = [], 0
    for cut in cuts:
        parts.append(split.push(pcm[start : start + cut]))
        start += cut
    parts += [split.push(pcm[start:]), split.flush()]
    assert np.array_equal(np.concatenate(parts), resample(pcm, *rates))


@pytest.mark.parametrize("rate", [8000, 44100])
def test_one_sample_at_a_time_resamples_to_the_same_bits(rate: int) -> None:
    pcm, split = noise(2500), Resampler(rate, 16000)
    parts = [split.push(pcm[i : i + 1]) for i in range(pcm.size)]
    assert np.array_equal(np.concatenate([*parts, split.flush()]), resample(pcm, rate, 16000))


@settings(deadline=None, max_examples=40)
@given(st.integers(1000, 200_000), st.sampled_from([16000, 48000]), st.integers(0, 3000))
def test_the_output_is_as_long_as_the_input(rate_in: int, rate_out: int, samples: int) -> None:
    exact = samples * rate_out / rate_in
    expected = max(math.floor(exact + 0.5), 1) if samples else 0
    assert resample(noise(samples), rate_in, rate_out).size == expected


@pytest.mark.parametrize("rate_in", [8000, 32000, 48000, 192000])
@pytest.mark.parametrize("position", [0, 960, 15984])
def test_an_impulse_stays_where_it_is_in_time(rate_in: int, position: int) -> None:
    pcm = np.zeros(rate_in, np.float32)
    pcm[position * rate_in // 16000] = 1.0
    out = resample(pcm, rate_in, 16000)
    assert np.abs(out).argmax() == position
    reach = min(position, out.size - 1 - position, 20)
    assert out[position - reach : position] == pytest.approx(out[position + 1 : position + reach + 1][::-1], abs=1e-5)


@pytest.mark.parametrize("rate_in", [rate for rate in RATES if rate != 16000])
def test_a_sine_comes_out_as_the_same_sine(rate_in: int) -> None:
    out, expected = resample(sine(rate_in), rate_in, 16000), sine(16000)
    assert out[100:-100] == pytest.approx(expected[100:-100], abs=1e-5)


def test_a_tone_above_the_new_band_is_filtered_out() -> None:
    out = resample(sine(48000, frequency=9000.0), 48000, 16000)
    assert np.abs(out[200:-200]).max() < 1e-4


def test_a_minute_at_an_odd_rate_does_not_drift() -> None:
    out, expected = resample(sine(44101, 60.0), 44101, 16000), sine(16000, 60.0)
    assert out[-4000:-200] == pytest.approx(expected[-4000:-200], abs=1e-4)


def test_samples_come_out_soon_after_they_went_in() -> None:
    resampler = Resampler(48000, 16000)
    assert resampler.push(noise(48000)).size >= 16000 - 16000 // 50  # 20 ms


def test_equal_rates_pass_through() -> None:
    pcm, resampler = noise(1234), Resampler(16000, 16000)
    assert resampler.push(pcm) is pcm
    assert resampler.flush().size == 0


@pytest.mark.parametrize("rate", [0, -1, 999, 10**7])
def test_impossible_rates_are_refused(rate: int) -> None:
    with pytest.raises(AudioError, match="sample rate"):
        Resampler(rate, 16000)


def test_a_flushed_resampler_takes_no_more() -> None:
    resampler = Resampler(8000, 16000)
    resampler.flush()
    with pytest.raises(AudioError, match="flushed"):
        resampler.push(noise(1))


@pytest.mark.parametrize(
    ("pcm", "expected"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1.0, 0.0, 0.5]),
        (np.array([-(2**31), 2**30], np.int32), [-1.0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1.0, 0.0, 0.5]),
        (np.array([-1.0, 0.25], np.float64), [-1.0, 0.25]),
        (np.array([0.1], np.float32), [np.float32(0.1)]),
    ],
)
def test_integer_samples_become_floats_of_full_scale_1(pcm: np.ndarray, expected: list[float]) -> None:
    out = to_float(pcm)
    assert out.dtype == np.float32
    assert out.tolist() == expected


@pytest.mark.parametrize(
    "pcm",
    [
        np.array([0.0, np.nan], np.float32),
        np.array([np.inf], np.float32),
        np.array([1e300], np.float64),
        np.array([3e38], np.float32),
        np.array([1], np.int64),
        np.array([1j]),
        np.zeros((4, 2), np.float32),
        np.zeros((), np.float32),
    ],
)
def test_samples_that_no_recording_has_are_refused(pcm: np.ndarray) -> None:
    with pytest.raises(AudioError):
        to_float(pcm)


def test_int16_survives_the_way_to_floats_and_back_and_what_is_too_loud_is_cut_off() -> None:
    every = np.arange(-(2**15), 2**15).astype(np.int16)
    np.testing.assert_array_equal(to_int16(to_float(every)), every)
    np.testing.assert_array_equal(to_int16(np.array([-3.0, 1.0, 3.0], np.float32)), [-(2**15), 2**15 - 1, 2**15 - 1])


def test_mono_is_the_mean_of_the_channels() -> None:
    assert to_mono(np.array([[1.0, 0.0], [-0.5, 0.5]], np.float32)).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize(
    ("suffix", "codec", "sample_format", "rate", "tolerance"),
    [
        ("wav", "pcm_u8", "u8", 8000, 2**-6),
        ("wav", "pcm_s16le", "s16", 48000, 2**-14),
        ("wav", "pcm_s24le", "s32", 96000, 2**-20),
        ("wav", "pcm_s32le", "s32", 44100, 2**-20),
        ("wav", "pcm_f32le", "flt", 192000, 0.0),
        ("wav", "pcm_f64le", "dbl", 22050, 0.0),
        ("flac", "flac", "s16", 44100, 2**-14),
    ],
)
def test_lossless_files_are_read_sample_by_sample(
    tmp_path: Path, channels: int, suffix: str, codec: str, sample_format: str, rate: int, tolerance: float
) -> None:
    pcm = np.stack([sine(rate, 0.3, 300.0 * (i + 1)) for i in range(channels)], axis=1)
    read, read_rate = decode(write_sound(tmp_path / f"a.{suffix}", pcm, rate, codec, sample_format))
    assert read_rate == rate
    assert read.dtype == np.float32
    assert read.shape == pcm.shape
    assert np.abs(read - pcm).max() <= tolerance


@pytest.mark.parametrize(
    ("suffix", "codec", "sample_format", "rate"),
    [
        ("mp3", "libmp3lame", "fltp", 44100),
        ("ogg", "libopus", "flt", 48000),
        ("m4a", "aac", "fltp", 48000),
        ("mka", "ac3", "fltp", 48000),
    ],
)
def test_lossy_files_keep_their_time(tmp_path: Path, suffix: str, codec: str, sample_format: str, rate: int) -> None:
    pcm = np.zeros((rate, 1), np.float32)
    start = rate // 2
    pcm[start:, 0] = sine(rate, 0.5)
    read, read_rate = decode(write_sound(tmp_path / f"a.{suffix}", pcm, rate, codec, sample_format))
    assert read_rate == rate
    onset = np.flatnonzero(np.abs(read[:, 0]) > 0.1)[0]
    assert onset == pytest.approx(start, abs=0.02 * rate)


def test_the_sound_of_a_video_is_read(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as output:
        video, audio = output.add_stream("libx264", rate=25), output.add_stream("aac", rate=16000, layout="mono")
        video.width = video.height = 64
        output.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        frame = av.AudioFrame.from_ndarray(sine(16000)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        output.mux(audio.encode(frame))
        output.mux(video.encode(None))
        output.mux(audio.encode(None))
    read, rate = decode(path)
    assert rate == 16000
    assert len(read) == pytest.approx(16000, abs=1024)


def test_a_long_file_comes_in_short_blocks(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "long.wav", np.zeros((48000 * 20, 1), np.float32), 48000, "pcm_s16le", "s16")
    with read_audio(path) as audio:
        assert audio.duration == pytest.approx(20.0)
        assert max(len(block) for block in audio) < 48000


def test_a_file_of_one_sample_has_one_sample(tmp_path: Path) -> None:
    read, _ = decode(write_sound(tmp_path / "one.wav", np.full((1, 1), 0.5, np.float32), 16000, "pcm_s16le", "s16"))
    assert read.tolist() == [[0.5]]


def test_a_name_with_a_colon_is_a_file_and_no_protocol(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "plain.wav", sine(8000, 0.1)[:, None], 8000, "pcm_s16le", "s16")
    odd = path.rename(tmp_path / "http:%d #1.wav")
    assert len(decode(odd)[0]) == 800


def test_a_title_that_is_not_utf8_does_not_matter(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "plain.wav", sine(8000, 0.1)[:, None], 8000, "pcm_s16le", "s16")
    wav = path.read_bytes()
    title = (
        b"LIST" + (16).to_bytes(4, "little") + b"INFOINAM" + (4).to_bytes(4, "little") + "Été".encode("latin-1") + b"\0"
    )
    body = wav[8:12] + title + wav[12:]
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    assert len(decode(path)[0]) == 800


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_in_a_file_are_refused_with_their_time(tmp_path: Path, bad: float) -> None:
    pcm = np.zeros((16000, 1), np.float32)
    pcm[12000] = bad
    path = write_sound(tmp_path / "nan.wav", pcm, 16000, "pcm_f32le", "flt")
    with pytest.raises(AudioError, match=r"NaN or Inf in .*nan\.wav' at 0\.\d\d s"):
        decode(path)


def test_files_without_sound_are_refused(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("empty.wav", "text.txt", "bytes.mp3", "list.m3u8", "header.wav")}
    files["empty.wav"].touch()
    files["text.txt"].write_text("Dear diary, today I was not a sound file.\n" * 20)
    files["bytes.mp3"].write_bytes(np.random.default_rng(0).bytes(5000))
    files["list.m3u8"].write_text("#EXTM3U\n#EXTINF:1,\nhttp://localhost:1/a.ts\n")
    write_sound(files["header.wav"], np.zeros((100, 1), np.float32), 16000, "pcm_s16le", "s16")
    files["header.wav"].write_bytes(files["header.wav"].read_bytes()[:44])
    with av.open(str(tmp_path / "silent.mp4"), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width = video.height = 64
        output.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        output.mux(video.encode(None))
    for path in [*files.values(), tmp_path, tmp_path / "missing.wav", tmp_path / "silent.mp4"]:
        with pytest.raises(AudioError) as caught:
            read_audio(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_damaged_packets_are_left_out_with_a_warning(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.aac", noise(16000)[:, None] * 0.5, 16000, "aac", "fltp")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 600] = b"\xff\x00\x55" * 200
    path.write_bytes(data)
    with pytest.warns(AudioWarning, match="damaged packets"):
        read, _ = decode(path)
    assert 8000 < len(read) < 16000


def test_a_file_that_ends_too_early_says_so(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.flac", noise(64000)[:, None] * 0.5, 16000, "flac", "s16")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read, _ = decode(path)
    assert any("suggests 4.0 s" in str(item.message) for item in caught)
    assert 8000 < len(read) < 24000


def test_a_sound_file_warns_of_nothing(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", sine(16000)[:, None], 16000, "pcm_s16le", "s16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(path)
