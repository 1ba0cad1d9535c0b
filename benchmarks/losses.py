"""What is left when the process is killed, the disk is full, or a source or a sink goes away in mid-stream."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from streams import RATE, EndlessSpeech, Nowhere, handles

from rap_edge.runtime import AudioError, Avatar, OutputError, RapEdgeError, SilentSpeaker, play
from rap_edge.runtime.outputs.mp4_writer import Mp4Writer
from rap_edge.runtime.outputs.protocols import Showing
from rap_edge.runtime.outputs.render import render

OLDER = b"the older video"


def kill(bundle: str, folder: Path) -> bool:
    """Kill rap-run in mid-stream; what it wrote must play, and a new run must work."""
    noise = np.random.default_rng(0).integers(-9000, 9000, 2 * RATE).astype("<i2").tobytes()
    command = [*_rap_run(bundle), "--audio", "-", "-o", "out.mp4"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=folder, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    for _ in range(10):
        process.stdin.write(noise)
        process.stdin.flush()
    end = time.monotonic() + 60
    while (found := _frames(folder.glob(".out.mp4.*.part"))) < 100 and time.monotonic() < end:
        time.sleep(0.2)
    process.kill()
    process.wait()
    process.stdin.close()
    left = _frames(folder.glob(".out.mp4.*.part"))
    again = subprocess.run(command, input=noise, cwd=folder, capture_output=True)
    complete = _frames(folder.glob("out.mp4"))
    print(f"killed            after {found} frames; {left} frames of the unfinished file play")
    print(f"started again     status {again.returncode}, {complete} frames")
    return verdict("the rest plays and a restart works", left >= 100 and again.returncode == 0 and complete == 50)


def disk(bundle: str, folder: Path) -> bool:
    """Let the disk be full in mid-stream; the older video must stay, and the reason be one sentence."""
    (folder / "out.mp4").write_bytes(OLDER)
    noise = np.random.default_rng(0).integers(-9000, 9000, 60 * RATE).astype("<i2").tobytes()

    def full() -> None:
        # A write beyond the limit fails as one on a full disk does.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [*_rap_run(bundle), "--audio", "-", "-o", "out.mp4"]
    done = subprocess.run(command, input=noise, cwd=folder, capture_output=True, preexec_fn=full)
    said = done.stderr.decode().strip().splitlines()[-1]
    print(f"status            {done.returncode}: {said}")
    kept = _only_the_older(folder)
    return verdict("one sentence, the older video as it was, nothing beside it", done.returncode == 2 and kept)


class LostSource(EndlessSpeech):
    """A microphone that is gone for good after two seconds of sound."""

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        blocks = super().__iter__()
        yield from (next(blocks) for _ in range(2))
        raise AudioError("The microphone is gone; connect it and start again.")


class LostSpeaker(SilentSpeaker):
    """A loudspeaker that is gone for good after ten blocks."""

    blocks = 0

    def write(self, samples: NDArray[np.float32]) -> None:
        self.blocks += 1
        if self.blocks > 10:
            raise OutputError("The loudspeaker is gone; connect it and start again.")
        super().write(samples)


class LostDisplay(Nowhere):
    """A display that is gone for good after ten frames."""

    def show(self, frame: NDArray[np.uint8], showing: Showing) -> None:
        super().show(frame, showing)
        if self.frames > 10:
            raise OutputError("The display is gone; connect it and start again.")


def devices(bundle: str, folder: Path) -> bool:
    """Lose a source, a loudspeaker, a display and a recording's source; the same avatar must speak on."""
    video = folder / "out.mp4"
    video.write_bytes(OLDER)
    with Avatar.open(bundle, threads=1) as avatar:
        losses: dict[str, Callable[[], object]] = {
            "microphone": lambda: play(avatar, LostSource(60), SilentSpeaker(RATE), Nowhere()),
            "loudspeaker": lambda: play(avatar, EndlessSpeech(60), LostSpeaker(RATE), Nowhere()),
            "display": lambda: play(avatar, EndlessSpeech(60), SilentSpeaker(RATE), LostDisplay()),
            "recording": lambda: _record(avatar, LostSource(60), video),
        }
        play(avatar, EndlessSpeech(1), SilentSpeaker(RATE), Nowhere())
        before, unsaid = handles(), []
        for name, lose in losses.items():
            try:
                lose()
                unsaid.append(name)
            except RapEdgeError as error:
                print(f"{name:<17} {error}")
        kept = _only_the_older(folder)
        after = handles()
        times = play(avatar, EndlessSpeech(3), SilentSpeaker(RATE), Nowhere())
        _record(avatar, EndlessSpeech(2), video)
    print(f"files, threads    {before[0]}, {before[1]} before; {after[0]}, {after[1]} after")
    recorded = _frames(iter([video]))
    print(f"afterwards        {times.frames} frames shown and {recorded} recorded by the same avatar")
    good = not unsaid and kept and after == before and times.frames > 0 and recorded == 50
    return verdict("each loss is said, nothing is left behind, the avatar speaks on", good)


def verdict(what: str, passed: bool) -> bool:
    """Print the last line of a check."""
    print(f"{'pass' if passed else 'FAIL':<17} {what}")
    return passed


def _record(avatar: Avatar, source: EndlessSpeech, path: Path) -> None:
    with Mp4Writer.for_source(path, avatar.spec, source) as writer:
        render(avatar, source, writer)


def _only_the_older(folder: Path) -> bool:
    names = sorted(path.name for path in folder.iterdir())
    return names == ["out.mp4"] and (folder / "out.mp4").read_bytes() == OLDER


def _rap_run(bundle: str) -> list[str]:
    return [sys.executable, "-m", "rap_edge.runtime.cli.run", "--bundle", bundle, "--threads", "1"]


def _frames(paths: Iterator[Path]) -> int:
    """Frames that a player gets out of the first of `paths`."""
    path = next(paths, None)
    if path is None:
        return 0
    try:
        with av.open(str(path)) as file:
            return sum(1 for _ in file.decode(video=0))
    except (av.FFmpegError, IndexError):
        return 0
