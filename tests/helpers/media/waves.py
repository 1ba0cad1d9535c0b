"""Speech as wav files."""

import wave

import numpy as np


def write_wav(path: str, pcm: np.ndarray, rate: int = 16000) -> str:
    """Save int16 [samples] or [samples, channels]."""
    with wave.open(path, "wb") as file:
        file.setnchannels(1 if pcm.ndim == 1 else pcm.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


def speech(seconds: float, rate: int = 16000) -> np.ndarray:
    """Noise from 2.0 to 2.5 s, silence before and after."""
    pcm = np.zeros(round(seconds * rate), np.int16)
    loud = pcm[2 * rate : 2 * rate + rate // 2]
    loud[:] = np.random.default_rng(0).integers(-15000, 15000, loud.size)
    return pcm
