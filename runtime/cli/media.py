"""What `rap-run` plays from and to: sources, displays and loudspeakers, chosen by its arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..checks.needs import Need
from ..errors import OutputError
from ..inputs.audio_file import AudioFile, read_audio
from ..inputs.microphone import Microphone
from ..inputs.pcm_pipe import PcmStream
from ..inputs.portaudio import input_needs
from ..outputs.loudspeaker import Loudspeaker
from ..outputs.protocols import Display, SilentSpeaker, Speaker
from ..outputs.virtual_camera import VirtualCamera
from ..outputs.window import Window, window_needs
from ..spec import ModelSpec
from .interrupt import ending_on_interrupt

AnySource = AudioFile | PcmStream | Microphone


def output_path(arguments: argparse.Namespace) -> Path | None:
    """The video to write, or None where the picture is shown."""
    if arguments.output is not None:
        return Path(arguments.output)
    if arguments.mic or arguments.window or arguments.virtual_camera:
        return None
    return Path("stdin.mp4" if arguments.audio == "-" else f"{Path(arguments.audio).stem}.mp4")


def media_needs(arguments: argparse.Namespace) -> tuple[Need, ...]:
    """What the microphone and the window that were asked for need of this machine."""
    windowed = output_path(arguments) is None and not arguments.virtual_camera
    return (*(input_needs(arguments.device) if arguments.mic else ()), *(window_needs() if windowed else ()))


@contextmanager
def opened_source(arguments: argparse.Namespace, notify: Callable[[str], None]) -> Iterator[AnySource]:
    """The sound; Ctrl-C ends a microphone, and what it has heard is still rendered.

    Raises:
        AudioError: it cannot be opened.
    """
    if arguments.mic:
        with (
            Microphone(arguments.device, arguments.rate, arguments.channels, on_notice=notify) as microphone,
            ending_on_interrupt(microphone.end),
        ):
            yield microphone
    elif arguments.audio == "-":
        with PcmStream(sys.stdin.fileno(), arguments.rate, arguments.channels, arguments.format) as stream:
            yield stream
    else:
        with read_audio(arguments.audio) as file:
            yield file


@contextmanager
def opened_display(
    arguments: argparse.Namespace, spec: ModelSpec, notify: Callable[[str], None]
) -> Iterator[tuple[Speaker, Display]]:
    """Where it is heard and seen; without a loudspeaker there is a notice, and the picture alone.

    Raises:
        OutputError: there is no display, or no virtual camera.
    """
    display: Display
    if arguments.virtual_camera:
        display = VirtualCamera(spec.image_size, spec.fps)
    else:
        display = Window(spec.image_size, full_screen=arguments.full_screen)
    speaker: Speaker | None = None
    try:
        speaker = _speaker(arguments, notify)
        yield speaker, display
    finally:
        if speaker is not None:
            speaker.close()
        display.close()


def _speaker(arguments: argparse.Namespace, notify: Callable[[str], None]) -> Speaker:
    if arguments.mute or arguments.virtual_camera:
        return SilentSpeaker()
    try:
        return Loudspeaker()
    except OutputError as error:
        notify(str(error))
        return SilentSpeaker()
