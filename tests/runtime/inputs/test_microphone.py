"""Microphones of ALSA and PulseAudio, read by the real PortAudio."""

import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.media.virtual_sound import PulseServer, file_microphone, missing_pulse, pulse_server

from rap_edge.runtime.errors import AudioError
from rap_edge.runtime.inputs.convert import AudioWarning
from rap_edge.runtime.inputs.portaudio import close_stream, find_input, input_devices, rescan

try:
    import sounddevice  # noqa: F401
except (ImportError, OSError) as error:
    pytest.skip(f"no PortAudio here: {error}", allow_module_level=True)

from rap_edge.runtime.inputs.microphone import Microphone

Plug = Callable[[np.ndarray, int], None]


@pytest.fixture(autouse=True)
def _no_device_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "none.conf").write_text("pcm.nobody { type hw card 99 }\nctl.!default { type null }\n")
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "none.conf"))
    rescan()
    yield
    monkeypatch.undo()
    rescan()


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Makes a microphone that hears the given sound, as fast as it is asked for."""

    def plug(pcm: np.ndarray, rate: int) -> None:
        monkeypatch.setenv("ALSA_CONFIG_PATH", str(file_microphone(tmp_path, pcm, rate)))
        rescan()

    return plug


def levels(seconds: float, rate: int, channels: int) -> np.ndarray:
    """A constant per channel: what ALSA's file device repeats and skips does not show."""
    return np.repeat(np.array([[9000, -5000]], np.int16)[:, :channels], round(seconds * rate), axis=0)


def record(microphone: Microphone, samples: int) -> np.ndarray:
    blocks: list[np.ndarray] = []
    for block in microphone:
        blocks.append(block)
        if sum(map(len, blocks)) >= samples:
            break
    return np.concatenate(blocks)[:samples]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [44100, 48000])
def test_the_device_is_heard_at_its_rate_with_its_channels(plug: Plug, rate: int, channels: int) -> None:
    pcm = levels(3.0, rate, channels)
    plug(pcm, rate)
    with Microphone(rate=rate, channels=channels) as microphone:
        heard = record(microphone, rate)
        assert (microphone.rate, microphone.channels, microphone.live) == (rate, channels, True)
    assert heard.dtype == np.float32
    assert np.array_equal(heard, pcm[:rate].astype(np.float32) / 2**15)


def test_a_device_that_is_read_too_slowly_loses_sound_and_counts_it(plug: Plug) -> None:
    plug(levels(3.0, 48000, 1), 48000)
    with Microphone(rate=48000) as microphone:
        deadline = time.monotonic() + 20
        while microphone.stats.overflows < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        stats = microphone.stats
    assert stats.overflows >= 5
    assert stats.dropped_seconds > 0
    assert stats.gaps == 0


def test_closing_ends_an_iteration_in_another_thread(plug: Plug) -> None:
    plug(levels(1.0, 48000, 1), 48000)
    microphone = Microphone(rate=48000)
    reader = threading.Thread(target=lambda: [None for _ in microphone])
    reader.start()
    microphone.close()
    reader.join(10)
    assert not reader.is_alive()
    microphone.close()


def test_devices_are_listed_and_found_by_part_of_their_names(plug: Plug) -> None:
    plug(levels(1.0, 48000, 1), 48000)
    names = [device.name for device in input_devices()]
    assert names == ["speechfile", "default"]
    assert find_input("SPEECH").name == "speechfile"
    assert find_input("0").name == "speechfile"
    assert find_input(None).name == "default"
    assert [device.default for device in input_devices()] == [False, True]


def test_a_device_that_is_not_there_is_said_so(plug: Plug) -> None:
    with pytest.raises(AudioError, match="No microphone was found"):
        Microphone()
    plug(levels(1.0, 48000, 1), 48000)
    with pytest.raises(AudioError, match=r"called 'Studio'.*--list-devices"):
        Microphone("Studio")
    with pytest.raises(AudioError, match="fits several"):
        Microphone("e")
    with pytest.raises(AudioError, match="--rate 48000"):
        Microphone(rate=5)
    with pytest.raises(AudioError, match="does not record 500 channels"):
        Microphone(channels=500)


