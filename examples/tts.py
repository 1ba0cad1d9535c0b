"""A speech synthesiser that pushes sentence by sentence: each line of text is spoken as soon as it is read.

    printf 'Good morning.\\nHow are you?\\n' | python examples/tts.py build/nano-fp32 out.mp4

Needs the extra `examples`; put any other synthesiser in the place of `Espeak`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable

import espeakng_loader
import numpy as np

from rap_edge.runtime import Avatar, Mp4Writer, RapEdgeError

PAUSE_SECONDS = 0.3


class Espeak:
    """espeak-ng through its C interface (speak_lib.h), called from one thread."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        # 2 is AUDIO_OUTPUT_SYNCHRONOUS: the callback is called within espeak_Synth.
        self.rate = self._library.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0)
        self._blocks: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._take)
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_SetVoiceByName(b"en-us")

    def speak(self, sentence: str) -> np.ndarray:
        """int16 [samples] at `rate` Hz."""
        self._blocks = [np.zeros(0, np.int16)]
        text = sentence.encode()
        # 1 is espeakCHARS_UTF8.
        self._library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, 1, None, None)
        return np.concatenate(self._blocks)

    def _take(self, samples: ctypes.Array[ctypes.c_short], count: int, events: int) -> int:
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def main(bundle: str, output: str, sentences: Iterable[str] = sys.stdin) -> None:
    voice = Espeak()
    pause = np.zeros(round(PAUSE_SECONDS * voice.rate), np.int16)
    with (
        Avatar.open(bundle) as avatar,
        avatar.session(sample_rate=voice.rate) as session,
        Mp4Writer(output, avatar.spec.image_size, avatar.spec.fps, avatar.spec.sample_rate, 1) as video,
    ):

        def pass_on() -> None:
            for chunk in session.chunks():
                video.write(chunk.frames, chunk.audio[:, None])

        for sentence in sentences:
            session.push(voice.speak(sentence.strip()))
            session.push(pause)
            pass_on()
            print(f"said {sentence.strip()!r}", flush=True)
        session.finish()
        pass_on()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RapEdgeError as error:
        sys.exit(f"tts: {error}")
