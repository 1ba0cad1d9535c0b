"""States of the real chunk loop: what every graph was given at every denoise level, chunk, sound and portrait.

A recorded set is a folder: `set.json` and one .npz per run of a graph, listed with its sha256.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from rap_edge.export.stages import Stages
from rap_edge.runtime.bundle.bundle import hash_file
from rap_edge.runtime.bundle.contract import runs_per_chunk
from rap_edge.runtime.bundle.manifest import GRAPH_NAMES, Hash, Manifest
from rap_edge.runtime.checks.bounds import Count, Json, OneOf, Real, Text, Whole, printable, shown
from rap_edge.runtime.checks.fields import FieldError, record_from
from rap_edge.runtime.checks.regular_file import read_regular
from rap_edge.runtime.engines.interface import Array, Engine, Execution
from rap_edge.runtime.errors import BundleError, CalibrationError, first_line
from rap_edge.runtime.loop.interface import Loop, encode_reference
from rap_edge.runtime.loop.on_host import host_loop
from rap_edge.runtime.session.sample_buffer import SampleBuffer
from rap_edge.runtime.spec import ModelSpec

from .clips import Material

SET_NAME = "set.json"
SET_LIMIT = 1 << 30
MAX_INDEX_BYTES = 16 << 20
FORMAT = 1


@dataclass(frozen=True)
class _FileInSet:
    """The name of an .npz file without a folder."""

    def fault(self, value: object) -> str | None:
        if isinstance(value, str) and printable(value) and Path(value).name == value and value.endswith(".npz"):
            return None
        return f"must be an .npz file inside the set, not {shown(value)}"


@dataclass(frozen=True)
class Stratum:
    """Where in the loop a run happened.

    Attributes:
        portrait: index.
        sound: name.
        chunk: index; 0 starts from the portrait's latent, later ones from carried latents.
        level: timestep of a DiT's run, else None.
    """

    portrait: Annotated[int, Whole(0, 1 << 20)]
    sound: Annotated[str, Text()]
    chunk: Annotated[int, Whole(0, 1 << 31)]
    level: Annotated[float, Real(0.0, 1000.0)] | None

    @property
    def name(self) -> str:
        """The class of states that it belongs to."""
        level = "" if self.level is None else f", level {self.level:g}"
        sound = "silence" if self.sound.startswith("silence") else "speech"
        return f"{'first' if self.chunk == 0 else 'later'} chunk, {sound}{level}"


@dataclass(frozen=True)
class Entry:
    """One recorded run: its graph, where it happened, its file inside the set and that file's sha256."""

    graph: Annotated[str, OneOf(GRAPH_NAMES)]
    stratum: Stratum
    file: Annotated[str, _FileInSet()]
    sha256: Hash


@dataclass(frozen=True)
class _Index:
    format: Annotated[int, Whole(0, 1 << 31)]
    spec: Annotated[Mapping[str, Any], Json()]
    graphs: Annotated[Mapping[Annotated[str, Text()], Hash], Count(64)]
    entries: Annotated[tuple[Entry, ...], Count(1 << 20)]
    origin: Annotated[str, Text(4096)]


@dataclass(frozen=True)
class CalibrationSet:
    """Recorded states on disk.

    Attributes:
        folder: where.
        entries: every run.
        origin: of the portraits and sounds.
    """

    folder: Path
    entries: tuple[Entry, ...]
    origin: str

    @property
    def sha256(self) -> str:
        """Identifies the set: hash over what was recorded where."""
        lines = [f"{e.graph} {e.stratum} {e.sha256}" for e in self.entries]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def of(self, graph: str) -> tuple[Entry, ...]:
        """The runs of one graph."""
        return tuple(entry for entry in self.entries if entry.graph == graph)

    def load(self, entry: Entry) -> dict[str, Array]:
        """Inputs of a run by name.

        Raises:
            CalibrationError: the file is missing, changed or cannot be read.
        """
        path = self.folder / entry.file
        try:
            if hash_file(path).sha256 != entry.sha256:
                raise CalibrationError(f"{str(path)!r} has been changed since it was recorded; record the set again.")
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, zipfile.BadZipFile, BundleError) as error:
            raise CalibrationError(f"{str(path)!r} cannot be read ({error}); record the set again.") from error

    def strata(self) -> dict[str, int]:
        """How many runs there are of every graph and class of states."""
        counts: dict[str, int] = {}
        for entry in self.entries:
            key = f"{entry.graph}: {entry.stratum.name}"
            counts[key] = counts.get(key, 0) + 1
        return counts


