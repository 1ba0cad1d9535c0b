"""What the way over shared memory adds: `python benchmarks/local_latency.py --bundle build/nano-fp32`.

Serves at a Unix socket and reads with the client in C, built here with gcc. Per frame, from when it is due at the
`AvatarStream` to when the client has copied picture and sound; apart from that, from its publication on. The face
idles first, its reel complete, then it speaks, for which the engines take the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rap_edge.runtime import AvatarStream, read_audio, to_mono
from rap_edge.runtime.inputs.convert import to_int16
from rap_edge.runtime.serve.kiosk import Kiosk
from rap_edge.runtime.serve.local.server import listening_at
from rap_edge.runtime.serve.server import open_kiosk
from rap_edge.runtime.serve.settings import Settings

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "clients" / "c"
COLUMNS = ("number", "pts", "utterance", "published", "seen", "lost")


def build(folder: Path) -> Path:
    """The program that tells when it has seen each frame."""
    sources = [CLIENT / "examples" / "frame_times.c", CLIENT / "rap_edge_client.c"]
    subprocess.run(["gcc", "-std=c99", "-O2", f"-I{CLIENT}", *sources, "-o", folder / "frame_times"], check=True)
    return folder / "frame_times"


async def watch(kiosk: Kiosk, program: Path, path: Path, pcm: bytes, frames: int) -> dict[str, np.ndarray]:
    """Say `pcm` and look at so many frames: their columns, and `due` in ns of the same clock."""
    avatar = kiosk.portraits.find(None).avatar
    streams: list[AvatarStream] = []
    make = avatar.stream

    def stream(**settings: Any) -> AvatarStream:
        streams.append(make(**settings))
        return streams[-1]

    avatar.stream = stream  # type: ignore[method-assign]
    async with listening_at(path, kiosk):
        client = await asyncio.create_subprocess_exec(
            program, path, str(frames), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        told, _ = await client.communicate(pcm)
    avatar.stream = make  # type: ignore[method-assign]
    lines = [line.split() for line in told.decode().splitlines()]
    seen = {name: np.array([float(line[i]) for line in lines]) for i, name in enumerate(COLUMNS)}
    started = streams[0]._started
    assert started is not None
    return seen | {"due": 1e9 * (started + seen["number"] / streams[0].fps)}


def row(name: str, seen: dict[str, np.ndarray], chosen: np.ndarray) -> str:
    """A line of the table."""
    cells = [name, str(int(chosen.sum()))]
    for since in ("due", "published"):
        late = 1e-6 * (seen["seen"] - seen[since])[chosen]
        cells += [f"{np.median(late):.2f} / {np.percentile(late, 99):.2f} / {late.max():.2f} ms"]
    return f"| {' | '.join([*cells, str(int(seen['lost'][chosen].sum()))])} |"


async def measure(bundle: str, seconds: float) -> None:
    """Print the table."""
    with read_audio(str(ROOT / "examples/assets/speech.wav")) as file:
        speech = to_int16(np.concatenate([to_mono(block) for block in file]))
        assert file.rate == 16000
    kiosk = open_kiosk(bundle, Settings(max_sessions=1, port=None))
    spec = kiosk.portraits.find(None).avatar.spec
    print(f"{spec.width}x{spec.height}, {spec.fps} fps, real-time factor {kiosk.rtf:.2f}")
    print("| the face | frames | from due to seen, median / p99 / largest | from published to seen | lost |")
    print("|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        program, path, frames = build(Path(folder)), Path(folder) / "face.sock", round(seconds * spec.fps)
        seen = await watch(kiosk, program, path, b"", 2 * frames)
        print(row("idles", seen, seen["number"] >= frames), flush=True)
        again = speech.tobytes() * -(-round(seconds) // (len(speech) // 16000))
        seen = await watch(kiosk, program, path, again, frames + 2 * spec.fps)
        print(row("speaks", seen, seen["utterance"] >= 0), flush=True)
    await kiosk.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each part")
    chosen = parser.parse_args(arguments)
    asyncio.run(measure(chosen.bundle, chosen.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
