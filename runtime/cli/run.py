"""`rap-run`: a bundle, speech and a portrait to an mp4 with sound or a window, and a report."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from time import perf_counter
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from ..avatar import Avatar
from ..bundle.bundle import Bundle
from ..bundle.pending_file import PendingFile
from ..checks.needs import require
from ..engines.engine_set import open_model, set_needs
from ..inputs.convert import AudioWarning
from ..inputs.microphone import Microphone
from ..inputs.picture.portrait import PortraitWarning
from ..outputs.play import play
from ..outputs.protocols import Display, Sink, Speaker
from ..outputs.render import render
from ..outputs.sinks import FileSink, open_sink
from ..reports.run_report import Report, RunMeter
from ..session.overload import Overload
from ..spec import ModelSpec
from .arguments import check, parser
from .exit_status import INTERRUPTED, exit_status
from .interrupt import held_interrupt
from .media import AnySource, media_needs, opened_display, opened_source, output_path
from .overwriting import refuse_to_overwrite
from .progress import Progress, say
from .selftest import main as selftest


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        0 done; 1 the self-test failed; 2 something is wrong, said in one sentence on stderr; 130 stopped by Ctrl-C or
            SIGTERM, the video so far is kept.
    """
    words = sys.argv[1:] if argv is None else argv
    if "--selftest" in words:
        return selftest(words)
    return exit_status("rap-run", lambda: _start(words), "Stopped before the first frame; nothing was written.")


def _start(words: Sequence[str]) -> int:
    # Looking for microphones, as --list-devices does, may fail too.
    made = parser()
    arguments = made.parse_args(words)
    check(made, arguments)
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    bundle, engine = open_model(arguments.bundle, arguments.engine)
    spec = _spec(bundle, arguments)
    output = output_path(arguments)
    piped = arguments.audio == "-"
    inputs = (sys.stdin.fileno() if piped else arguments.audio, arguments.portrait)
    refuse_to_overwrite((output, arguments.report), bundle, inputs)
    require([*(() if arguments.fallback else set_needs(bundle, engine)), *media_needs(arguments)])
    found: list[str] = []

    def notify(sentence: str) -> None:
        say(f"rap-run: {sentence}")
        found.append(sentence)

    with (
        _told_warnings(notify),
        PendingFile(arguments.report) if arguments.report else nullcontext() as report_file,
        opened_source(arguments, notify) as source,
    ):
        if output is None:
            with opened_display(arguments, spec, notify) as (speaker, display):
                show = partial(_show, arguments=arguments, source=source, speaker=speaker, display=display)
                report, complete = _with_avatar(bundle, engine, arguments, found, notify, show)
        else:
            with open_sink(output, spec, source, fragmented=arguments.fragmented) as writer:
                write = partial(_write, arguments=arguments, source=source, writer=writer)
                report, complete = _with_avatar(bundle, engine, arguments, found, notify, write)
        try:
            if report_file is not None:
                report_file.write(report.to_json().encode() + b"\n")
                report_file.commit()
        finally:
            # Where only the report cannot be written, the video is there all the same.
            print(report.to_table())
            if output is not None:
                print(f"{'video':<17} {str(output)!r}{'' if complete else ', stopped early'}")
    if not complete:
        rest = "" if output is None else f"; the video so far is {str(output)!r}"
        print(f"rap-run: Stopped{rest}.", file=sys.stderr)
    return 0 if complete else INTERRUPTED


def _with_avatar(
    bundle: Bundle,
    engine: str | None,
    arguments: argparse.Namespace,
    found: list[str],
    notify: Callable[[str], None],
    use: Callable[[Avatar, RunMeter, list[str]], bool],
) -> tuple[Report, bool]:
    """Open the avatar, use it, and report; also whether it was used to the end."""
    say(f"rap-run: loading {str(bundle.root)!r} ...")
    started, spec = perf_counter(), _spec(bundle, arguments)
    with Avatar.open(
        bundle,
        arguments.portrait,
        steps=arguments.steps,
        new_latents=None if arguments.latency is None else spec.new_latents,
        threads=arguments.threads,
        engine=engine,
        fallback=arguments.fallback,
        strict_portrait=arguments.strict_portrait,
        crop=arguments.crop,
    ) as avatar:
        for note in (*avatar.notes, *filter(None, [avatar.portrait_fault])):
            notify(note)
        load_seconds = perf_counter() - started
        meter = RunMeter(spec, lambda note: say(f"rap-run: {note}"))
        complete = use(avatar, meter, found)
        report = meter.report(
            engine=avatar.engine,
            precision=avatar.precision,
            device=avatar.device,
            load_seconds=load_seconds,
            warnings=found,
            portrait=avatar.portrait_figures,
        )
    return report, complete


def _write(
    avatar: Avatar,
    meter: RunMeter,
    found: list[str],
    *,
    arguments: argparse.Namespace,
    source: AnySource,
    writer: FileSink,
) -> bool:
    """Render into the video; False if it was stopped with frames to keep."""
    complete = True
    overload = Overload() if source.live else None
    try:
        with Progress("rendering", source.duration, "s") as progress:
            more = {"seed": arguments.seed, "overload": overload, "meter": meter}
            more["audio_encode_mode"] = arguments.audio_encode_mode
            render(avatar, source, _Whole(writer), on_progress=progress.update, **more)
    except KeyboardInterrupt:
        if writer.frames == 0:
            raise
        complete = False
    if source.live and writer.frames == 0:
        raise KeyboardInterrupt
    found += _troubles(source)
    try:
        with held_interrupt():
            writer.close()
    except KeyboardInterrupt:
        complete = False
    return complete


def _show(
    avatar: Avatar,
    meter: RunMeter,
    found: list[str],
    *,
    arguments: argparse.Namespace,
    source: AnySource,
    speaker: Speaker,
    display: Display,
) -> bool:
    """Play in real time; False if it was stopped."""
    complete = True
    try:
        play(avatar, source, speaker, display, seed=arguments.seed, meter=meter)
    except KeyboardInterrupt:
        complete = False
    found += _troubles(source)
    return complete


def _troubles(source: AnySource) -> list[str]:
    return source.stats.sentences() if isinstance(source, Microphone) else []


def _spec(bundle: Bundle, arguments: argparse.Namespace) -> ModelSpec:
    spec = bundle.manifest.spec
    return spec if arguments.latency is None else spec.with_latency(arguments.latency)


class _Whole:
    """A sink whose writes are not torn by Ctrl-C or SIGTERM, so that the file stays sound."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.rate, self.channels = sink.rate, sink.channels

    def write(self, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
        with held_interrupt():
            self._sink.write(frames, audio)

    def close(self) -> None:
        with held_interrupt():
            self._sink.close()


@contextmanager
def _told_warnings(notify: Callable[[str], None]) -> Iterator[None]:
    """Give our own warnings to `notify` as they come and let all others pass."""
    shown = warnings.showwarning

    def collect(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, AudioWarning | PortraitWarning):
            notify(str(message))
        else:
            shown(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", AudioWarning)
        warnings.simplefilter("always", PortraitWarning)
        warnings.showwarning = collect
        yield


if __name__ == "__main__":
    sys.exit(main())