def record(
    manifest: Manifest, engines: Mapping[str, Engine], material: Material, folder: Path, stages: Stages
) -> CalibrationSet:
    """Run the chunk loop for every portrait and sound, and keep what every graph is given.

    Every third portrait-and-sound pair is kept whole if all of them would pass `SET_LIMIT`, and so on.

    Args:
        manifest: of the bundle that the engines come from.
        engines: by graph name.
        material: portraits and sounds.
        folder: is made, or replaced if an earlier recording was cut off.
        stages: is told how far it is.

    Raises:
        CalibrationError: there is no portrait or no sound of a chunk's length.
        NumericalError: a stage gave NaN or Inf.
    """
    spec = manifest.spec
    pairs = [(index, sound) for index in range(len(material.portraits)) for sound in material.sounds]
    chunks = {sound.name: len(sound.waveform) // spec.chunk_samples for _, sound in pairs}
    if not pairs or not any(chunks.values()):
        raise CalibrationError("The calibration set is empty: no sound is as long as a chunk; pass longer audio.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    total = sum(chunks[sound.name] for _, sound in pairs)
    keep_one_in = max(1, math.ceil(total * _chunk_bytes(manifest) / SET_LIMIT))
    tape = _Tape(folder)
    watched = {name: _TapedEngine(name, engine, tape) for name, engine in engines.items()}
    with stages.stage("recording", total, "chunks") as progress:
        for number, (portrait, sound) in enumerate(pairs):
            tape.recording = number % keep_one_in == 0
            for chunk in _chunks(spec, watched, material.portraits[portrait], sound.waveform, portrait):
                tape.portrait, tape.sound, tape.chunk = portrait, sound.name, chunk
                progress.advance(1)
    recorded = CalibrationSet(folder, tuple(tape.entries), material.origin)
    _write_index(recorded, manifest)
    return recorded


def open_set(folder: Path, manifest: Manifest) -> CalibrationSet:
    """Open a recorded set for a bundle.

    Raises:
        CalibrationError: there is none, it cannot be read or is empty, or it was recorded from another spec or from
            graphs with other hashes.
    """
    path = folder / SET_NAME
    try:
        found = record_from(_Index, json.loads(read_regular(path, MAX_INDEX_BYTES)))
    except (OSError, ValueError, RecursionError) as error:
        reason = first_line(error) if isinstance(error, OSError | FieldError) else "it is not JSON"
        raise CalibrationError(
            f"{str(folder)!r} holds no readable calibration set ({reason}); pass a folder that rap-calibrate recorded, "
            "or none."
        ) from None
    if found.format != FORMAT:
        raise CalibrationError(f"The set {str(folder)!r} has another format than {FORMAT}; record the set again.")
    if found.spec != _plain(manifest.spec):
        name = found.spec.get("name")
        raise CalibrationError(
            f"The set {str(folder)!r} was recorded from another spec ({shown(name)}) than the bundle's "
            f"({manifest.spec.name!r}); record it from this bundle."
        )
    for name, sha256 in _graph_hashes(manifest).items():
        if found.graphs.get(name) != sha256:
            raise CalibrationError(
                f"The set {str(folder)!r} was recorded from another graph {name!r} than the bundle's (the hashes "
                "differ); record it from this bundle."
            )
    if not found.entries:
        raise CalibrationError(f"The calibration set {str(folder)!r} is empty; record it again.")
    return CalibrationSet(folder, found.entries, found.origin)


def _chunks(
    spec: ModelSpec, engines: Mapping[str, Engine], portrait: Array, waveform: Array, seed: int
) -> Iterator[int]:
    """Yield the index of every chunk before it is rendered; the portrait is encoded before the first."""
    count = len(waveform) // spec.chunk_samples
    buffer = SampleBuffer(spec.window_samples)
    buffer.append(waveform[: count * spec.chunk_samples])
    loop: Loop | None = None
    for index in range(count):
        yield index
        if loop is None:
            loop = host_loop(engines, spec, encode_reference(spec, engines["vae_encoder"], portrait), seed)
        start, stop = spec.window_of(index)
        buffer.read(start, stop, loop.waveform)
        loop.render(spec.steps)
        buffer.drop_before(stop)


@dataclass
class _Tape:
    """Writes the inputs of every run while `recording`."""

    folder: Path
    recording: bool = True
    portrait: int = 0
    sound: str = ""
    chunk: int = 0
    entries: list[Entry] = field(default_factory=list)

    def keep(self, graph: str, inputs: Mapping[str, Array]) -> None:
        level = float(inputs["timestep"][0]) if "timestep" in inputs else None
        file = f"{graph}-{len(self.entries):05d}.npz"
        np.savez(self.folder / file, **inputs)  # type: ignore[arg-type]
        stratum = Stratum(self.portrait, self.sound, self.chunk, level)
        self.entries.append(Entry(graph, stratum, file, hash_file(self.folder / file).sha256))


class _TapedEngine:
    def __init__(self, name: str, engine: Engine, tape: _Tape) -> None:
        self.name, self._engine, self._tape = name, engine, tape
        self.backend, self.device, self.graph = engine.backend, engine.device, engine.graph

    def prepare(self, buffers: Mapping[str, Array] | None = None, sizes: Mapping[str, int] | None = None) -> Execution:
        return _TapedExecution(self, self._engine.prepare(buffers, sizes), self._tape)


class _TapedExecution:
    def __init__(self, engine: _TapedEngine, execution: Execution, tape: _Tape) -> None:
        self._engine, self._execution, self._tape = engine, execution, tape
        self.buffers = execution.buffers

    def run(self) -> None:
        if self._tape.recording:
            self._tape.keep(self._engine.name, {t.name: self.buffers[t.name] for t in self._engine.graph.inputs})
        self._execution.run()

    def capture(self) -> str:
        return self._execution.capture()


def _chunk_bytes(manifest: Manifest) -> int:
    """About how large one chunk's recorded inputs are."""
    sizes = {
        name: sum(
            np.dtype(t.dtype).itemsize * math.prod(d if isinstance(d, int) else 1 for d in t.shape)
            for t in graph.inputs
        )
        for name, graph in manifest.graphs.items()
    }
    return sum(sizes[name] * max(count, 1) for name, count in runs_per_chunk(manifest.spec).items())


def _write_index(recorded: CalibrationSet, manifest: Manifest) -> None:
    data: dict[str, Any] = {
        "format": FORMAT,
        "spec": _plain(manifest.spec),
        "graphs": _graph_hashes(manifest),
        "origin": recorded.origin,
        "entries": [asdict(entry) for entry in recorded.entries],
    }
    # Written last: a set without it was cut off.
    (recorded.folder / SET_NAME).write_text(json.dumps(data), encoding="utf-8")


def _graph_hashes(manifest: Manifest) -> dict[str, str]:
    return {name: manifest.files[graph.file].sha256 for name, graph in manifest.graphs.items()}


def _plain(spec: ModelSpec) -> Any:
    return json.loads(json.dumps(spec.to_dict()))
