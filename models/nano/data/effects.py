"""What happens to a voice on its way: rooms, telephones, noise, music; float32 sound at 16 kHz in and out."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from .speech import SAMPLE_RATE, Floats

Sound = Callable[[np.random.Generator, int], Floats]
"""Makes as many samples as asked, with an RMS of about 1."""

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


def loudness(sound: Floats) -> float:
    """Root mean square of what is not silent, at least 1e-5."""
    loud = np.abs(sound) > 1e-3
    return max(float(np.sqrt(np.mean(sound[loud] ** 2))), 1e-5) if loud.any() else 1e-5


def beside(sound: Floats, other: Floats, decibel: float) -> Floats:
    """The sum of a voice and of another sound that is `decibel` quieter."""
    level = loudness(sound) / max(float(np.sqrt(np.mean(other**2))), 1e-6) * 10 ** (-decibel / 20)
    return np.asarray(sound + other * np.float32(level), np.float32)


def noise(rng: np.random.Generator, samples: int) -> Floats:
    """White, pink or brown noise or a hum, float32 [samples], with an RMS of 1."""
    kind = int(rng.integers(4))
    if kind == 3:
        base = float(rng.uniform(45, 130))
        t = np.arange(samples) / SAMPLE_RATE
        hum = sum(rng.random() * np.sin(2 * np.pi * (base * n * t + rng.random())) for n in range(1, 6))
        sound = np.asarray(hum + 0.05 * rng.normal(size=samples))
    else:
        spectrum = np.fft.rfft(rng.normal(size=samples))
        spectrum[1:] /= np.arange(1, len(spectrum)) ** (0.5 * kind)
        spectrum[: int(30 * samples / SAMPLE_RATE)] = 0
        sound = np.fft.irfft(spectrum, samples)
    return np.asarray(sound / np.sqrt(np.mean(sound**2)), np.float32)


def band(sound: Floats, low: float, high: float, order: float = 6.0) -> Floats:
    """What lies between `low` and `high` Hz."""
    spectrum = np.fft.rfft(sound)
    frequency = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE) + 1e-3
    response = 1 / np.sqrt((1 + (low / frequency) ** (2 * order)) * (1 + (frequency / high) ** (2 * order)))
    return np.asarray(np.fft.irfft(spectrum * response, len(sound)), np.float32)


def telephone(sound: Floats) -> Floats:
    """300 to 3400 Hz in the steps of G.711's mu law."""
    narrow = band(sound, 300.0, 3400.0)
    peak = max(float(np.abs(narrow).max()), 1e-5)
    squeezed = np.sign(narrow) * np.log1p(255 * np.abs(narrow / peak)) / np.log(256)
    coded = np.round(squeezed * 127) / 127
    return np.asarray(np.sign(coded) * np.expm1(np.abs(coded) * np.log(256)) / 255 * peak, np.float32)


