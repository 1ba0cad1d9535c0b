"""Draws and speaks the demo assets: `python -m rap_edge.models.nano.assets --out examples/assets`.

Identity, voice and sentence are held out: none of them is in the training set.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rap_edge.runtime.checks.bounds import Whole, argument
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra
from rap_edge.runtime.errors import OutputError
from rap_edge.runtime.outputs.wave_file import write_wave

with program_needs_extra("train", __name__):
    import cv2

    from .data.identity import Identity
    from .data.renderer import neutral_motion, render
    from .data.sentences import SPLITS
    from .data.speech import SAMPLE_RATE, Voice, synthesize


PORTRAIT_SEED = 1
PORTRAIT_INDEX = 18
VOICE = Voice("en-gb-scotland+f3", rate=150, pitch=52, pitch_range=60)
SENTENCES = (
    "Fifty seven people came to see the moon rise over the mountains.",
    "All of the boys and girls laughed when the puppet bumped its head.",
)


def held_out_portrait(index: int, size: int) -> npt.NDArray[np.uint8]:
    """A face that nano has never seen, its mouth closed, uint8 [size, size, 3] RGB; the demo's is `PORTRAIT_INDEX`."""
    rng = np.random.default_rng([PORTRAIT_SEED, SPLITS.index("held-out"), index])
    return render(Identity.sample(rng), neutral_motion(), size)


def speech() -> npt.NDArray[np.float32]:
    """The demo's speech, float32 [samples] at 16 kHz, with 0.3 s of silence at both ends."""
    waveform = synthesize(" ".join(SENTENCES), VOICE).waveform
    silence = np.zeros(3 * SAMPLE_RATE // 10, np.float32)
    return np.concatenate((silence, waveform * (0.7 / np.abs(waveform).max()), silence))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write portrait.png and speech.wav."""
    return exit_status("assets", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description="Write the demo portrait and speech.")
    parser.add_argument("--out", type=Path, default=Path("examples/assets"), help="folder, made if it does not exist")
    parser.add_argument(
        "--size",
        type=argument(Whole(64, 4096, "pixels")),
        default=512,
        help="side of the portrait in pixels, a multiple of 64",
    )
    options = parser.parse_args(arguments)
    picture = cv2.cvtColor(held_out_portrait(PORTRAIT_INDEX, options.size), cv2.COLOR_RGB2BGR)
    waveform = speech()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "portrait.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        pcm = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
        write_wave(options.out / "speech.wav", pcm, SAMPLE_RATE)
    except OSError as error:
        raise OutputError(f"Cannot write into '{options.out}' ({error.strerror}); name another folder.") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
