"""The arguments of `rap-run`, in groups: the model, where sound comes from, where the picture goes, the run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, get_args

from ..checks.bounds import SEEDS, Whole, argument
from ..engines.registry import BACKENDS
from ..inputs.pcm_pipe import FORMATS
from ..inputs.portaudio import input_devices
from ..inputs.resampler import MAX_RATE, MIN_RATE
from ..inputs.wav_header import CHANNELS
from ..machine.available import THREADS
from ..spec import LATENCY, STEPS, AudioEncodeMode, Crop


def parser() -> argparse.ArgumentParser:
    """The parser of `rap-run`."""
    made = argparse.ArgumentParser(
        prog="rap-run",
        description="Make a portrait speak: bundle + speech + picture -> a video or a window, and a report.",
    )
    add_model(made)
    made.add_argument("--portrait", metavar="IMG", help="a picture file (default: the bundle's own)")
    add_portrait_use(made)
    _source(made)
    _sink(made)
    _run(made)
    return made


def add_model(made: argparse.ArgumentParser) -> None:
    """Add what says which bundle is run by which engines; `require_model` and `engine_set.open_model` go with it."""
    made.add_argument("--bundle", metavar="DIR", help="folder that rap-export wrote")
    add_engine(made)
    made.add_argument("--fallback", action="store_true", help="go on with ONNX Runtime where the plans cannot run")


def add_portrait_use(made: argparse.ArgumentParser) -> None:
    """Add what of a picture is taken, and what refuses one that the model cannot draw."""
    made.add_argument(
        "--crop",
        choices=get_args(Crop),
        default="auto",
        help="of a picture: auto brings a badly placed face where the model wants it (pip install 'rap-edge[face]'), "
        "face insists on one, centre is the middle square, none is all of it (default: %(default)s)",
    )
    made.add_argument("--strict-portrait", action="store_true", help="refuse a picture that the model cannot draw well")


def add_engine(made: argparse.ArgumentParser) -> None:
    """Add what runs a bundle; it means the same in every program, see `find_set`."""
    names = ", ".join(BACKENDS)
    made.add_argument(
        "--engine",
        metavar="FILE|NAME",
        help=f"a plan, whose whole set is used and whose bundle need not be named; or a set's name: {names}",
    )


def add_threads(made: argparse.ArgumentParser) -> None:
    """Add how many threads an engine takes."""
    made.add_argument(
        "--threads",
        type=argument(THREADS),
        metavar="N",
        help="threads per engine (default: every core that it may use)",
    )


def require_model(made: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse to go without a bundle, as argparse does."""
    if arguments.bundle is None and arguments.engine is None:
        made.error("one of the arguments --bundle --engine is required")


def check(made: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together, as argparse does."""
    require_model(made, arguments)
    piped = arguments.audio == "-"
    shown = arguments.window or arguments.virtual_camera or (arguments.mic and arguments.output is None)
    if arguments.device is not None and not arguments.mic:
        made.error("--device goes with --mic")
    if arguments.format is not None and not piped:
        made.error("--format goes with --audio -")
    if (arguments.rate or arguments.channels) and not (piped or arguments.mic):
        made.error("--rate and --channels go with --audio - or --mic; a file states its own")
    if arguments.fragmented and shown:
        made.error("--fragmented goes with -o")
    if arguments.full_screen and not (arguments.window or arguments.mic):
        made.error("--full-screen goes with --window")
    if arguments.audio_encode_mode == "once" and (piped or arguments.mic or shown):
        made.error("--audio-encode-mode once goes with --audio FILE and -o: it needs the end of the sound first")


def _source(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("sound")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--audio", metavar="FILE", help="a sound file, 1 kHz to 768 kHz; - is WAV or raw PCM on stdin")
    source.add_argument("--mic", action="store_true", help="a microphone, until Ctrl-C")
    group.add_argument("--device", metavar="NAME", help="which microphone: name, part of a name or index")
    group.add_argument("--list-devices", action=_ListDevices, help="show the microphones and exit")
    group.add_argument(
        "--rate",
        type=argument(Whole(MIN_RATE, MAX_RATE, "Hz")),
        metavar="HZ",
        help="of stdin (default 16000) or the microphone",
    )
    group.add_argument(
        "--channels", type=argument(CHANNELS), metavar="N", help="of stdin or the microphone (default 1)"
    )
    group.add_argument("--format", choices=list(FORMATS), help="of stdin (default s16le)")
    group.add_argument(
        "--audio-encode-mode",
        choices=get_args(AudioEncodeMode),
        default="stream",
        help="of a file: once encodes all of it before the first chunk, with a bundle exported likewise (default: "
        "%(default)s, a rolling window for every chunk)",
    )


def _sink(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("picture")
    sink = group.add_mutually_exclusive_group()
    sink.add_argument(
        "-o", "--output", metavar="MP4", help="a video (default: <audio's name>.mp4, here; with --mic a window)"
    )
    group.add_argument(
        "--fragmented", action="store_true", help="leave the video in fragments: constant memory over many hours"
    )
    sink.add_argument("--window", action="store_true", help="a window with sound; Esc closes it, f fills the screen")
    sink.add_argument("--virtual-camera", action="store_true", help="a webcam for other programs, without sound")
    group.add_argument("--full-screen", action="store_true", help="the window fills the screen from the start")
    group.add_argument("--mute", action="store_true", help="a window without sound")


def _run(made: argparse.ArgumentParser) -> None:
    made.add_argument("--report", metavar="JSON", help="write the report here too")
    made.add_argument(
        "--seed", type=argument(SEEDS), default=0, help="of the noise; the same seed gives the same frames"
    )
    made.add_argument(
        "--steps", type=argument(STEPS), metavar="N", help="denoise steps per chunk (default: the bundle's)"
    )
    made.add_argument(
        "--latency",
        type=argument(LATENCY),
        metavar="SECONDS",
        help="chunks of at most this length (default: the bundle's)",
    )
    add_threads(made)
    made.add_argument(
        "--selftest", action="store_true", help="play the bundle's golden clip and compare; see rap-run --selftest -h"
    )


class _ListDevices(argparse.Action):
    """Shows the microphones and exits, without asking for the arguments of a run."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **more)

    def __call__(self, made: argparse.ArgumentParser, *_: object) -> None:
        devices = input_devices()
        if not devices:
            made.exit(0, "No microphone was found.\n")
        print(f"  {'index':>5}  {'channels':>8}  {'rate':>6}  name")
        for device in devices:
            mark = "*" if device.default else " "
            print(f"{mark} {device.index:>5}  {device.channels:>8}  {device.rate:>6}  {device.name}, {device.host}")
        made.exit()
