"""The goals of the small model and what each given model reaches, as one table: `python benchmarks/nano/goals.py`.

Everything is held out: faces, sentences, voices, and one synthesizer. Figures come from frames alone (see
`goal_figures`). Beside the table come a sheet of faces in every view and a strip of ten seconds, to be looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rap_edge.models.nano import SHIPPED
from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.checks.bounds import Real, Whole, argument
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra

with program_needs_extra("train", __name__):
    import torch
    from goal_figures import (
        SEED,
        VIEWS,
        Bytes,
        Face,
        Floats,
        Talker,
        espeak,
        face_figures,
        life_figures,
        track,
        voice_figures,
    )
    from torch.utils.flop_counter import FlopCounterMode

    from rap_edge.models.causal.networks import CausalNetworks
    from rap_edge.models.checkpoints.load import load_networks
    from rap_edge.models.nano.data.speech import FRAME_RATE, FRAME_SAMPLES
    from rap_edge.models.nano.train import collect
    from rap_edge.models.nano.training.stream import talk as torch_talk


@dataclass(frozen=True)
class Model:
    """A model under test.

    Attributes:
        name: heads its column.
        talk: see `goal_figures`.
        chunk, latent: frames from joint to joint.
        counted: whether its operations can be counted (PyTorch).
    """

    name: str
    talk: Talker
    chunk: int
    latent: int
    counted: bool


@dataclass(frozen=True)
class Goal:
    """What a figure should be: at least `least` and at most `most`."""

    figure: str
    least: float | None = None
    most: float | None = None

    def reached(self, value: float) -> bool:
        """Whether the figure lies where it should."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


def _living(name: str) -> tuple[Goal, ...]:
    return (
        Goal(f"blinks a minute, {name}", 8, 25),
        Goal(f"closure of a blink, {name}", 0.85),
        Goal(f"head over the renderer's, {name}", 0.5, 1.5),
        Goal(f"gaze over the renderer's, {name}", 0.5, 1.5),
        Goal(f"seeds apart, {name}", 0.5),
        Goal(f"change across chunks over change elsewhere, {name}", most=1.15),
        Goal(f"change across latents over change elsewhere, {name}", most=1.15),
    )


GOALS = (
    *_living("speech"),
    *_living("silence"),
    *(Goal(f"mouth, {name}", 0.75) for name in VIEWS),
    Goal("mouth, the worst face of all", 0.5),
    *(Goal(f"colour of {part}, levels off", most=8) for part in ("iris", "lips", "clothes")),
    Goal("sharpness of static parts over the portrait's", 0.5),
    Goal("voice, espeak-ng", 0.85),
    Goal("voice, another synthesizer", 0.65),
    Goal("voice, 7 semitones higher", 0.65),
    Goal("voice, 7 semitones lower", 0.65),
    Goal("voice, slow", 0.65),
    Goal("voice, fast", 0.65),
    Goal("voice, German", 0.65),
    Goal("voice, telephone", 0.6),
    Goal("voice, MP3 of 24 kbit/s", 0.65),
    Goal("voice, a room", 0.6),
    Goal("voice, noise 10 dB below", 0.6),
    Goal("voice, noise 5 dB below", 0.5),
    Goal("voice, music 10 dB below", 0.65),
    *(Goal(f"mouth closed in {name}", 0.95) for name in ("silence", "noise", "music", "hum", "a pure tone")),
    Goal("GFLOP for 0.96 s", most=46.5),
)
"""Where issue and model card name no figure for a kind of voice, that of telephones or of music."""


def network_model(name: str, networks: CausalNetworks) -> Model:
    """Networks through PyTorch."""
    spec = networks.spec

    def talk(portrait: Bytes, waveform: Floats, seed: int) -> Bytes:
        return torch_talk(networks.decoder, networks.dit, networks.audio_encoder, portrait, waveform, seed)

    return Model(name, talk, spec.new_frames, spec.temporal_compression, True)


