"""A screen without a monitor."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

SCREEN = 600
_TOOLS = ("Xvfb", "openbox", "xdotool", "import")


def missing_screen() -> str | None:
    """What looking at a window needs and this machine lacks."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"{missing[0]} is not installed, which looking at a window needs" if missing else None


@contextmanager
def x_server() -> Iterator[str]:
    """An X server of `SCREEN` x `SCREEN` pixels with a window manager; gives its DISPLAY."""
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", f"{SCREEN}x{SCREEN}x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    display = f":{server.stdout.readline().strip()}"
    # Full screen is something that a window manager gives.
    environment = os.environ | {"DISPLAY": display}
    manager = subprocess.Popen(["openbox"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_manager(environment)
        yield display
    finally:
        for process in (manager, server):
            process.terminate()
            process.wait()
        server.stdout.close()


def _wait_for_manager(environment: dict[str, str]) -> None:
    # A window that is opened while the manager starts may wait for ever to be shown.
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        if subprocess.run(["xdotool", "get_num_desktops"], env=environment, capture_output=True).returncode == 0:
            return
        time.sleep(0.05)
    raise TimeoutError("openbox did not start")
