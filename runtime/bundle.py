"""The bundle: a folder with `manifest.json`, ONNX graphs, engines and a golden clip.

In: a folder that may come from a stranger. Out: a `Bundle` whose manifest is well formed, whose paths stay inside
the folder, and whose files have the size and sha256 that the manifest states.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import BundleError
from .spec import ModelSpec

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"
GRAPH_NAMES = ("audio_encoder", "conditioner", "dit", "vae_encoder", "vae_decoder")
PRECISIONS = ("fp32", "fp16", "int8", "fp8")
DTYPES = ("float32", "float16", "uint8", "int8", "int32", "int64")
MAX_MANIFEST_BYTES = 16 << 20
_HASH_BLOCK = 1 << 20


@dataclass(frozen=True)
class TensorInfo:
    """Name, numpy dtype name and shape of a graph's input or output; a string dimension is free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and sha256 (hex) of one file of the bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class GraphInfo:
    """One ONNX graph: its file, external data files, contract and multiply-add work.

    Attributes:
        file: path inside the bundle.
        data: external data files that the graph reads, paths inside the bundle.
        inputs: contract, in order.
        outputs: contract, in order.
        flops: floating point operations of one run (2 per multiply-add), 0 if not counted.
    """

    file: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    data: tuple[str, ...] = ()
    flops: int = 0


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

    file: str
    backend: str
    version: str
    platform: str
    compute_capabilities: tuple[str, ...]
    profile: str
    graph_sha256: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    activation_bytes: int = 0

    @property
    def build(self) -> tuple[str, ...]:
        """What the engines of all graphs that were built together have in common."""
        return (self.backend, self.version, self.platform, self.profile, *self.compute_capabilities)


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        spec: the model.
        precision: one of `PRECISIONS`.
        graphs: the five graphs of the contract by name.
        files: every file of the bundle but the manifest, by path inside the bundle.
        engines: built engines by graph name; several where they were built for different places.
        provenance: where the weights came from and which versions exported them.
        islands: nodes kept in a higher precision, each with graph, node, rule and reason.
        parity: figures of the comparison with PyTorch.
        golden: paths of the golden clip: `portrait`, `audio`, `frames`, with `seed` and the expected PSNR.
        calibration: how a bundle in 8 bits was calibrated and what it reached; empty in others.
    """

    spec: ModelSpec
    precision: str
    graphs: Mapping[str, GraphInfo]
    files: Mapping[str, FileInfo]
    engines: Mapping[str, tuple[EngineInfo, ...]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    islands: tuple[Mapping[str, str], ...] = ()
    parity: Mapping[str, Any] = field(default_factory=dict)
    golden: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The manifest as JSON text, without NaN or Infinity."""
        return json.dumps(
            {
                "schema": SCHEMA_VERSION,
                "spec": self.spec.to_dict(),
                "precision": self.precision,
                "graphs": {
                    name: {
                        "file": graph.file,
                        "data": list(graph.data),
                        "inputs": [_tensor_dict(t) for t in graph.inputs],
                        "outputs": [_tensor_dict(t) for t in graph.outputs],
                        "flops": graph.flops,
                    }
                    for name, graph in self.graphs.items()
                },
                "engines": {
                    name: [
                        {
                            "file": engine.file,
                            "backend": engine.backend,
                            "version": engine.version,
                            "platform": engine.platform,
                            "compute_capabilities": list(engine.compute_capabilities),
                            "profile": engine.profile,
                            "graph_sha256": engine.graph_sha256,
                            "evidence": dict(engine.evidence),
                            "activation_bytes": engine.activation_bytes,
                        }
                        for engine in engines
                    ]
                    for name, engines in self.engines.items()
                },
                "files": {path: {"bytes": info.bytes, "sha256": info.sha256} for path, info in self.files.items()},
                "provenance": dict(self.provenance),
                "islands": [dict(island) for island in self.islands],
                "parity": dict(self.parity),
                "golden": dict(self.golden),
                "calibration": dict(self.calibration),
            },
            indent=2,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest and check everything that can be checked without the files.

        Raises:
            BundleError: not JSON, another schema, a missing or mistyped key, a path that leaves the bundle, a
                graph that is missing or lists a file that has no hash.
            SpecError: the spec inside is illegal.
        """
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{MANIFEST_NAME} is not valid JSON ({error}); export the bundle again.") from None
        if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
            raise BundleError(f"{MANIFEST_NAME} states no schema version; export the bundle again.")
        if data["schema"] != SCHEMA_VERSION:
            cure = "upgrade rap-edge" if data["schema"] > SCHEMA_VERSION else "export the bundle again"
            raise BundleError(
                f"{MANIFEST_NAME} has schema {data['schema']} and this version reads {SCHEMA_VERSION}; {cure}."
            )
        reader = _Reader(data)
        manifest = cls(
            spec=ModelSpec.from_dict(reader.get("spec", dict)),
            precision=reader.get("precision", str),
            graphs={name: _graph(name, entry) for name, entry in reader.get("graphs", dict).items()},
            files={check_path(path): _file(path, entry) for path, entry in reader.get("files", dict).items()},
            engines={
                name: tuple(_engine(name, entry) for entry in _Reader({name: entries}).get(name, list))
                for name, entries in reader.get("engines", dict).items()
            },
            provenance=reader.get("provenance", dict),
            islands=tuple(_island(entry) for entry in reader.get("islands", list)),
            parity=reader.get("parity", dict),
            golden=reader.get("golden", dict),
            calibration=reader.get("calibration", dict),
        )
        manifest._check()
        return manifest

    def _check(self) -> None:
        if self.precision not in PRECISIONS:
            raise BundleError(
                f"precision {self.precision!r} is unknown to this version; upgrade rap-edge or export again."
            )
        for name in GRAPH_NAMES:
            if name not in self.graphs:
                raise BundleError(f"The bundle has no graph {name!r}; export it again.")
        listed = [path for graph in self.graphs.values() for path in (graph.file, *graph.data)]
        listed += [engine.file for engines in self.engines.values() for engine in engines]
        listed += [value for key, value in self.golden.items() if key in ("portrait", "audio", "frames")]
        for path in listed:
            if not isinstance(path, str) or path not in self.files:
                raise BundleError(f"{path!r} is used but has no size and hash in {MANIFEST_NAME}; export again.")


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest has been read and checked."""

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, root: str | Path) -> Bundle:
        """Read and check the manifest of the bundle at `root`; files are checked by `verify`.

        Raises:
            BundleError: no such folder, no manifest, or a manifest that `Manifest.from_json` refuses.
        """
        root = Path(root)
        path = root / MANIFEST_NAME
        try:
            if path.stat().st_size > MAX_MANIFEST_BYTES:
                raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB; it is no manifest.")
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, ValueError):
            raise BundleError(
                f"{str(root)!r} holds no readable {MANIFEST_NAME}; pass the folder that rap-export wrote."
            ) from None
        return cls(root, Manifest.from_json(text))

    @classmethod
    def containing(cls, file: str | Path) -> tuple[Bundle, str]:
        """The bundle that `file` lies in and its path inside it.

        Raises:
            BundleError: the file is missing or no folder above it holds a manifest that lists it.
        """
        path = Path(file)
        if not path.is_file():
            raise BundleError(f"{str(file)!r} is not a file; pass an engine or graph inside a bundle.")
        path = path.absolute()
        for parent in path.parents:
            if (parent / MANIFEST_NAME).is_file():
                bundle, inside = cls.open(parent), path.relative_to(parent).as_posix()
                if inside in bundle.manifest.files:
                    return bundle, inside
        raise BundleError(f"{str(file)!r} lies in no bundle that lists it; pass a file that rap-export wrote.")

    def path(self, inside: str) -> Path:
        """The file's path on disk.

        Raises:
            BundleError: the path, or a link on the way, leaves the bundle.
        """
        root = self.root.resolve()
        path = (root / check_path(inside)).resolve()
        if not path.is_relative_to(root):
            raise BundleError(f"{inside!r} leads outside the bundle; get the bundle from a source you trust.")
        return path

    def verify(self, paths: Iterable[str] | None = None) -> None:
        """Check size and sha256 of the given files, or of every file.

        Raises:
            BundleError: a file is missing, shorter, longer or changed.
        """
        for inside in self.manifest.files if paths is None else paths:
            if inside not in self.manifest.files:
                raise BundleError(f"{inside!r} has no size and hash in {MANIFEST_NAME}; export again.")
            info, path = self.manifest.files[inside], self.path(inside)
            if not path.is_file():
                raise BundleError(f"The bundle lacks {inside!r}; copy the whole folder or export it again.")
            if (size := path.stat().st_size) != info.bytes:
                raise BundleError(
                    f"{inside!r} has {size} bytes instead of {info.bytes}; copy it again or export again."
                )
            if hash_file(path).sha256 != info.sha256:
                raise BundleError(f"{inside!r} has been changed (sha256 differs); copy it or export again.")

    def graph_files(self, name: str) -> tuple[str, ...]:
        """The files, paths inside the bundle, that running graph `name` reads."""
        graph = self.manifest.graphs[name]
        return (graph.file, *graph.data)


