"""Microphones and loudspeakers without a sound card: ALSA's own plugins and a PulseAudio server of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_FILE_DEVICE = """
pcm.speechfile {{
    type file
    slave.pcm {{ type null }}
    file "/dev/null"
    infile "{infile}"
    format "raw"
}}
pcm.!default {{
    type plug
    slave {{ pcm "speechfile" format S16_LE rate {rate} channels {channels} }}
}}
ctl.!default {{ type null }}
"""
_PULSE_DEVICE = """
</usr/share/alsa/alsa.conf>
pcm.!default {{ type pulse server "unix:{socket}" device "virtual.monitor" }}
ctl.!default {{ type pulse server "unix:{socket}" }}
"""


def file_microphone(folder: Path, pcm: np.ndarray, rate: int) -> Path:
    """An ALSA configuration whose only devices play int16 [samples, channels], as fast as they are read."""
    infile, config = folder / "speech.raw", folder / "asound.conf"
    infile.write_bytes(pcm.astype("<i2").tobytes())
    config.write_text(_FILE_DEVICE.format(infile=infile, rate=rate, channels=pcm.shape[1]))
    return config


class PulseServer:
    """A PulseAudio server with one null sink, whose monitor is a microphone that keeps real time."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "asound.conf"
        self._socket = folder / "native"
        self.environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(folder),
            "HOME": str(folder),
            "PULSE_SERVER": f"unix:{self._socket}",
        }
        self.config.write_text(_PULSE_DEVICE.format(socket=self._socket))
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
        command += ["-L", f"module-native-protocol-unix socket={self._socket} auth-anonymous=1"]
        self._server = subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL)
        self._feed: subprocess.Popen[bytes] | None = None
        deadline = time.monotonic() + 20
        while not self._socket.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._module, self._voice = "", "virtual"

    def plug_in(self) -> None:
        """Make the microphone appear."""
        self._module = self.control("load-module", "module-null-sink", "sink_name=virtual", "rate=48000").strip()

    def unplug(self) -> None:
        """Take the microphone away, with every stream on it."""
        self.control("unload-module", self._module)
        self.be_quiet()

    def plug_in_headset(self) -> None:
        """Make a microphone appear that does not hear what is played, the default of both; `speak` says into it."""
        self._voice = "voice"
        self.control("load-module", "module-null-sink", "sink_name=voice", "rate=48000")
        self.control("load-module", "module-remap-source", "master=voice.monitor", "source_name=headset")
        self.control("set-default-sink", "virtual")
        self.control("set-default-source", "headset")

    def speak(self, pcm: np.ndarray, rate: int) -> None:
        """Say int16 [samples] into the microphone; also makes the null sink run at a low latency."""
        command = ["pacat", "--latency-msec=20", f"--rate={rate}", "--channels=1", "--format=s16le", "-d", self._voice]
        path = self.config.with_name("feed.raw")
        path.write_bytes(pcm.astype("<i2").tobytes())
        with path.open("rb") as feed:
            self._feed = subprocess.Popen(command, stdin=feed, env=self.environment, stderr=subprocess.DEVNULL)

    def be_quiet(self) -> None:
        if self._feed is not None:
            self._feed.kill()
            self._feed.wait()
            self._feed = None

    def control(self, *command: str) -> str:
        return subprocess.run(
            ["pactl", *command], env=self.environment, check=True, capture_output=True, text=True, timeout=20
        ).stdout

    def close(self) -> None:
        self.be_quiet()
        self._server.kill()
        self._server.wait()


def missing_pulse() -> str | None:
    """Why there is no PulseAudio here, or None."""
    missing = [tool for tool in ("pulseaudio", "pactl", "pacat") if shutil.which(tool) is None]
    return f"{', '.join(missing)} missing: apt-get install pulseaudio" if missing else None


@contextmanager
def pulse_server(folder: Path) -> Iterator[PulseServer]:
    """A server that runs during the block, with its microphone plugged in."""
    server = PulseServer(folder)
    try:
        server.plug_in()
        yield server
    finally:
        server.close()