@pytest.fixture
def pulse(monkeypatch: pytest.MonkeyPatch) -> Iterator[PulseServer]:
    if reason := missing_pulse():
        pytest.skip(reason)
    # A socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="pulse"))
    with pulse_server(folder) as server:
        monkeypatch.setenv("ALSA_CONFIG_PATH", str(server.config))
        rescan()
        yield server
    shutil.rmtree(folder)


def tone(seconds: float, rate: int = 48000) -> np.ndarray:
    return (12000 * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 500 / rate)).astype(np.int16)


def frequency(heard: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    return float(spectrum.argmax() * rate / len(heard))


def test_a_microphone_that_keeps_time_gives_a_second_per_second(pulse: PulseServer) -> None:
    pulse.speak(tone(20), 48000)
    rate = 44100
    with Microphone("default", rate=rate, channels=2) as microphone:
        record(microphone, rate // 2)
        started = time.monotonic()
        heard = record(microphone, 2 * rate)
        took = time.monotonic() - started
        assert microphone.stats.dropped_seconds == 0
    assert took == pytest.approx(2.0, abs=0.3)
    assert frequency(heard[rate:, 0], rate) == pytest.approx(500, abs=3)
    # Of an unbroken tone x[i-1] + x[i+1] is always the same multiple of x[i].
    whole = heard[:, 0].astype(np.float64)
    assert np.abs(whole[:-2] + whole[2:] - 2 * np.cos(2 * np.pi * 500 / rate) * whole[1:-1]).max() < 0.01


def test_a_microphone_that_is_unplugged_and_comes_back_loses_no_time(pulse: PulseServer) -> None:
    pulse.speak(tone(30), 48000)
    notices: list[str] = []
    blocks: list[np.ndarray] = []
    with Microphone("default", rate=48000, on_notice=notices.append) as microphone:
        reader = threading.Thread(target=lambda: blocks.extend(microphone))
        reader.start()
        while sum(map(len, blocks)) < 48000:
            time.sleep(0.01)
        time.sleep(0.5)
        started, before = time.monotonic(), sum(map(len, blocks))
        pulse.unplug()
        time.sleep(1.5)
        during = sum(map(len, blocks))
        pulse.plug_in()
        pulse.speak(tone(30), 48000)
        deadline = time.monotonic() + 20
        while len(notices) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(1.5)
        after, elapsed = sum(map(len, blocks)), time.monotonic() - started
        stats = microphone.stats
        microphone.close()
        reader.join(10)
    assert (during - before) / 48000 == pytest.approx(1.5, abs=0.5), "silence takes the place of the device"
    assert (after - before) / 48000 == pytest.approx(elapsed, abs=0.4), "and the time is right afterwards"
    assert ["gone" in notices[0], "back" in notices[1]] == [True, True]
    assert len(notices) == 2
    assert stats.gaps == 1
    assert stats.gap_seconds >= 1.4
    heard = np.concatenate(blocks)[:, 0]
    middle = heard[before + 24000 : before + 48000]
    assert np.abs(middle).max() == 0.0
    assert frequency(heard[after - 48000 : after], 48000) == pytest.approx(500, abs=3)


def test_without_a_listener_a_notice_is_a_warning(pulse: PulseServer) -> None:
    pulse.speak(tone(30), 48000)
    with Microphone("default", rate=48000) as microphone, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record(microphone, 24000)
        pulse.unplug()
        record(microphone, 48000)
    assert [(item.category, "is gone" in str(item.message)) for item in caught] == [(AudioWarning, True)]


def test_a_stream_that_cannot_be_closed_is_left_to_itself() -> None:
    class Hanging:
        def close(self, ignore_errors: bool) -> None:
            time.sleep(5)

    started = time.monotonic()
    assert not close_stream(Hanging())
    assert time.monotonic() - started < 4
