"""What a small model that talks has to show, measured on its frames alone: life, faces and voices, all held out.

A talker is anything that makes frames from a portrait, sound and a seed, so every model is measured alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rap_edge.models.nano.data.effects import Sound, beside, coded, music, noise, room, telephone, tone
from rap_edge.models.nano.data.identity import Identity
from rap_edge.models.nano.data.life import life
from rap_edge.models.nano.data.renderer import mouth_box, neutral_motion, render
from rap_edge.models.nano.data.sentences import sample_text, sample_voice
from rap_edge.models.nano.data.speech import FRAME_RATE, FRAME_SAMPLES, SAMPLE_RATE, Utterance, Voice, synthesize
from rap_edge.models.nano.data.view import LIGHTS, View
from rap_edge.models.nano.data.voices import FLITE_VOICES, flite, utterance
from rap_edge.models.nano.errors import MeasureError
from rap_edge.models.nano.measure.life import Life, LifeGauge, pooled_spread
from rap_edge.models.nano.measure.looks import colour_errors, part_masks, sharpness
from rap_edge.models.nano.measure.mouth import MouthGauge, closedness, correlation
from rap_edge.models.nano.measure.seams import seam_ratio

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Talker = Callable[[Bytes, Floats, int], Bytes]
Speaker = Callable[[np.random.Generator], Utterance]

SIZE = 256
LEAD = 12  # frames of silence before the first sentence
SEED = 30_000
_GERMAN = (
    "Guten Morgen, heute backen wir zusammen einen ganz einfachen Apfelkuchen.",
    "Bitte machen Sie die Lampen aus, bevor wir das Haus verlassen, und schliessen Sie die Tuer ab.",
    "Mein Bruder wohnt am Berg und baut dort eine bunte Bank aus Birkenholz.",
)

VIEWS: Mapping[str, View] = {
    "as drawn": View(),
    "70 % of the size": View(scale=0.7),
    "130 % of the size": View(scale=1.3),
    "turned 15 degrees left": View(angle=-15.0),
    "turned 15 degrees right": View(angle=15.0),
    "64 px to the left": View(shift_x=-64.0),
    "64 px to the right": View(shift_x=64.0),
    "64 px up": View(shift_y=-64.0),
    # At full size the mouth would leave the picture.
    "64 px down, at 70 %": View(scale=0.7, shift_y=64.0),
    **{f"{name} light": view for name, view in LIGHTS.items()},
}


@dataclass(frozen=True)
class Face:
    """A held-out face in one view, with what reads it.

    Attributes:
        identity, view: who, and how.
        portrait: uint8 [SIZE, SIZE, 3], mouth closed.
    """

    identity: Identity
    view: View
    portrait: Bytes

    @classmethod
    def sample(cls, index: int, view: View | None = None) -> Face:
        """Face `index`; faces whose lips have the colour of their skin are passed over, as nothing could be read."""
        attempt = 0
        while True:
            identity = Identity.sample(np.random.default_rng([SEED, index, attempt]))
            face = cls(identity, view or View(), render(identity, neutral_motion(), SIZE, view or View()))
            try:
                face.gauge()
            except MeasureError:
                attempt += 1
                continue
            return face

    def gauge(self) -> MouthGauge:
        """Reads the mouth of straightened frames."""
        straight = self.view.straighten(self.portrait[None])[0]
        return MouthGauge.calibrate(straight, mouth_box(self.identity, neutral_motion(), SIZE))

    def opening(self, frames: Bytes) -> Floats:
        """How far the mouth is open in frames of this view."""
        return self.gauge().opening(self.view.straighten(frames))

    def boxes(self, frames: int) -> npt.NDArray[np.integer[Any]]:
        """A box around the open mouth, once per frame."""
        return np.tile(mouth_box(self.identity, neutral_motion(mouth_open=0.8), SIZE, self.view), (frames, 1))


def espeak(rng: np.random.Generator) -> Utterance:
    """A held-out sentence by a held-out voice of espeak-ng."""
    return synthesize(sample_text(rng, "held-out"), sample_voice(rng, "held-out"))


def other_synthesizer(rng: np.random.Generator) -> Utterance:
    """A held-out sentence by Flite, which training never hears."""
    return flite(sample_text(rng, "held-out"), FLITE_VOICES[int(rng.integers(len(FLITE_VOICES)))])


def bent(factor: float) -> Speaker:
    """espeak-ng as by a child (above 1) or a giant: its pitch and its throat times `factor`, its pace unchanged."""

    def speak(rng: np.random.Generator) -> Utterance:
        voice = sample_voice(rng, "held-out")
        slow = Voice(voice.name, max(80, round(voice.rate / factor)), voice.pitch, voice.pitch_range)
        said = synthesize(sample_text(rng, "held-out"), slow)
        return utterance(said.waveform, SAMPLE_RATE, said.phonemes, factor)

    return speak


def paced(rate: int) -> Speaker:
    """espeak-ng at so many words a minute."""

    def speak(rng: np.random.Generator) -> Utterance:
        voice = sample_voice(rng, "held-out")
        return synthesize(sample_text(rng, "held-out"), Voice(voice.name, rate, voice.pitch, voice.pitch_range))

    return speak


def german(rng: np.random.Generator) -> Utterance:
    """German by espeak-ng."""
    return synthesize(_GERMAN[int(rng.integers(len(_GERMAN)))], Voice("de+f3", 160))


def track(speak: Speaker | None, rng: np.random.Generator, frames: int) -> tuple[Floats, Floats]:
    """Sound [frames * 640] and opening [frames] of sentences with short pauses; None is silence."""
    waveform, opening = np.zeros(frames * FRAME_SAMPLES, np.float32), np.zeros(frames, np.float32)
    filled = LEAD
    while speak is not None and filled < frames - 10:
        said = speak(rng)
        length = min(len(said.mouth), frames - filled)
        sound = said.waveform[: length * FRAME_SAMPLES]
        level = rng.uniform(0.04, 0.12) / max(float(np.sqrt(np.mean(sound**2))), 1e-6)
        waveform[filled * FRAME_SAMPLES : filled * FRAME_SAMPLES + len(sound)] = sound * np.float32(level)
        opening[filled : filled + length] = said.mouth[:length, 0]
        filled += length + int(rng.integers(3, 12))
    return np.clip(waveform, -1, 1), opening


def hum(rng: np.random.Generator, samples: int) -> Floats:
    """A mains hum with overtones, RMS 1."""
    time = np.arange(samples) / SAMPLE_RATE
    sound = sum(np.sin(2 * np.pi * 50 * n * time + rng.random()) / n for n in range(1, 8))
    return np.asarray(sound / np.sqrt(np.mean(np.square(sound))), np.float32)


VOICES: Mapping[str, tuple[Speaker, Callable[[Floats, np.random.Generator], Floats]]] = {
    "espeak-ng": (espeak, lambda sound, rng: sound),
    "another synthesizer": (other_synthesizer, lambda sound, rng: sound),
    "7 semitones higher": (bent(2 ** (7 / 12)), lambda sound, rng: sound),
    "7 semitones lower": (bent(2 ** (-7 / 12)), lambda sound, rng: sound),
    "slow": (paced(110), lambda sound, rng: sound),
    "fast": (paced(250), lambda sound, rng: sound),
    "German": (german, lambda sound, rng: sound),
    "telephone": (espeak, lambda sound, rng: telephone(sound)),
    "MP3 of 24 kbit/s": (espeak, lambda sound, rng: coded(sound)),
    "a room": (espeak, room),
    "noise 10 dB below": (espeak, lambda sound, rng: beside(sound, noise(rng, len(sound)), 10.0)),
    "noise 5 dB below": (espeak, lambda sound, rng: beside(sound, noise(rng, len(sound)), 5.0)),
    "music 10 dB below": (espeak, lambda sound, rng: beside(sound, music(rng, len(sound)), 10.0)),
}
QUIET: Mapping[str, Sound | None] = {"silence": None, "noise": noise, "music": music, "hum": hum, "a pure tone": tone}


def life_figures(talk: Talker, faces: int, frames: int, chunk: int, latent: int) -> dict[str, float]:
    """How faces live, in speech and in silence, and whether joints of chunks and latents show."""
    figures: dict[str, float] = {}
    minutes = frames / FRAME_RATE / 60
    wanted = pooled_spread([_drawn(index, frames) for index in range(24)])
    for name, speak in (("speech", espeak), ("silence", None)):
        lives, peaks, seams, flicker, apart = [], [], [], [], []
        for index in range(faces):
            face = Face.sample(index)
            sound, _ = track(speak, np.random.default_rng([SEED, 1, index]), frames)
            gauge = LifeGauge(face.identity, SIZE)
            # In silence nothing but the seed tells two lives apart.
            videos = [talk(face.portrait, sound, seed) for seed in (2 * index + 1, 2 * index + 2)]
            pair = [gauge.read(video) for video in videos]
            lives += pair
            peaks += [peak for one in pair for peak in _peaks(one.blink)]
            seams += [seam_ratio(video, face.boxes(frames), chunk) for video in videos]
            flicker += [seam_ratio(video, face.boxes(frames), latent) for video in videos]
            apart.append(_apart(*pair))
        spread = pooled_spread(lives)
        figures |= {
            f"blinks a minute, {name}": float(np.mean([one.blinks for one in lives])) / minutes,
            f"closure of a blink, {name}": float(np.median(peaks)) if peaks else 0.0,
            f"head over the renderer's, {name}": spread["head"] / wanted["head"],
            f"gaze over the renderer's, {name}": spread["gaze"] / wanted["gaze"],
            f"seeds apart, {name}": float(np.mean(apart)),
            f"change across chunks over change elsewhere, {name}": float(np.mean(seams)),
            f"change across latents over change elsewhere, {name}": float(np.mean(flicker)),
        }
    return figures


def face_figures(talk: Talker, faces: int, frames: int) -> dict[str, float]:
    """How faces in every view speak, and what becomes of their colours and their sharpness."""
    figures: dict[str, float] = {}
    worst, detail = 1.0, []
    colours: dict[str, list[float]] = {}
    for name, view in VIEWS.items():
        measured, truth = [], []
        for index in range(100, 100 + faces):
            face = Face.sample(index, view)
            sound, opening = track(espeak, np.random.default_rng([SEED, 2, index]), frames)
            video = talk(face.portrait, sound, index)
            measured.append(face.opening(video))
            truth.append(opening)
            worst = min(worst, correlation(measured[-1], opening))
            detail.append(sharpness(face.portrait, video[::10], face.identity, view))
            if not view.reframes:
                for part, error in _colours(face, video, measured[-1]).items():
                    colours.setdefault(part, []).append(error)
        figures[f"mouth, {name}"] = correlation(np.stack(measured), np.stack(truth))
    figures["mouth, the worst face of all"] = worst
    figures |= {f"colour of {part}, levels off": float(np.mean(errors)) for part, errors in colours.items()}
    figures["sharpness of static parts over the portrait's"] = float(np.mean(detail))
    return figures


def voice_figures(talk: Talker, faces: int, frames: int) -> dict[str, float]:
    """How well the mouth follows every kind of voice, and how well it stays shut without one."""
    figures: dict[str, float] = {}
    for name, (speak, way) in VOICES.items():
        measured, truth = [], []
        for index in range(faces):
            face, rng = Face.sample(200 + index), np.random.default_rng([SEED, 3, index])
            sound, opening = track(speak, rng, frames)
            measured.append(face.opening(talk(face.portrait, np.clip(way(sound, rng), -1, 1), index)))
            truth.append(opening)
        figures[f"voice, {name}"] = correlation(np.stack(measured), np.stack(truth))
    for name, make in QUIET.items():
        shares = []
        for index in range(faces):
            face, rng = Face.sample(200 + index), np.random.default_rng([SEED, 4, index])
            sound = np.zeros(frames * FRAME_SAMPLES, np.float32)
            if make is not None:
                sound = make(rng, len(sound)) * np.float32(10 ** rng.uniform(-2.2, -1))
            shares.append(closedness(face.opening(talk(face.portrait, sound, index)), np.zeros(frames)))
        figures[f"mouth closed in {name}"] = float(np.mean(shares))
    return figures


def _drawn(index: int, frames: int) -> Life:
    motion = life(np.random.default_rng([SEED, 5, index]), frames)
    return Life(motion[:, :5], motion[:, 5], motion[:, 6:])


def _peaks(blink: Floats) -> list[float]:
    """How far the lids shut at each blink."""
    shut = np.flatnonzero(np.diff(np.concatenate(([0], blink > 0.4, [0]))))
    return [float(blink[first:last].max()) for first, last in zip(shut[::2], shut[1::2], strict=True)]


def _apart(first: Life, second: Life) -> float:
    """How much two heads differ over how much two that know nothing of each other do; 0 are the same."""
    difference = np.concatenate((first.pose - second.pose, first.gaze - second.gaze), axis=1)
    moved = [np.concatenate((one.pose, one.gaze), axis=1) for one in (first, second)]
    alone = np.sqrt(sum(float(track.var(0).sum()) for track in moved))
    return float(np.sqrt(difference.var(0).sum())) / max(alone, 0.05)


def _colours(face: Face, video: Bytes, opening: Floats) -> dict[str, float]:
    gauge = LifeGauge(face.identity, SIZE, face.view)
    seen = gauge.read(video)
    calm = (seen.blink < 0.15) & (np.abs(seen.gaze).max(1) < 0.15) & (opening < 0.08)
    rows = np.flatnonzero(calm)[:24]
    if not len(rows):
        return {}
    upright = np.stack([gauge.taken(video[row], seen.pose[row]) for row in rows])
    return colour_errors(face.portrait, upright, part_masks(face.identity, SIZE, face.view))
