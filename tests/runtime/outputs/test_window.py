"""A real SDL window on a real X server without a screen, and a real SDL sound output without a loudspeaker."""

import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.media.virtual_screen import SCREEN

from rap_edge.runtime.errors import OutputError
from rap_edge.runtime.inputs.picture.portrait import load_portrait
from rap_edge.runtime.outputs.loudspeaker import Loudspeaker
from rap_edge.runtime.outputs.protocols import Showing
from rap_edge.runtime.outputs.virtual_camera import VirtualCamera
from rap_edge.runtime.outputs.window import Window
from rap_edge.runtime.session.chunk import Mark

pytest.importorskip("sdl2", reason="PySDL2 is not installed")
RED, GREEN, AMBER = (200, 30, 30), (30, 180, 60), (255, 176, 32)


@pytest.fixture
def silent_device(monkeypatch):
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")


def screenshot(folder: Path) -> np.ndarray:
    path = folder / "screen.png"
    subprocess.run(["import", "-window", "root", str(path)], check=True)
    return load_portrait(path, SCREEN)


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return result


def press(key):
    subprocess.run(["xdotool", "key", key], check=True)


def two_halves(size):
    frame = np.empty((size, size, 3), np.uint8)
    frame[:, : size // 2], frame[:, size // 2 :] = RED, GREEN
    return frame


def near(pixel, color):
    return np.abs(pixel.astype(int) - color).max() <= 8


def pixels(picture, color):
    """How many of them have that colour."""
    return int((np.abs(picture.astype(int) - color).max(-1) <= 8).sum())


def test_a_frame_fills_the_window_and_keeps_its_colours_and_its_sides(screen, tmp_path):
    window = Window(256)
    try:
        for _ in range(5):
            window.show(two_halves(256), Showing(0.0, Mark.GOOD))
            window.poll()
            time.sleep(0.05)
        seen = screenshot(tmp_path)
    finally:
        window.close()
    middle = SCREEN // 2
    assert near(seen[middle, middle - 100], RED)
    assert near(seen[middle, middle + 100], GREEN)
    # 256 pixels are shown at 512.
    assert near(seen[middle - 180, middle - 200], RED)
    assert 0.98 < pixels(seen, RED) / (256 * 512) < 1.02


def test_a_held_frame_wears_an_amber_bar_and_a_good_one_does_not(screen, tmp_path):
    window = Window(256)
    try:
        seen = {}
        for mark in (Mark.GOOD, Mark.HELD):
            for _ in range(5):
                window.show(two_halves(256), Showing(0.0, mark))
                window.poll()
                time.sleep(0.05)
            seen[mark] = screenshot(tmp_path)
    finally:
        window.close()
    assert pixels(seen[Mark.HELD], AMBER) > 5 * 512
    assert pixels(seen[Mark.GOOD], AMBER) == 0


def test_f_fills_the_screen_and_escape_leaves_it_before_it_closes(screen, tmp_path):
    window = Window(256)
    frame = np.full((256, 256, 3), GREEN, np.uint8)

    def shown():
        window.show(frame, Showing(0.0, Mark.GOOD))
        return window.poll()

    def corner_is_green():
        return shown() and near(screenshot(tmp_path)[5, 5], GREEN)

    try:
        assert until(shown)
        assert not corner_is_green()
        press("f")
        assert until(corner_is_green)
        press("Escape")
        assert until(lambda: shown() and not corner_is_green())
        press("Escape")
        assert until(lambda: not window.poll())
    finally:
        window.close()
        window.close()


def test_without_a_display_the_window_says_what_to_do_instead(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    with pytest.raises(OutputError, match=r"no display.*-o out\.mp4"):
        Window(256)


def test_the_speaker_hears_what_was_written_at_the_pace_of_the_device(silent_device):
    speaker = Loudspeaker(16000, 1)
    try:
        assert speaker.played == 0.0
        started = time.monotonic()
        speaker.write(np.zeros((8000, 1), np.float32))
        seen = []
        while speaker.played < 0.5 - 1e-6 and time.monotonic() - started < 5.0:
            seen.append((time.monotonic() - started, speaker.played))
            time.sleep(0.01)
        taken = time.monotonic() - started
    finally:
        speaker.close()
        speaker.close()
    heard = [played for _, played in seen]
    assert heard == sorted(heard)
    assert speaker.played == pytest.approx(0.5)
    # A device starts late, and its last buffer is heard after it was taken; it never plays faster than time passes.
    assert all(played <= passed for passed, played in seen)
    assert 0.45 < taken < 2.0


def test_the_speaker_stands_still_when_nothing_is_queued(silent_device):
    speaker = Loudspeaker(16000, 2)
    try:
        speaker.write(np.zeros((800, 2), np.float32))
        assert until(lambda: speaker.played >= 0.05 - 1e-6)
        time.sleep(0.2)
        assert speaker.played == pytest.approx(0.05)
    finally:
        speaker.close()


def test_without_a_sound_device_the_speaker_says_so(monkeypatch):
    monkeypatch.setenv("SDL_AUDIODRIVER", "disk")
    monkeypatch.setenv("SDL_DISKAUDIOFILE", "/nonexistent/folder/sound.raw")
    with pytest.raises(OutputError, match="no sound output"):
        Loudspeaker()


def test_without_a_virtual_camera_the_sentence_says_how_to_get_one():
    pytest.importorskip("pyvirtualcam", reason="pyvirtualcam is not installed")
    with pytest.raises(OutputError, match="no virtual camera"):
        VirtualCamera(256, 25, device="/dev/video-that-is-not-there")
