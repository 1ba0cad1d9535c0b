"""Microphones of one name: which is opened, and which is not when one of them goes away. PortAudio is played here."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rap_edge.runtime.errors import AudioError
from rap_edge.runtime.inputs import microphone as microphone_module
from rap_edge.runtime.inputs import portaudio
from rap_edge.runtime.inputs.microphone import Microphone
from rap_edge.runtime.inputs.portaudio import find_again, find_input

RATE = 16000


class Sound:
    """A sound system whose microphones each say a level of their own: (name, host, level), in PortAudio's order."""

    class PortAudioError(Exception):
        pass

    def __init__(self, *devices: tuple[str, int, float]) -> None:
        self.now = list(devices)
        self.known = list(devices)
        self.streams: list[Any] = []

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [{"name": "MME"}, {"name": "WASAPI"}]

    def query_devices(self, kind: str | None = None) -> Any:
        found = [
            {"index": at, "name": name, "hostapi": host, "max_input_channels": 1, "default_samplerate": RATE}
            for at, (name, host, _) in enumerate(self.known)
        ]
        return found if kind is None else found[0]

    def _terminate(self) -> None:
        pass

    def _initialize(self) -> None:
        self.known = list(self.now)

    def replug(self, *devices: tuple[str, int, float]) -> None:
        """Other devices are there from now on; every stream ends."""
        self.now = list(devices)
        for stream in self.streams:
            stream.active = False

    def InputStream(self, *, device: int, callback: Callable[..., None], **_: object) -> Any:  # noqa: N802
        level = self.known[device][2]
        samples = np.full((RATE // 10, 1), level, np.float32)
        stream = SimpleNamespace(active=True, close=lambda _=False: None)
        stream.start = lambda: callback(samples, len(samples), None, None)
        self.streams.append(stream)
        return stream


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sound]]:
    def plug(*devices: tuple[str, int, float]) -> Sound:
        sound = Sound(*devices)
        monkeypatch.setattr(portaudio, "sounddevice", lambda: sound)
        monkeypatch.setattr(microphone_module, "sounddevice", lambda: sound)
        return sound

    monkeypatch.setattr(microphone_module, "_FIRST_PAUSE", 0.01)
    return plug


def heard_after(microphone: Microphone, change: Callable[[], None], seconds: float = 0.6) -> set[float]:
    """The levels that are heard after `change`, but silence."""
    blocks: list[np.ndarray] = []
    reader = threading.Thread(target=lambda: blocks.extend(microphone))
    reader.start()
    time.sleep(0.1)
    before = len(blocks)
    change()
    time.sleep(seconds)
    microphone.close()
    reader.join(10)
    return {round(float(level), 3) for block in blocks[before:] for level in np.unique(block)} - {0.0}


def test_a_name_that_two_microphones_have_is_refused_and_their_indices_are_told(plug: Callable[..., Sound]) -> None:
    plug(("Built-in", 0, 0.1), ("USB Audio", 0, 0.2), ("USB Audio", 0, 0.3))
    for name in ("USB Audio", "usb"):
        with pytest.raises(AudioError, match=r"called 'USB Audio'; pass the index of one \(1, 2\)"):
            find_input(name)
    assert [find_input(index).index for index in "012"] == [0, 1, 2]


def test_one_microphone_in_two_sound_systems_is_taken_from_the_first(plug: Callable[..., Sound]) -> None:
    plug(("USB Audio", 0, 0.2), ("USB Audio", 1, 0.2))
    assert find_input("USB Audio").host == "MME"
    assert find_input("1").host == "WASAPI"
    again = find_again(find_input("1"))
    assert again is not None
    assert again.host == "WASAPI"


@pytest.mark.parametrize(
    "left", [[("USB Audio", 0, 0.2)], [("USB Audio", 0, 0.2), ("USB Audio", 0, 0.3)]], ids=["gone", "back"]
)
def test_the_twin_of_a_microphone_that_went_is_never_opened_in_its_place(
    plug: Callable[..., Sound], left: list[tuple[str, int, float]]
) -> None:
    sound, notices = plug(("USB Audio", 0, 0.2), ("USB Audio", 0, 0.3)), []
    microphone = Microphone("1", on_notice=notices.append)
    assert heard_after(microphone, lambda: sound.replug(*left)) == set()
    assert [("gone" in notice, "cannot be told" in notice) for notice in notices] == [(True, False), (False, True)]


def test_a_microphone_that_was_alone_is_not_mistaken_for_one_of_two(plug: Callable[..., Sound]) -> None:
    sound, notices = plug(("USB Audio", 0, 0.2)), []
    microphone = Microphone("USB Audio", on_notice=notices.append)
    two = [("USB Audio", 0, 0.3), ("USB Audio", 0, 0.2)]
    assert heard_after(microphone, lambda: sound.replug(*two)) == set()
    assert "cannot be told" in notices[1]


def test_a_microphone_comes_back_under_another_index(plug: Callable[..., Sound]) -> None:
    sound, notices = plug(("USB Audio", 0, 0.2), ("Built-in", 0, 0.1)), []
    microphone = Microphone("0", on_notice=notices.append)
    assert heard_after(microphone, lambda: sound.replug(("Built-in", 0, 0.1), ("USB Audio", 0, 0.2))) == {0.2}
    assert "is back" in notices[1]
