"""The manifest: what a bundle says of itself, as records whose every field has its bounds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from ..checks.bounds import SEEDS, Count, Elements, InsidePath, Json, OneOf, Real, Sha256, Text, Whole
from ..checks.fields import FieldError, R, record_from
from ..errors import BundleError
from ..spec import ModelSpec
from .precision import Precision

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"
PLAN_SUFFIX = ".plan"
GRAPH_NAMES = ("audio_encoder", "conditioner", "dit", "vae_encoder", "vae_decoder")
DTYPES = ("float32", "float16", "uint8", "int8", "int32", "int64")
MAX_MANIFEST_BYTES = 16 << 20
_Name = Annotated[str, Text(256)]
_InBundle = Annotated[str, InsidePath()]
Hash = Annotated[str, Sha256()]
_Bytes = Annotated[int, Whole(0, 1 << 50, "bytes")]
_Dimension = Annotated[int, Whole(1, 1 << 34)] | _Name
_FreeForm = Annotated[Mapping[str, Any], Json()]


@dataclass(frozen=True)
class TensorInfo:
    """Name, numpy dtype name and shape of a graph's input or output; a string dimension is free."""

    name: _Name
    dtype: Annotated[str, OneOf(DTYPES)]
    shape: Annotated[tuple[_Dimension, ...], Count(8), Elements(1 << 34)]


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and sha256 (hex) of one file of the bundle."""

    bytes: _Bytes
    sha256: Hash


@dataclass(frozen=True)
class WorkingMemory:
    """Bytes that a run with so many frames takes on a processor besides weights and ends, at the most."""

    frames: Annotated[int, Whole(1, 1 << 30)]
    bytes: _Bytes


@dataclass(frozen=True)
class GraphInfo:
    """One ONNX graph: its file, external data files, contract and multiply-add work.

    Attributes:
        file: path inside the bundle.
        data: external data files that the graph reads, paths inside the bundle.
        inputs: contract, in order.
        outputs: contract, in order.
        flops: floating point operations of one run (2 per multiply-add), 0 if not counted.
        memory: of an audio encoder for sound of any length, at rising lengths; the last is the longest.
    """

    file: _InBundle
    inputs: Annotated[tuple[TensorInfo, ...], Count(8192)]
    outputs: Annotated[tuple[TensorInfo, ...], Count(8192)]
    data: Annotated[tuple[_InBundle, ...], Count(1024)] = ()
    flops: Annotated[int, Whole(0, 1 << 60)] = 0
    memory: Annotated[tuple[WorkingMemory, ...], Count(64)] = ()


@dataclass(frozen=True)
class EngineInfo:
    """One built engine of a graph, what it was built from, and where it can run.

    Attributes:
        file: path inside the bundle.
        backend: "tensorrt-rtx" or "tensorrt".
        version: of the backend, "1.7.1.116".
        platform: operating system and machine, "linux-x86_64".
        compute_capabilities: of the GPUs that can run it, "8.9"; "8.0+" stands for 8.0 and later.
        profile: name of the build profile, which says how far the engine travels.
        graph_sha256: `graph_hash` of the ONNX graph that it was built from.
        evidence: what the check of the built engine found: fused attention and the precision of its products.
        activation_bytes: device memory that a run needs besides weights and tensors, 0 if not known.
    """

    file: _InBundle
    backend: Annotated[str, Text(64)]
    version: Annotated[str, Text(64)]
    platform: Annotated[str, Text(64)]
    compute_capabilities: Annotated[tuple[Annotated[str, Text(16)], ...], Count(64)]
    profile: Annotated[str, Text(64)]
    graph_sha256: Hash
    evidence: _FreeForm = field(default_factory=dict)
    activation_bytes: _Bytes = 0

    @property
    def build(self) -> tuple[str, ...]:
        """What the engines of all graphs that were built together have in common."""
        return (self.backend, self.version, self.platform, self.profile, *self.compute_capabilities)


@dataclass(frozen=True)
class Island:
    """A node that stays in a higher precision than its graph, and why."""

    graph: _Name
    node: Annotated[str, Text(1024)]
    rule: _Name
    reason: Annotated[str, Text(1024)]


@dataclass(frozen=True)
class GoldenInfo:
    """The golden clip, paths inside the bundle; None where the bundle has no such thing.

    Attributes:
        portrait: picture file.
        audio: speech file.
        frames: the expected frames.
        seed: of the noise.
        psnr: in dB, what the bundle reached when it was exported.
    """

    portrait: _InBundle | None = None
    audio: _InBundle | None = None
    frames: _InBundle | None = None
    seed: Annotated[int, SEEDS] | None = None
    psnr: Annotated[float, Real(-1000.0, 1000.0, "dB")] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Those of portrait, audio and frames that there are."""
        return tuple(path for path in (self.portrait, self.audio, self.frames) if path is not None)