def bundle_model(folder: Path) -> Model:
    """A bundle through the torch-free runtime, as shipped."""

    def talk(portrait: Bytes, waveform: Floats, seed: int) -> Bytes:
        with Avatar.open(folder, portrait, crop="none") as avatar, avatar.session(seed=seed) as session:
            session.push(waveform)
            session.finish()
            return np.concatenate([chunk.frames for chunk in session.chunks()])[: len(waveform) // FRAME_SAMPLES]

    with Avatar.open(folder, Face.sample(0).portrait) as avatar:
        spec = avatar.spec
    return Model(folder.name, talk, spec.new_frames, spec.temporal_compression, False)


def operations(model: Model) -> float:
    """GFLOP that one more second of 0.96 costs, the portrait left out."""
    portrait, counted = Face.sample(0).portrait, []
    for chunks in (2, 6):
        with FlopCounterMode(display=False) as counter:
            model.talk(portrait, np.zeros(chunks * 24 * FRAME_SAMPLES, np.float32), 0)
        counted.append(counter.get_total_flops() / 1e9)
    return (counted[1] - counted[0]) / 4


def pictures(model: Model, out: Path) -> None:
    """Write `<name>-faces.png`, every view as portrait and three frames, and `<name>-strip.png`, ten seconds."""
    rows = []
    for index, view in enumerate(VIEWS.values()):
        face = Face.sample(300 + index, view)
        sound, opening = track(espeak, np.random.default_rng([SEED, 6, index]), 75)
        video = model.talk(face.portrait, sound, index)
        shown = [int(np.argmax(opening)), 40, int(np.argmin(opening[20:])) + 20]
        rows.append(np.concatenate([face.portrait, *video[shown]], axis=1))
    halves = [np.concatenate(rows[: len(rows) // 2 + 1]), np.concatenate(rows[len(rows) // 2 + 1 :])]
    halves[1] = np.pad(halves[1], ((0, len(halves[0]) - len(halves[1])), (0, 0), (0, 0)))
    cv2.imwrite(str(out / f"{model.name}-faces.png"), cv2.cvtColor(np.concatenate(halves, 1), cv2.COLOR_RGB2BGR))
    face = Face.sample(320)
    sound, _ = track(espeak, np.random.default_rng([SEED, 7]), 250)
    video = model.talk(face.portrait, sound, 3)[::5]
    strip = np.concatenate([np.concatenate(video[row : row + 10], 1) for row in range(0, 50, 10)])
    cv2.imwrite(str(out / f"{model.name}-strip.png"), cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """The goals in Markdown, one column per model; what misses its goal is in bold."""
    lines = ["| figure | goal | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for goal in GOALS:
        cells = []
        for values in columns.values():
            value = values.get(goal.figure)
            text = "" if value is None else f"{value:.2f}"
            cells.append(text if value is None or goal.reached(value) else f"**{text}**")
        if any(cells):
            lines.append(f"| {goal.figure} | {goal} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured(model: Model, parts: Sequence[str], faces: int, seconds: float) -> dict[str, float]:
    """All figures of a model, of the given parts of the goals."""
    frames = round(seconds * FRAME_RATE)
    wanted: Mapping[str, Callable[[], dict[str, float]]] = {
        "life": lambda: life_figures(model.talk, faces, 4 * frames, model.chunk, model.latent),
        "faces": lambda: face_figures(model.talk, faces, frames),
        "voices": lambda: voice_figures(model.talk, 2 * faces, frames),
    }
    values: dict[str, float] = {}
    for part in parts:
        values |= wanted[part]()
        print(f"{model.name}: {part} measured", file=sys.stderr, flush=True)
    if model.counted:
        values["GFLOP for 0.96 s"] = operations(model)
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the given models, print the table and write figures and pictures."""
    return exit_status("goals", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, action="append", default=[], help="causal checkpoint, through PyTorch")
    parser.add_argument(
        "--run", type=Path, action="append", default=[], help="folder of a training run, as far as it has come"
    )
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="bundle, through the runtime")
    parser.add_argument("--parts", nargs="+", choices=("life", "faces", "voices"), default=["life", "faces", "voices"])
    parser.add_argument("--faces", type=argument(Whole(1, 100)), default=4, help="faces per view; twice per voice")
    parser.add_argument("--seconds", type=argument(Real(2.0, 600.0, "seconds")), default=7.2, help="of every clip")
    parser.add_argument("--threads", type=argument(Whole(1, 256)), default=2)
    parser.add_argument("--out", type=Path, default=Path("build/nano-goals"), help="for figures and pictures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    models = [network_model(path.name, load_networks(path)) for path in options.weights]
    models += [network_model(path.name, collect(path)) for path in options.run]
    models += [bundle_model(path) for path in options.bundle]
    models = models or [network_model("nano", load_networks(SHIPPED))]
    options.out.mkdir(parents=True, exist_ok=True)
    columns = {}
    for model in models:
        columns[model.name] = measured(model, options.parts, options.faces, options.seconds)
        (options.out / "figures.json").write_text(json.dumps(columns, indent=1) + "\n", encoding="utf-8")
        pictures(model, options.out)
    text = table(columns)
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    missed = [g for g in GOALS if not g.reached(columns[models[-1].name].get(g.figure, g.least or g.most or 0.0))]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
