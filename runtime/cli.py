"""`rap-run`: a bundle, a speech recording and a portrait to an mp4 with sound and a report."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from .audio import AudioFile, AudioWarning, read_audio
from .avatar import Avatar
from .bundle import Bundle
from .errors import OutputError, RapEdgeError
from .interrupt import held_interrupt
from .pending_file import PendingFile
from .portrait import PortraitWarning
from .progress import Progress
from .render import render
from .report import Report, RunMeter
from .selftest_cli import main as selftest
from .sink import Sink
from .soundtrack import Soundtrack
from .video import AAC_RATES, Mp4Writer

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        0 done; 1 the self-test failed; 2 something is wrong, said in one sentence on stderr; 130 stopped by Ctrl-C, the
            video so far is kept.
    """
    argv = sys.argv[1:] if argv is None else argv
    if "--selftest" in argv:
        return selftest(argv)
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except RapEdgeError as error:
        print(f"rap-run: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("rap-run: Stopped before the first frame; nothing was written.", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rap-run", description="Make a portrait speak: bundle + speech + picture -> mp4 with sound and a report."
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--bundle", metavar="DIR", help="folder that rap-export wrote")
    model.add_argument(
        "--engine", metavar="FILE", help="a plan or graph inside such a folder; its whole bundle is used"
    )
    parser.add_argument("--fallback", action="store_true", help="go on with ONNX Runtime where the plans cannot run")
    parser.add_argument("--audio", metavar="FILE", required=True, help="speech in any format, 1 kHz to 768 kHz")
    parser.add_argument("--portrait", metavar="IMG", help="PNG, JPEG, WebP or BMP (default: the bundle's own)")
    parser.add_argument("-o", "--output", metavar="MP4", help="the video (default: <audio's name>.mp4, here)")
    parser.add_argument("--report", metavar="JSON", help="write the report here too")
    parser.add_argument(
        "--selftest", action="store_true", help="play the bundle's golden clip and compare; see rap-run --selftest -h"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise; the same seed gives the same frames")
    parser.add_argument("--steps", type=int, metavar="N", help="denoise steps per chunk (default: the bundle's)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads per engine (default: every core)")
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _run(arguments: argparse.Namespace) -> int:
    bundle, engine = _open_bundle(arguments)
    output = Path(arguments.output or f"{Path(arguments.audio).stem}.mp4")
    _refuse_to_overwrite(output, arguments.audio, arguments.portrait, arguments.report)
    if arguments.report:
        _refuse_to_overwrite(Path(arguments.report), arguments.audio, arguments.portrait)
    spec = bundle.manifest.spec
    found: list[str] = []
    with (
        _collected_warnings(found),
        read_audio(arguments.audio) as source,
        PendingFile(arguments.report) if arguments.report else nullcontext() as report_file,
    ):
        soundtrack = Soundtrack(source.rate, source.channels, AAC_RATES)
        with Mp4Writer(output, spec.image_size, spec.fps, soundtrack.rate, soundtrack.channels) as writer:
            started = perf_counter()
            with Avatar.open(
                bundle,
                arguments.portrait,
                steps=arguments.steps,
                threads=arguments.threads,
                engine=engine,
                fallback=arguments.fallback,
            ) as avatar:
                load_seconds = perf_counter() - started
                found += avatar.notes
                meter = RunMeter(spec.chunk_seconds)
                complete = _render(avatar, source, soundtrack, writer, meter, arguments.seed)
                try:
                    with held_interrupt():
                        writer.close()
                except KeyboardInterrupt:
                    complete = False
                report = meter.report(
                    engine=avatar.engine,
                    precision=avatar.precision,
                    device=avatar.device,
                    load_seconds=load_seconds,
                    warnings=found,
                )
        if report_file is not None:
            report_file.write(report.to_json().encode() + b"\n")
            report_file.commit()
    _show(report, output, complete)
    return 0 if complete else EXIT_INTERRUPTED


def _open_bundle(arguments: argparse.Namespace) -> tuple[Bundle, str | None]:
    if arguments.bundle is not None:
        return Bundle.open(arguments.bundle), None
    return Bundle.containing(arguments.engine)


def _refuse_to_overwrite(output: Path, *others: str | None) -> None:
    for other in others:
        if other is not None and os.path.realpath(output) == os.path.realpath(other):
            raise OutputError(f"{str(output)!r} is both an output and another file of this run; pass another name.")


def _render(
    avatar: Avatar, source: AudioFile, soundtrack: Soundtrack, writer: Mp4Writer, meter: RunMeter, seed: int
) -> bool:
    """Whether the source was rendered to its end; False after Ctrl-C with frames to keep."""
    with Progress("rendering", source.duration, "s") as progress:
        try:
            render(avatar, source, soundtrack, _Whole(writer), meter, seed=seed, on_progress=progress.update)
        except KeyboardInterrupt:
            if writer.frames == 0:
                raise
            return False
    return True


class _Whole:
    """A sink whose writes are not torn by Ctrl-C, so that the file stays sound."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
        with held_interrupt():
            self._sink.write(frames, audio)

    def close(self) -> None:
        with held_interrupt():
            self._sink.close()


@contextmanager
def _collected_warnings(found: list[str]) -> Iterator[None]:
    """Collect our own warnings for the report and let all others pass."""
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
            found.append(str(message))
        else:
            shown(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", AudioWarning)
        warnings.simplefilter("always", PortraitWarning)
        warnings.showwarning = collect
        yield


def _show(report: Report, output: Path, complete: bool) -> None:
    print(report.to_table())
    print(f"{'video':<17} {str(output)!r}{'' if complete else ', stopped by Ctrl-C'}")


if __name__ == "__main__":
    sys.exit(main())
