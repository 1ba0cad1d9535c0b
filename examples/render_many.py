"""Many clips, one avatar: every sound file becomes a video of its name in a folder; one that fails stops no other.

python examples/render_many.py build/nano-fp32 out/ speech1.ogg speech2.wav ...
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rap_edge.runtime import Avatar, OutputError, RapEdgeError
from rap_edge.runtime.cli.progress import Progress
from rap_edge.runtime.inputs.audio_file import read_audio
from rap_edge.runtime.inputs.soundtrack import Soundtrack
from rap_edge.runtime.outputs.mp4_writer import AAC_RATES, Mp4Writer
from rap_edge.runtime.outputs.render import render
from rap_edge.runtime.reports.run_report import RunMeter

WORKERS = 2


def render_one(avatar: Avatar, audio: Path, output: Path) -> float:
    """Render a file; returns its length in seconds."""
    spec = avatar.spec
    with read_audio(audio) as source:
        soundtrack = Soundtrack(source.rate, source.channels, AAC_RATES)
        with Mp4Writer(output, spec.image_size, spec.fps, soundtrack.rate, soundtrack.channels) as writer:
            render(avatar, source, soundtrack, writer, RunMeter(spec.chunk_seconds))
            return writer.frames / spec.fps


def main(bundle: str, folder: str, *files: str) -> int:
    """Returns the number of clips that failed."""
    if len({Path(file).stem for file in files}) < len(files):
        raise OutputError("Two of the files have one name, and so would their videos; render them into two folders.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    failed = 0
    # While one session writes its video, the other one has the engines.
    with Avatar.open(bundle) as avatar, ThreadPoolExecutor(WORKERS) as pool, Progress("clips", len(files)) as progress:
        jobs = {
            pool.submit(render_one, avatar, Path(file), Path(folder) / f"{Path(file).stem}.mp4"): file for file in files
        }
        for done, job in enumerate(as_completed(jobs), 1):
            try:
                print(f"{jobs[job]}: {job.result():.2f} s")
            except RapEdgeError as error:
                failed += 1
                print(f"{jobs[job]}: {error}", file=sys.stderr)
            progress.update(done)
    return failed


if __name__ == "__main__":
    try:
        sys.exit(1 if main(*sys.argv[1:]) else 0)
    except RapEdgeError as error:
        sys.exit(f"render_many: {error}")
