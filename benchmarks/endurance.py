"""Endurance: does memory grow, does anything leak, and what is left when the process or the disk goes.

    python benchmarks/endurance.py memory --hours 4              # the tiny test model, frames thrown away
    python benchmarks/endurance.py memory --hours 4 --sink mp4
    python benchmarks/endurance.py memory --hours 0.1 --bundle build/nano-fp32
    python benchmarks/endurance.py sessions --count 1000
    python benchmarks/endurance.py kill
    python benchmarks/endurance.py disk

Every command prints its figures and exits with 1 if a limit is passed. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from rap_edge.runtime import Avatar
from rap_edge.runtime.progress import Progress
from rap_edge.runtime.render import render
from rap_edge.runtime.report import RunMeter
from rap_edge.runtime.soundtrack import Soundtrack
from rap_edge.runtime.video import AAC_RATES, Mp4Writer

# The tiny model is a test's: its graphs are written by hand.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

GROWTH_MB = 20.0
WARM_UP = 0.05
SESSIONS_WARM_UP = 100
RATE = 16000


class EndlessSpeech:
    """A source of `seconds` of noise in bursts of two seconds, with pauses between."""

    rate, channels, live = RATE, 1, False

    def __init__(self, seconds: float, on_block: Callable[[float], None]) -> None:
        self.duration = seconds
        self._on_block = on_block
        self._noise = np.random.default_rng(0).uniform(-0.3, 0.3, RATE).astype(np.float32)[:, None]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for second in range(int(self.duration)):
            self._on_block(second / self.duration)
            yield self._noise * np.float32(second % 3 != 2)

    def close(self) -> None:
        """Nothing to let go of."""


class Nowhere:
    """A sink that counts."""

    frames = 0

    def write(self, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
        self.frames += len(frames)

    def close(self) -> None:
        """Nothing to complete."""


def resident_mb() -> float:
    """Resident memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def open_files() -> int:
    """File descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def memory(bundle: str, hours: float, sink: str, folder: Path) -> bool:
    """Stream for so many simulated hours, as fast as the machine allows."""
    samples: list[tuple[float, float]] = []
    with Avatar.open(bundle, threads=1) as avatar, Progress("streaming", 3600 * hours, "s") as progress:

        def sample(share: float) -> None:
            if share >= len(samples) / 200:
                samples.append((share, resident_mb()))
            progress.update(share * 3600 * hours)

        spec, source = avatar.spec, EndlessSpeech(3600 * hours, sample)
        soundtrack, meter = Soundtrack(RATE, 1, AAC_RATES), RunMeter(avatar.spec.chunk_seconds)
        started = time.perf_counter()
        if sink == "mp4":
            with Mp4Writer(folder / "long.mp4", spec.image_size, spec.fps, RATE, 1) as writer:
                render(avatar, source, soundtrack, writer, meter)
                frames = writer.frames
        else:
            nowhere = Nowhere()
            render(avatar, source, soundtrack, nowhere, meter)
            frames = nowhere.frames
        seconds = time.perf_counter() - started
    warm = max(mb for share, mb in samples if share <= WARM_UP)
    growth = max(mb for _, mb in samples) - warm
    quarters = [max(mb for share, mb in samples if share <= quarter / 4) for quarter in (1, 2, 3, 4)]
    print(f"model             {spec.name}, sink {sink}")
    print(f"streamed          {hours:g} h, {frames} frames in {seconds:.0f} s")
    print(f"resident          {warm:.1f} MiB after {WARM_UP:.0%}, then {', '.join(f'{mb:.1f}' for mb in quarters)}")
    return _verdict(f"growth {growth:.1f} MiB, limit {GROWTH_MB:g}", growth < GROWTH_MB)


def sessions(bundle: str, count: int) -> bool:
    """Open a session, render a chunk and close it, many times."""
    pcm = np.random.default_rng(0).uniform(-0.3, 0.3, RATE).astype(np.float32)
    with Avatar.open(bundle, threads=1) as avatar, Progress("sessions", count) as progress:
        before = (0.0, 0, 0)
        for index in range(count):
            if index == min(SESSIONS_WARM_UP, count // 2):
                before = (resident_mb(), open_files(), threading.active_count())
            with avatar.session(seed=index) as session:
                session.push(pcm)
                chunks = list(session.chunks())
            assert chunks
            progress.update(index + 1)
        after = (resident_mb(), open_files(), threading.active_count())
    names = ("MiB", "files", "threads")
    print(f"sessions          {count} of {avatar.spec.name}")
    print(f"after warm-up     {', '.join(f'{value:.0f} {name}' for value, name in zip(before, names, strict=True))}")
    print(f"at the end        {', '.join(f'{value:.0f} {name}' for value, name in zip(after, names, strict=True))}")
    growth = after[0] - before[0]
    clean = growth < GROWTH_MB and after[1:] == before[1:]
    return _verdict(f"growth {growth:.1f} MiB, limit {GROWTH_MB:g}; no file and no thread more", clean)


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
    left = _frames(folder.glob(".out.mp4.*.part"))
    again = subprocess.run(command, input=noise, cwd=folder, capture_output=True)
    complete = _frames(folder.glob("out.mp4"))
    print(f"killed            after {found} frames; {left} frames of the unfinished file play")
    print(f"started again     status {again.returncode}, {complete} frames")
    return _verdict("the rest plays and a restart works", left >= 100 and again.returncode == 0 and complete == 50)


def disk(bundle: str, folder: Path) -> bool:
    """Let the disk be full in mid-stream; the older video must stay, and the reason be one sentence."""
    (folder / "out.mp4").write_bytes(b"the older video")
    noise = np.random.default_rng(0).integers(-9000, 9000, 60 * RATE).astype("<i2").tobytes()

    def full() -> None:
        # A write beyond the limit fails as one on a full disk does.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [*_rap_run(bundle), "--audio", "-", "-o", "out.mp4"]
    done = subprocess.run(command, input=noise, cwd=folder, capture_output=True, preexec_fn=full)
    said = done.stderr.decode().strip().splitlines()[-1]
    print(f"status            {done.returncode}: {said}")
    left = sorted(path.name for path in folder.iterdir())
    kept = (folder / "out.mp4").read_bytes() == b"the older video" and left == ["out.mp4"]
    return _verdict("one sentence, the older video as it was, nothing beside it", done.returncode == 2 and kept)


def _rap_run(bundle: str) -> list[str]:
    return [sys.executable, "-m", "rap_edge.runtime.cli", "--bundle", bundle, "--threads", "1"]


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


def _verdict(what: str, passed: bool) -> bool:
    print(f"{'pass' if passed else 'FAIL':<17} {what}")
    return passed


def main() -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("memory", "sessions", "kill", "disk"))
    parser.add_argument("--bundle", help="a bundle (default: the tests' tiny model)")
    parser.add_argument("--hours", type=float, default=4.0, help="of audio (default 4)")
    parser.add_argument("--sink", choices=("none", "mp4"), default="none", help="where frames go (default none)")
    parser.add_argument("--count", type=int, default=1000, help="sessions (default 1000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = folder / "work"
        work.mkdir()
        bundle = arguments.bundle and str(Path(arguments.bundle).resolve())
        if bundle is None:
            from tiny_bundle import write_tiny_bundle

            bundle = str(write_tiny_bundle(folder / "tiny"))
        passed = {
            "memory": lambda: memory(bundle, arguments.hours, arguments.sink, work),
            "sessions": lambda: sessions(bundle, arguments.count),
            "kill": lambda: kill(bundle, work),
            "disk": lambda: disk(bundle, work),
        }[arguments.what]()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