@dataclass(frozen=True)
class PortraitFigures:
    """How near a model's own picture of a portrait, encoded and decoded in silence, is to it.

    Attributes:
        psnr: in dB, of the whole picture.
        ssim: of the brightness in the middle, where the face is, at most 1.
        colour: mean difference of the colours of 16 x 16 areas, in levels of 255.
    """

    psnr: Annotated[float, Real(-1000.0, 1000.0, "dB")]
    ssim: Annotated[float, Real(-1.0, 1.0)]
    colour: Annotated[float, Real(0.0, 255.0, "levels")]


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        spec: the model.
        precision: what the graphs compute in.
        graphs: the five graphs of the contract by name.
        files: every file of the bundle but the manifest, by path inside the bundle.
        engines: built engines by graph name; several where they were built for different places.
        provenance: where the weights came from and which versions exported them.
        islands: nodes kept in a higher precision.
        parity: figures of the comparison with PyTorch.
        golden: what the self-test plays and expects.
        portrait_gates: what a portrait has to reach that the model can draw; None where it was not measured.
        portraits: faces that the model is at home with, picture files by name, for a kiosk to offer.
        calibration: how a bundle in 8 bits was calibrated and what it reached; empty in others.
    """

    spec: ModelSpec
    precision: Precision
    graphs: Annotated[Mapping[_Name, GraphInfo], Count(64)]
    files: Annotated[Mapping[_InBundle, FileInfo], Count(65536)]
    engines: Annotated[Mapping[_Name, Annotated[tuple[EngineInfo, ...], Count(256)]], Count(64)] = field(
        default_factory=dict
    )
    provenance: _FreeForm = field(default_factory=dict)
    islands: Annotated[tuple[Island, ...], Count(65536)] = ()
    parity: _FreeForm = field(default_factory=dict)
    golden: GoldenInfo = GoldenInfo()
    portrait_gates: PortraitFigures | None = None
    portraits: Annotated[Mapping[_Name, _InBundle], Count(64)] = field(default_factory=dict)
    calibration: _FreeForm = field(default_factory=dict)

    def to_json(self) -> str:
        """The manifest as JSON text, without NaN or Infinity."""
        data = {"schema": SCHEMA_VERSION} | asdict(self) | {"spec": self.spec.to_dict()}
        return json.dumps(data, indent=2, allow_nan=False)

    def sha256(self) -> str:
        """Of all that it says, and so of every file that it lists."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest and check everything that can be checked without the files.

        Raises:
            BundleError: not JSON, another schema, a missing key, a value outside its field's bounds, a path that leaves
                the bundle, a graph that is missing or lists a file that has no hash.
            SpecError: the spec inside is illegal.
        """
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{MANIFEST_NAME} is not valid JSON ({error}); export the bundle again.") from None
        schema = data.get("schema") if isinstance(data, dict) else None
        if not isinstance(schema, int) or Whole(0, 1 << 31).fault(schema):
            raise BundleError(f"{MANIFEST_NAME} states no schema version; export the bundle again.")
        if schema != SCHEMA_VERSION:
            cure = "upgrade rap-edge" if schema > SCHEMA_VERSION else "export the bundle again"
            raise BundleError(f"{MANIFEST_NAME} has schema {schema} and this version reads {SCHEMA_VERSION}; {cure}.")
        try:
            manifest = record_from(cls, data | {"spec": ModelSpec.from_dict(data.get("spec"))})
        except FieldError as error:
            raise BundleError(f"{MANIFEST_NAME} cannot be read: {error}; export the bundle again.") from None
        manifest._check()
        return manifest

    def _check(self) -> None:
        for name in GRAPH_NAMES:
            if name not in self.graphs:
                raise BundleError(f"The bundle has no graph {name!r}; export it again.")
        listed = [path for graph in self.graphs.values() for path in (graph.file, *graph.data)]
        listed += [engine.file for engines in self.engines.values() for engine in engines]
        for path in (*listed, *self.golden.files, *self.portraits.values()):
            if path not in self.files:
                raise BundleError(f"{path!r} is used but has no size and hash in {MANIFEST_NAME}; export again.")


def recorded(cls: type[R], data: Mapping[str, Any], where: str) -> R:
    """What a free-form part of a manifest says of the fields of `cls`.

    Args:
        cls: a dataclass that says by its annotations what its fields may be.
        data: of the manifest.
        where: names that part in errors.

    Raises:
        BundleError: an entry is missing or not within its field's bounds.
    """
    try:
        return record_from(cls, data, where)
    except FieldError as error:
        raise BundleError(f"{MANIFEST_NAME} cannot be used: {error}; make the bundle again.") from None


def graph_hash(files: Mapping[str, FileInfo], graph: GraphInfo) -> str:
    """sha256 (hex) over the hashes of a graph's file and of its external data, in order: what an engine is built from.

    Args:
        files: the manifest's, by path inside the bundle.
        graph: lists the paths.
    """
    return hashlib.sha256("\n".join(files[path].sha256 for path in (graph.file, *graph.data)).encode()).hexdigest()


def check_path(path: str) -> str:
    """Return `path` if it is a plain relative POSIX path that stays inside the bundle.

    Raises:
        BundleError: absolute, too long, with `..`, backslash, drive letter, control character or empty part.
    """
    if fault := InsidePath().fault(path):
        raise BundleError(f"A path {fault}; do not use this bundle.")
    return path


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