def graph_hash(files: Mapping[str, FileInfo], graph: GraphInfo) -> str:
    """sha256 (hex) over the hashes of a graph's file and of its external data, in order: what an engine is built from.

    Args:
        files: the manifest's, by path inside the bundle.
        graph: lists the paths.
    """
    return hashlib.sha256("\n".join(files[path].sha256 for path in (graph.file, *graph.data)).encode()).hexdigest()


def hash_file(path: Path) -> FileInfo:
    """Size and sha256 of a file.

    Raises:
        BundleError: the file cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            while block := stream.read(_HASH_BLOCK):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise BundleError(f"{str(path)!r} cannot be read ({error.strerror}); check its permissions.") from None
    return FileInfo(size, digest.hexdigest())


def check_path(path: str) -> str:
    """Return `path` if it is a plain relative POSIX path that stays inside the bundle.

    Raises:
        BundleError: absolute, with `..`, backslash, drive letter, control character or empty part.
    """
    plain = (
        0 < len(path) <= 1024
        and not re.search(r"[\x00-\x1f\\:]", path)
        and all(part not in ("", ".", "..") for part in path.split("/"))
        and not PurePosixPath(path).is_absolute()
    )
    if not plain:
        raise BundleError(f"The path {path!r} is not a plain path inside the bundle; do not use this bundle.")
    return path


class _Reader:
    """Typed access to a JSON object that names the key in its errors."""

    def __init__(self, data: object, where: str = MANIFEST_NAME) -> None:
        if not isinstance(data, dict):
            raise BundleError(f"{where} has a {type(data).__name__} in place of an object; export the bundle again.")
        self._data, self._where = data, where

    def get(self, key: str, kind: type, default: object = None) -> Any:
        value = self._data.get(key, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BundleError(f"{self._where} lacks a valid {key!r}; export the bundle again.")
        if isinstance(value, int) and value < 0:
            raise BundleError(f"{self._where} has a negative {key!r}; export the bundle again.")
        return value


def _graph(name: str, entry: object) -> GraphInfo:
    reader = _Reader(entry, f"graph {name!r}")
    return GraphInfo(
        file=check_path(reader.get("file", str)),
        data=tuple(_path_item(item, name) for item in reader.get("data", list)),
        inputs=tuple(_tensor(item, name) for item in reader.get("inputs", list)),
        outputs=tuple(_tensor(item, name) for item in reader.get("outputs", list)),
        flops=reader.get("flops", int),
    )


def _path_item(item: object, where: str) -> str:
    if not isinstance(item, str):
        raise BundleError(f"graph {where!r} lists a file name that is not a string; export the bundle again.")
    return check_path(item)


def _tensor(entry: object, where: str) -> TensorInfo:
    reader = _Reader(entry, f"a tensor of graph {where!r}")
    dtype = reader.get("dtype", str)
    shape: list[Any] = reader.get("shape", list)
    sizes: list[int] = [d for d in shape if isinstance(d, int)]
    legal = all(isinstance(d, str) for d in shape if d not in sizes) and all(d > 0 and d is not True for d in sizes)
    # A stranger's manifest must not make us allocate without bound.
    if dtype not in DTYPES or not legal or len(shape) > 8 or math.prod(sizes) > 1 << 34:
        raise BundleError(f"A tensor of graph {where!r} has an impossible dtype or shape; export the bundle again.")
    return TensorInfo(reader.get("name", str), dtype, tuple(shape))


def _tensor_dict(tensor: TensorInfo) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _file(path: str, entry: object) -> FileInfo:
    reader = _Reader(entry, f"file {path!r}")
    return FileInfo(reader.get("bytes", int), _sha256(reader, f"file {path!r}", "sha256"))


def _sha256(reader: _Reader, where: str, key: str = "graph_sha256") -> str:
    sha256: str = reader.get(key, str)
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise BundleError(f"{where} has no valid {key}; export the bundle again.")
    return sha256


def _engine(name: str, entry: object) -> EngineInfo:
    reader = _Reader(entry, f"engine of {name!r}")
    capabilities = reader.get("compute_capabilities", list)
    if not all(isinstance(item, str) for item in capabilities):
        raise BundleError(f"engine of {name!r} lists an invalid compute capability; export again.")
    return EngineInfo(
        file=check_path(reader.get("file", str)),
        backend=reader.get("backend", str),
        version=reader.get("version", str),
        platform=reader.get("platform", str),
        compute_capabilities=tuple(capabilities),
        profile=reader.get("profile", str),
        graph_sha256=_sha256(reader, f"engine of {name!r}"),
        evidence=reader.get("evidence", dict),
        activation_bytes=reader.get("activation_bytes", int, 0),
    )


def _island(entry: object) -> Mapping[str, str]:
    reader = _Reader(entry, "a precision island")
    return {key: reader.get(key, str) for key in ("graph", "node", "rule", "reason")}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
