"""Endurance: does memory grow, does anything leak, and what is left when a process, disk or device goes.

    python benchmarks/endurance.py memory --hours 4              # the tiny test model, frames thrown away
    python benchmarks/endurance.py memory --hours 4 --sink fragmented
    python benchmarks/endurance.py memory --hours 4 --sink mp4   # its index is kept in memory, and allowed for
    python benchmarks/endurance.py memory --hours 4 --sink live  # the player, in virtual time
    python benchmarks/endurance.py memory --hours 0.1 --bundle build/nano-fp32
    python benchmarks/endurance.py sessions --count 1000
    python benchmarks/endurance.py visitors --count 1000         # of rap-serve
    python benchmarks/endurance.py kill
    python benchmarks/endurance.py disk
    python benchmarks/endurance.py devices

Every command prints its figures and exits with 1 if a limit is passed. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from leaks import GROWTH_MB, Look, judge, looks
from losses import devices, disk, kill, verdict
from streams import RATE, EndlessSpeech, Nowhere, handles, play_in_virtual_time, resident_mb
from visitors import visitors

from rap_edge.runtime import AsyncSession, Avatar, SilentSpeaker, play
from rap_edge.runtime.checks.bounds import Real, Whole, argument
from rap_edge.runtime.cli.progress import Progress
from rap_edge.runtime.outputs.mp4_writer import Mp4Writer
from rap_edge.runtime.outputs.render import render

# The tiny model is a test's: its graphs are written by hand.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

# What FFmpeg's muxer keeps of every frame of picture and sound for the index of a plain mp4.
INDEX_BYTES = 72
WARM_UP = 0.05
OFFSET_MS = 40.0


def memory(bundle: str, hours: float, sink: str, folder: Path) -> bool:
    """Stream for so many simulated hours, as fast as the machine allows."""
    samples: list[tuple[float, float]] = []
    in_step = True
    with Avatar.open(bundle, threads=1) as avatar, Progress("streaming", 3600 * hours, "s") as progress:

        def sample(share: float) -> None:
            if share >= len(samples) / 200:
                samples.append((share, resident_mb()))
            progress.update(share * 3600 * hours)

        spec, source = avatar.spec, EndlessSpeech(3600 * hours, sample)
        started = time.perf_counter()
        if sink == "live":
            times = play_in_virtual_time(avatar, source, Nowhere())
            frames, in_step = times.frames, times.av_offset_max_ms <= OFFSET_MS
        else:
            frames = _render(avatar, source, None if sink == "none" else folder / "long.mp4", sink == "fragmented")
        seconds = time.perf_counter() - started
        samples.append((1.0, resident_mb()))
    warm = max(mb for share, mb in samples if share <= WARM_UP)
    growth = max(mb for _, mb in samples) - warm
    quarters = [max(mb for share, mb in samples if share <= quarter / 4) for quarter in (1, 2, 3, 4)]
    print(f"model             {spec.name}, sink {sink}")
    print(f"streamed          {hours:g} h, {frames} frames in {seconds:.0f} s")
    print(f"resident          {warm:.1f} MiB after {WARM_UP:.0%}, then {', '.join(f'{mb:.1f}' for mb in quarters)}")
    if sink == "live":
        print(f"picture to sound  {times.av_offset_max_ms:.0f} ms at most, {times.held_seconds:.2f} s held")
    limit = GROWTH_MB
    if sink == "mp4":
        index = INDEX_BYTES * (frames + 3600 * hours * RATE / 1024) / 2**20
        print(f"index             {index:.1f} MiB, added to the limit")
        limit += index
    return verdict(f"growth {growth:.1f} MiB, limit {limit:.1f}", growth < limit and in_step)


def _render(avatar: Avatar, source: EndlessSpeech, video: Path | None, fragmented: bool = False) -> int:
    """Render it all into a video, or into nothing; returns the number of frames."""
    if video is None:
        nowhere = Nowhere()
        render(avatar, source, nowhere)
        return nowhere.frames
    with Mp4Writer.for_source(video, avatar.spec, source, fragmented=fragmented) as writer:
        render(avatar, source, writer)
        return writer.frames


def sessions(bundle: str, count: int, folder: Path) -> bool:
    """Open and close sessions as visitors do: one leaves in mid-stream, one records, one awaits, one looks."""
    pcm = np.random.default_rng(0).uniform(-0.3, 0.3, 2 * RATE).astype(np.float32)
    with Avatar.open(bundle, threads=1) as avatar, Progress("sessions", count) as progress:

        def leave() -> None:
            with avatar.session() as session:
                session.push(pcm)
                assert next(session.chunks()).frames.size

        def record() -> None:
            assert _render(avatar, EndlessSpeech(1), folder / "short.mp4")

        async def listen() -> None:
            async with AsyncSession(avatar.session()) as session:
                session.push(pcm)
                async for chunk in session.chunks():
                    assert chunk.frames.size
                    return

        def look() -> None:
            display = Nowhere(limit=3)
            play(avatar, EndlessSpeech(60), SilentSpeaker(RATE), display)
            assert display.frames

        visits = (leave, record, lambda: asyncio.run(listen()), look)
        when, seen = looks(count), list[Look]()
        for index in range(count + 1):
            if index in when:
                seen.append((resident_mb(), _settled_handles()))
            if index < count:
                visits[index % len(visits)]()
            progress.update(index)
    print(f"sessions          {count} of {avatar.spec.name}: left in mid-stream, recorded, in asyncio, played live")
    return judge(count, seen, settled=seen[-1][1] == seen[0][1])


def _settled_handles() -> tuple[int, int]:
    """Files and threads once a thread that has done its work, and only tells so, has had the time to end."""
    time.sleep(0.5)
    return handles()


def main() -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("memory", "sessions", "visitors", "kill", "disk", "devices"))
    parser.add_argument("--bundle", help="a bundle (default: the tests' tiny model)")
    parser.add_argument(
        "--hours", type=argument(Real(0.001, 1000.0, "hours")), default=4.0, help="of audio (default 4)"
    )
    parser.add_argument("--sink", choices=("none", "mp4", "fragmented", "live"), default="none", help="where frames go")
    parser.add_argument(
        "--count", type=argument(Whole(1, 1_000_000)), default=1000, help="sessions or visitors (default 1000)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = folder / "work"
        work.mkdir()
        bundle = arguments.bundle and str(Path(arguments.bundle).resolve())
        if bundle is None:
            from helpers.bundles.tiny_bundle import write_tiny_bundle

            bundle = str(write_tiny_bundle(folder / "tiny"))
        passed = {
            "memory": lambda: memory(bundle, arguments.hours, arguments.sink, work),
            "sessions": lambda: sessions(bundle, arguments.count, work),
            "visitors": lambda: visitors(bundle, arguments.count, work),
            "kill": lambda: kill(bundle, work),
            "disk": lambda: disk(bundle, work),
            "devices": lambda: devices(bundle, work),
        }[arguments.what]()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
