"""Many clips, one avatar: every sound file becomes a video of its name in a folder; one that fails stops no other.

python examples/render_many.py build/nano-fp32 out/ speech1.ogg speech2.wav ...
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rap_edge.runtime import Avatar, Mp4Writer, OutputError, RapEdgeError, read_audio, render

WORKERS = 2


def render_one(avatar: Avatar, audio: Path, output: Path) -> float:
    """Render a file; returns its length in seconds."""
    with read_audio(audio) as source, Mp4Writer.for_source(output, avatar.spec, source) as video:
        render(avatar, source, video)
        return video.frames / avatar.spec.fps


def main(bundle: str, folder: str, *files: str) -> int:
    """Returns the number of clips that failed."""
    if len({Path(file).stem for file in files}) < len(files):
        raise OutputError("Two of the files have one name, and so would their videos; render them into two folders.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    failed = 0
    # While one session writes its video, the other one has the engines.
    with Avatar.open(bundle) as avatar, ThreadPoolExecutor(WORKERS) as pool:
        jobs = {
            pool.submit(render_one, avatar, Path(file), Path(folder) / f"{Path(file).stem}.mp4"): file for file in files
        }
        for done, job in enumerate(as_completed(jobs), 1):
            try:
                print(f"{done} of {len(files)}: {jobs[job]}, {job.result():.2f} s")
            except RapEdgeError as error:
                failed += 1
                print(f"{done} of {len(files)}: {jobs[job]}: {error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    try:
        sys.exit(1 if main(*sys.argv[1:]) else 0)
    except RapEdgeError as error:
        sys.exit(f"render_many: {error}")
