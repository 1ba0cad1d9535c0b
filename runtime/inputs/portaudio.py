"""PortAudio through sounddevice: what the system can record with, found when asked for and not before."""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..checks.needs import Need
from ..errors import AudioError

_INSTALL = "install it with: pip install 'rap-edge[mic]'"
_LIBRARY = "install it, on Debian with: apt-get install libportaudio2"
_CLOSING = 1.0
_stderr_lock = threading.Lock()


@dataclass(frozen=True)
class InputDevice:
    """A device that can record.

    Attributes:
        index: PortAudio's number, valid until devices come or go.
        name: as the system calls it.
        host: the sound system that offers it, such as "ALSA".
        channels: at most so many.
        rate: its own samples per second.
        default: the system's choice.
        twins: other devices that the same sound system calls by the same name.
    """

    index: int
    name: str
    host: str
    channels: int
    rate: int
    default: bool
    twins: int = 0


class TwinInputsError(AudioError):
    """A microphone cannot be told from others of its name."""


def sounddevice() -> Any:
    """The module, imported on first use.

    Raises:
        AudioError: sounddevice or the PortAudio library is not installed.
    """
    try:
        import sounddevice as module
    except ModuleNotFoundError:
        raise AudioError(f"Recording needs the package sounddevice; {_INSTALL}.") from None
    except OSError as error:
        raise AudioError(f"Recording needs the PortAudio library, which was not found ({error}); {_LIBRARY}.") from None
    return module


def has_library(load: Callable[[str], Any] = ctypes.CDLL) -> bool:
    """Whether PortAudio's library is here; outside Linux it comes with sounddevice."""
    if sys.platform != "linux":
        return True
    try:
        load("libportaudio.so.2")
    except OSError:
        return False
    return True


def input_needs(name: str | None) -> tuple[Need, ...]:
    """What recording from that device needs, in the order in which to install or connect it."""
    if importlib.util.find_spec("sounddevice") is None:
        return (sounddevice, _library)
    return (partial(find_input, name),)


def _library() -> None:
    if not has_library():
        raise AudioError(f"Recording needs the PortAudio library, which was not found; {_LIBRARY}.")


def input_devices() -> list[InputDevice]:
    """Every device that can record now.

    Raises:
        AudioError: sounddevice or PortAudio is not installed, or the sound system gives no answer.
    """
    sd = sounddevice()
    try:
        hosts = [host["name"] for host in sd.query_hostapis()]
        devices = [device for device in sd.query_devices() if device["max_input_channels"] > 0]
        chosen = _default_index(sd)
        names = Counter((device["hostapi"], device["name"]) for device in devices)
        return [
            InputDevice(
                index=device["index"],
                name=device["name"],
                host=hosts[device["hostapi"]],
                channels=device["max_input_channels"],
                rate=round(device["default_samplerate"]),
                default=device["index"] == chosen,
                twins=names[device["hostapi"], device["name"]] - 1,
            )
            for device in devices
        ]
    except sd.PortAudioError as error:
        raise AudioError(f"The sound system does not list its devices ({error}); check that it runs.") from None


def find_input(name: str | None) -> InputDevice:
    """The device of that name, index or part of a name (in any case); None takes the system's choice.

    Of a device that several sound systems offer the first one's is taken.

    Raises:
        AudioError: there is none, several have it in their names, or, as a `TwinInputsError`, several have this name.
    """
    devices = input_devices()
    if not devices:
        raise AudioError("No microphone was found; connect one, and check that the sound system runs.")
    if name is None:
        return next((device for device in devices if device.default), devices[0])
    numbered = [device for device in devices if name == str(device.index)]
    if numbered:
        return numbered[0]
    found = [device for device in devices if name == device.name]
    found = found or [device for device in devices if name.lower() in device.name.lower()]
    if len({device.name for device in found}) > 1:
        names = ", ".join(repr(device.name) for device in found)
        raise AudioError(f"{name!r} fits several microphones ({names}); pass a whole name or an index.")
    if not found:
        raise AudioError(f"No microphone is called {name!r}; rap-run --list-devices shows them.")
    if found[0].twins:
        same = ", ".join(str(device.index) for device in found if device.host == found[0].host)
        raise TwinInputsError(f"Several microphones are called {found[0].name!r}; pass the index of one ({same}).")
    return found[0]


def find_again(device: InputDevice) -> InputDevice | None:
    """The device that `device` was before devices came or went; None while it is away.

    Raises:
        AudioError: the sound system gives no answer.
        TwinInputsError: there is one of its name, and there are or were others.
    """
    found = [other for other in input_devices() if (other.host, other.name) == (device.host, device.name)]
    if not found:
        return None
    # Neither numbers nor order say which is which after one has gone: the one that is left may be the other.
    if device.twins or len(found) > 1:
        raise TwinInputsError(
            f"Microphone {device.name!r} cannot be told from others of its name, so none of them is opened in its "
            "place; start again with the index of one as --device."
        )
    return found[0]


def _default_index(sd: Any) -> int:
    try:
        return int(sd.query_devices(kind="input")["index"])
    except (sd.PortAudioError, ValueError):
        return -1


def rescan() -> None:
    """Make PortAudio look for devices again; every PortAudio stream of the process must be closed before."""
    sd = sounddevice()
    with quiet_stderr():
        sd._terminate()
        sd._initialize()


def close_stream(stream: Any) -> bool:
    """Close a stream; False if the sound system does not let go of it, in which case it is left to itself."""

    closing = threading.Thread(target=stream.close, args=(True,), name="close-stream", daemon=True)
    closing.start()
    closing.join(_CLOSING)
    if closing.is_alive():
        # At exit PortAudio would wait for this stream for ever.
        atexit.unregister(sounddevice()._exit_handler)
        return False
    return True


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep what PortAudio and ALSA print from C about a device that is not there away from the terminal."""
    with _stderr_lock:
        try:
            kept = os.dup(2)
        except OSError:
            yield
            return
        try:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 2)
            os.close(sink)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