def coded(sound: Floats, bits: int = 24_000) -> Floats:
    """The voice after MP3 at so many bits per second, as late as before."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = bits
        frame = av.AudioFrame.from_ndarray(np.clip(sound, -1, 1)[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    file.seek(0)
    with av.open(file, "r") as source:
        heard = np.concatenate([part.to_ndarray().ravel() for part in source.decode(audio=0)]).astype(np.float32)
    heard = np.pad(heard, (0, max(0, len(sound) + 4000 - len(heard))))
    size = 1 << (len(heard) + len(sound)).bit_length()
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sound, size)), size)[:4000]
    late = int(np.argmax(match))
    return np.asarray(heard[late : late + len(sound)], np.float32)


def room(sound: Floats, rng: np.random.Generator) -> Floats:
    """The voice in a room of 0.15 to 0.8 s of reverberation, 0 to 12 dB quieter than the voice itself."""
    seconds = float(rng.uniform(0.15, 0.8))
    samples = int(seconds * SAMPLE_RATE)
    time = np.arange(samples) / SAMPLE_RATE
    tail = rng.normal(size=samples) * np.exp(-6.9 * time / seconds) * (time > rng.uniform(0.002, 0.012))
    tail *= 10 ** (-rng.uniform(0, 12) / 20) / max(float(np.sqrt(np.sum(tail**2))), 1e-6)
    tail[0] = 1.0
    size = 1 << (len(sound) + samples - 1).bit_length()
    heard = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]
    return np.asarray(heard, np.float32)


def music(rng: np.random.Generator, samples: int) -> Floats:
    """Chords, a melody, a bass and drums in random proportions, float32 [samples], with an RMS of 1."""
    beat = int(SAMPLE_RATE * 60 / rng.uniform(70, 150))
    root, scale = float(rng.uniform(45, 58)), _SCALES[int(rng.integers(len(_SCALES)))]
    sound = np.zeros(samples + 4 * beat, np.float64)
    weights = rng.uniform(0.1, 1, 4) * (rng.random(4) < 0.75)
    weights[int(rng.integers(4))] += 0.5
    for start in range(0, samples, beat):
        if start // beat % 4 == 0:
            degree = int(rng.integers(len(scale)))
            for step in (0, 2, 4):
                pitch = root + 12 + scale[(degree + step) % len(scale)]
                _add(sound, start, weights[0] * 0.4 * _note(rng, pitch, 4 * beat, 0.3))
        _add(sound, start, weights[1] * 0.7 * _note(rng, root - 12 + scale[0 if rng.random() < 0.6 else 2], beat, 0.5))
        for half in (0, beat // 2):
            if rng.random() < 0.6:
                pitch = root + 24 + scale[int(rng.integers(len(scale)))]
                _add(sound, start + half, weights[2] * 0.5 * _note(rng, pitch, beat // 2, 0.6))
            _add(sound, start + half, weights[3] * 0.3 * _hit(rng, beat // 2, 40.0))
        _add(sound, start, weights[3] * (_kick(beat) if start // beat % 2 == 0 else 0.7 * _hit(rng, beat, 18.0)))
    sound = sound[:samples]
    return np.asarray(sound / max(float(np.sqrt(np.mean(sound**2))), 1e-6), np.float32)


def _add(sound: np.ndarray, start: int, part: np.ndarray) -> None:
    end = min(start + len(part), len(sound))
    sound[start:end] += part[: end - start]


def _note(rng: np.random.Generator, pitch: float, samples: int, decay: float) -> np.ndarray:
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    time = np.arange(samples) / SAMPLE_RATE
    bright = rng.uniform(0.8, 2.2)
    tone = sum(np.sin(2 * np.pi * frequency * n * time + n) / n**bright for n in range(1, 9) if frequency * n < 7500)
    envelope = (
        np.minimum(time / 0.01, 1) * np.exp(-decay * 3 * time) * np.minimum((samples - np.arange(samples)) / 200, 1)
    )
    return np.asarray(tone * envelope)


def _hit(rng: np.random.Generator, samples: int, decay: float) -> np.ndarray:
    return np.asarray(rng.normal(size=samples) * np.exp(-decay * np.arange(samples) / SAMPLE_RATE))


def _kick(samples: int) -> np.ndarray:
    time = np.arange(samples) / SAMPLE_RATE
    return np.asarray(1.5 * np.sin(2 * np.pi * (50 * time + 2 * (1 - np.exp(-30 * time)))) * np.exp(-9 * time))


def tone(rng: np.random.Generator, samples: int) -> Floats:
    """One pure tone, steady or beeping, float32 [samples], with an RMS of 1."""
    time = np.arange(samples) / SAMPLE_RATE
    sound = np.sin(2 * np.pi * np.exp(rng.uniform(np.log(100), np.log(4000))) * time)
    if rng.random() < 0.5:
        sound *= np.sin(2 * np.pi * rng.uniform(0.5, 4) * time) > rng.uniform(-0.7, 0.7)
    return np.asarray(sound / max(float(np.sqrt(np.mean(sound**2))), 1e-3), np.float32)


def clicks(rng: np.random.Generator, samples: int) -> Floats:
    """Keys, knocks and other short noises, float32 [samples], with an RMS of 1."""
    sound = np.zeros(samples, np.float64)
    for start in rng.integers(0, samples, int(rng.integers(1, 4 + samples // 4000))):
        _add(
            sound, int(start), rng.uniform(0.2, 1) * _hit(rng, int(rng.integers(80, 3000)), float(rng.uniform(20, 400)))
        )
    return np.asarray(sound / max(float(np.sqrt(np.mean(sound**2))), 1e-6), np.float32)


def no_voice(rng: np.random.Generator, samples: int) -> Floats:
    """Any sound that is not a voice, float32 [samples], with an RMS of 1."""
    kinds = (noise, noise, music, music, tone, clicks)
    return kinds[int(rng.integers(len(kinds)))](rng, samples)


def spoil(sound: Floats, rng: np.random.Generator, tune: Sound = music) -> Floats:
    """A voice as it may arrive: as it is, or in a room, in noise and music, by telephone, dull, bright or clipped.

    Args:
        sound: the voice.
        rng: chooses.
        tune: makes the music, `music` by default.
    """
    if rng.random() < 0.25:
        return sound
    if rng.random() < 0.3:
        sound = room(sound, rng)
    if rng.random() < 0.35:
        sound = beside(sound, noise(rng, len(sound)), float(rng.uniform(4, 30)))
    if rng.random() < 0.35:
        sound = beside(sound, tune(rng, len(sound)), float(rng.uniform(6, 24)))
    if rng.random() < 0.15:
        sound = beside(sound, clicks(rng, len(sound)), float(rng.uniform(6, 24)))
    draw = rng.random()
    if draw < 0.18:
        sound = telephone(sound)
    elif draw < 0.3:
        sound = band(sound, float(rng.uniform(60, 300)), float(rng.uniform(3000, 7500)))
    if rng.random() < 0.25:
        tilt = np.float32(rng.uniform(-0.5, 0.9))
        sound = sound + tilt * np.diff(sound, prepend=sound[:1])
    if rng.random() < 0.08:
        limit = float(np.quantile(np.abs(sound), rng.uniform(0.97, 0.999)))
        sound = np.clip(sound, -limit, limit)
    return np.asarray(sound, np.float32)
