"""The roll-out in PyTorch that an export is compared with, and the golden clip that is cut from it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rap_edge.runtime.bundle.contract import runs_per_chunk, sound_sizes
from rap_edge.runtime.bundle.golden import pack_frames
from rap_edge.runtime.bundle.manifest import GoldenInfo
from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.outputs.png import encode_png
from rap_edge.runtime.outputs.wave_file import write_wave
from rap_edge.runtime.spec import AudioEncodeMode, ModelSpec

from ..bundle_writer import BundleWriter
from ..capture.own_model import AnyNetworks
from ..capture.torch_engine import torch_engines
from ..precision.activations import ActivationPeaks, Peaks
from ..precision.rules import FP16_MAX
from ..stages import Stages
from .check_inputs import RealInputs
from .compare import ROLLOUT_SEED, Case, Recorder, roll_out
from .reference_device import on_best_device

FEWEST_CHUNKS = 2
GOLDEN_SECONDS = 3.0
GOLDEN_FRAMES = 8


@dataclass
class Reference:
    """What PyTorch computed.

    Attributes:
        chunks: how many were rendered.
        cases: the first and the last recorded run of every network, or the last alone if chunks were left out.
        peaks: the largest activations of every graph, if they were watched.
        frames: new frames of every chunk.
        seconds: how long it took.
        why_fewer: why there are fewer chunks than asked for, else empty.
    """

    chunks: int
    cases: dict[str, list[Case]]
    peaks: dict[str, Peaks]
    frames: list[NDArray[np.uint8]]
    seconds: float
    why_fewer: str


def run_reference(
    networks: AnyNetworks,
    inputs: RealInputs,
    limits: tuple[int, float],
    stages: Stages,
    *,
    watch: bool,
    mode: AudioEncodeMode = "stream",
) -> Reference:
    """Roll out in PyTorch and record what every network was given and answered in the first and the last chunk.

    Args:
        networks: fp32.
        inputs: portrait and speech.
        limits: most chunks, and seconds that PyTorch and the graphs together should not exceed; at least
            `FEWEST_CHUNKS` chunks are rendered whatever they take, so that state is fed back.
        stages: is told how far it is.
        watch: whether to note the largest activations.
        mode: with "once" the audio encoder is also given sound that is longer than a window.

    Raises:
        NumericalError: a network gave NaN or Inf.
        ExportError: watched audio keys or values are beyond fp16, in which the graphs would exchange them.
    """
    spec, (most, budget) = networks.spec, limits
    peaks = ActivationPeaks()
    frames: list[NDArray[np.uint8]] = []
    chunks, why, started = most, "", time.monotonic()
    with (
        stages.stage("PyTorch roll-out", most * sum(runs_per_chunk(spec).values()) + 1, "runs") as progress,
        on_best_device(networks) as device,
    ):
        engines = torch_engines(networks, device, mode)
        with peaks.watch({name: engine.module for name, engine in engines.items()} if watch else {}):
            recorder = Recorder(active=True, on_run=lambda: progress.advance(most / chunks))
            for chunk in roll_out(spec, recorder.watch(engines), inputs, most):
                frames.append(chunk)
                if len(frames) == 1:
                    seconds = time.monotonic() - started
                    # The graphs take about as long again.
                    chunks = int(min(most, max(FEWEST_CHUNKS, budget // (2.0 * seconds))))
                    if chunks < most:
                        why = (
                            f"{chunks} chunks instead of {most}: one takes {seconds:.0f} s in PyTorch here, so {most} "
                            f"would take about {2.0 * most * seconds / 60.0:.0f} minutes with the graphs"
                        )
                recorder.active = len(frames) == chunks - 1
                if len(frames) == chunks:
                    break
            if mode == "once":
                recorder.active = True
                _hear_more(spec, recorder.watch(engines)["audio_encoder"], inputs)
    if chunks < most:
        # What is slow here is slow in the graphs too: one run of each has to do.
        recorder.cases = {name: cases[-1:] for name, cases in recorder.cases.items()}
    if watch:
        _require_half(recorder.cases["conditioner"])
    return Reference(chunks, recorder.cases, peaks.graphs, frames, time.monotonic() - started, why)


def _hear_more(spec: ModelSpec, audio_encoder: Engine, inputs: RealInputs) -> None:
    """Encode a window and a chunk at once."""
    execution = audio_encoder.prepare(sizes=sound_sizes(spec, spec.window_frames + spec.new_frames))
    waveform = execution.buffers["waveform"]
    waveform[0] = inputs.waveform(waveform.size)
    execution.run()


def _require_half(cases: list[Case]) -> None:
    for case in cases:
        for name, state in case.outputs.items():
            if (largest := float(np.abs(state).max())) > FP16_MAX:
                raise ExportError(
                    f"Graph 'conditioner' cannot give {name!r} in fp16: it reaches {largest:.3g} on real inputs and "
                    f"fp16 ends at {FP16_MAX:.0f}; export with --precision fp32."
                )


def golden_chunks(spec: ModelSpec, chunks: int) -> int:
    """Chunks of the golden clip when the roll-out has `chunks`."""
    return min(chunks, max(1, round(GOLDEN_SECONDS / spec.chunk_seconds)))


def write_golden(
    spec: ModelSpec, inputs: RealInputs, reference: Reference, psnr: float, writer: BundleWriter
) -> GoldenInfo:
    """Write portrait, speech and some of PyTorch's frames with their indices; returns the manifest's entry.

    `psnr` is what the exported graphs reach against these frames.
    """
    chunks = golden_chunks(spec, reference.chunks)
    frames = np.concatenate(reference.frames[:chunks])
    indices = np.unique(np.linspace(0, len(frames) - 1, GOLDEN_FRAMES).round().astype(np.int64))
    portrait = writer.add("golden/portrait.png", encode_png(inputs.portrait))
    # What its last frames hear ahead belongs to the clip.
    samples = chunks * spec.chunk_samples + spec.look_ahead_samples
    write_wave(writer.root / "golden" / "speech.wav", np.resize(inputs.speech, samples), spec.sample_rate)
    return GoldenInfo(
        portrait=portrait,
        audio="golden/speech.wav",
        frames=writer.add("golden/frames.npz", pack_frames(frames[indices], indices)),
        seed=ROLLOUT_SEED,
        psnr=psnr,
    )
