"""The bundle: a folder with `manifest.json`, ONNX graphs, engines and a golden clip.

In: a folder that may come from a stranger. Out: a `Bundle` whose manifest is well formed, whose paths stay inside
the folder, and whose files have the size and sha256 that the manifest states.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any

from ..checks.bounds import Count, Elements, InsidePath, Json, OneOf, Real, Sha256, Text, Whole
from ..checks.fields import FieldError, R, record_from
from ..checks.graph_check import MAX_GRAPH_BYTES, check_graph
from ..checks.protobuf_wire import Content
from ..checks.regular_file import open_regular, read_regular, real_path, reason, state_of
from ..errors import BundleError
from ..loop.noise import SEEDS
from ..spec import ModelSpec

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"
PLAN_SUFFIX = ".plan"
GRAPH_NAMES = ("audio_encoder", "conditioner", "dit", "vae_encoder", "vae_decoder")
PRECISIONS = ("fp32", "fp16", "int8", "fp8")
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
class GraphInfo:
    """One ONNX graph: its file, external data files, contract and multiply-add work.

    Attributes:
        file: path inside the bundle.
        data: external data files that the graph reads, paths inside the bundle.
        inputs: contract, in order.
        outputs: contract, in order.
        flops: floating point operations of one run (2 per multiply-add), 0 if not counted.
    """

    file: _InBundle
    inputs: Annotated[tuple[TensorInfo, ...], Count(8192)]
    outputs: Annotated[tuple[TensorInfo, ...], Count(8192)]
    data: Annotated[tuple[_InBundle, ...], Count(1024)] = ()
    flops: Annotated[int, Whole(0, 1 << 60)] = 0


@dataclass(frozen=True)
class GraphContent:
    """A graph as ONNX Runtime reads it.

    Attributes:
        file: content of the ONNX file.
        data: content of its external data files, by the names that the graph has for them.
    """

    file: bytes
    data: Mapping[str, Content]


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
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        spec: the model.
        precision: one of `PRECISIONS`.
        graphs: the five graphs of the contract by name.
        files: every file of the bundle but the manifest, by path inside the bundle.
        engines: built engines by graph name; several where they were built for different places.
        provenance: where the weights came from and which versions exported them.
        islands: nodes kept in a higher precision.
        parity: figures of the comparison with PyTorch.
        golden: what the self-test plays and expects.
        calibration: how a bundle in 8 bits was calibrated and what it reached; empty in others.
    """

    spec: ModelSpec
    precision: Annotated[str, OneOf(PRECISIONS)]
    graphs: Annotated[Mapping[_Name, GraphInfo], Count(64)]
    files: Annotated[Mapping[_InBundle, FileInfo], Count(65536)]
    engines: Annotated[Mapping[_Name, Annotated[tuple[EngineInfo, ...], Count(256)]], Count(64)] = field(
        default_factory=dict
    )
    provenance: _FreeForm = field(default_factory=dict)
    islands: Annotated[tuple[Island, ...], Count(65536)] = ()
    parity: _FreeForm = field(default_factory=dict)
    golden: GoldenInfo = GoldenInfo()
    calibration: _FreeForm = field(default_factory=dict)

    def to_json(self) -> str:
        """The manifest as JSON text, without NaN or Infinity."""
        return json.dumps({"schema": SCHEMA_VERSION} | asdict(self), indent=2, allow_nan=False)

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
        for path in (*listed, *self.golden.files):
            if path not in self.files:
                raise BundleError(f"{path!r} is used but has no size and hash in {MANIFEST_NAME}; export again.")


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest has been read and checked."""

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, root: str | Path) -> Bundle:
        """Read and check the manifest of the bundle at `root`; other files are checked when they are read.

        Raises:
            BundleError: no such folder, no manifest, or a manifest that `Manifest.from_json` refuses.
        """
        root = Path(root)
        try:
            text = read_regular(_inside(root, MANIFEST_NAME), MAX_MANIFEST_BYTES).decode()
        except OSError as error:
            raise BundleError(
                f"{str(root)!r} holds no readable {MANIFEST_NAME} ({reason(error)}); pass the folder that rap-export "
                "wrote."
            ) from None
        except UnicodeDecodeError:
            raise BundleError(f"The {MANIFEST_NAME} in {str(root)!r} is no text; export the bundle again.") from None
        return cls(root, Manifest.from_json(text))

    @classmethod
    def containing(cls, file: str | Path) -> tuple[Bundle, str]:
        """The bundle that `file` lies in and its path inside it.

        A plan that is not there yet, in the folder of a bundle, is found too: whoever loads it says how it is built.

        Raises:
            BundleError: the file is missing or no folder above it holds a manifest that lists it.
        """
        path = Path(file)
        if path.suffix == PLAN_SUFFIX and not os.path.lexists(path) and os.path.isfile(path.parent / MANIFEST_NAME):
            return cls.open(path.parent), path.name
        if not os.path.isfile(path):
            raise BundleError(f"{str(file)!r} is not a file; pass an engine or graph inside a bundle.")
        path = path.absolute()
        for parent in path.parents:
            if os.path.isfile(parent / MANIFEST_NAME):
                bundle, inside = cls.open(parent), path.relative_to(parent).as_posix()
                if inside in bundle.manifest.files:
                    return bundle, inside
        raise BundleError(f"{str(file)!r} lies in no bundle that lists it; pass a file that rap-export wrote.")

    def path(self, inside: str) -> Path:
        """The file's path on disk.

        Raises:
            BundleError: the path, or a link on the way, leaves the bundle.
        """
        return _inside(self.root, inside)

    def read(self, inside: str, most: int = 256 << 20) -> bytes:
        """The content of a file: the very bytes whose size and hash were compared, and a graph's were checked.

        Args:
            inside: path inside the bundle.
            most: bytes that it may have.

        Raises:
            BundleError: the file is not listed, missing, no regular file, too large or changed, or `check_graph`
                refuses it.
        """
        if (info := self.manifest.files.get(inside)) is not None and info.bytes > most:
            raise BundleError(f"{inside!r} is larger than {most >> 20} MiB; get the bundle from a source you trust.")
        with self._open(inside) as file, _told(inside):
            content = file.read(self.manifest.files[inside].bytes + 1)
        self._compare(inside, len(content), hashlib.sha256(content).hexdigest())
        self._check_graph(inside, content)
        return content

    @contextmanager
    def mapped(self, inside: str) -> Iterator[Content]:
        """The content of a file, compared and checked as by `read`, in pages that the system reads and takes back.

        Raises:
            BundleError: as `read`; also at the end, if the file was changed meanwhile.
        """
        with self._open(inside) as file:
            before = state_of(file)
            with _told(inside):
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                # Nobody closes the map: an error's traceback may still hold a view of it.
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""
            self._compare(inside, len(content), digest)
            self._check_graph(inside, content)
            yield content
            if state_of(file) != before:
                raise BundleError(f"{inside!r} was changed while it was read; try again.")

    def check_sizes(self, paths: Iterable[str]) -> None:
        """Check that files are there, regular and of their size, which takes no time; raises `BundleError`."""
        for inside in paths:
            self._open(inside).close()

    def verify(self, paths: Iterable[str] | None = None) -> None:
        """Check the given files, or every file, as `read` does, and keep none.

        Raises:
            BundleError: as `read`.
        """
        for inside in self.manifest.files if paths is None else paths:
            with self.mapped(inside):
                pass

    @contextmanager
    def graph_content(self, name: str) -> Iterator[GraphContent]:
        """What ONNX Runtime reads of graph `name`; raises `BundleError` as `mapped`."""
        info = self.manifest.graphs[name]
        with ExitStack() as stack:
            data = {_beside(info.file, inside): stack.enter_context(self.mapped(inside)) for inside in info.data}
            yield GraphContent(self.read(info.file, MAX_GRAPH_BYTES), data)

    def graph_files(self, name: str) -> tuple[str, ...]:
        """The files, paths inside the bundle, that running graph `name` reads."""
        graph = self.manifest.graphs[name]
        return (graph.file, *graph.data)

    def _open(self, inside: str) -> BufferedReader:
        """The file, regular and of the size that the manifest states."""
        if inside not in self.manifest.files:
            raise BundleError(f"{inside!r} has no size and hash in {MANIFEST_NAME}; export again.")
        with _told(inside):
            file = open_regular(self.path(inside))
        try:
            self._compare(inside, os.fstat(file.fileno()).st_size)
        except BundleError:
            file.close()
            raise
        return file

    def _compare(self, inside: str, size: int, sha256: str | None = None) -> None:
        info = self.manifest.files[inside]
        if size != info.bytes:
            raise BundleError(f"{inside!r} has {size} bytes instead of {info.bytes}; copy it again or export again.")
        if sha256 not in (None, info.sha256):
            raise BundleError(f"{inside!r} has been changed (sha256 differs); copy it or export again.")

    def _check_graph(self, inside: str, content: Content) -> None:
        for name, graph in self.manifest.graphs.items():
            if graph.file == inside:
                check_graph(name, content, [_beside(graph.file, path) for path in graph.data])


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


def hash_file(path: Path) -> FileInfo:
    """Size and sha256 of a file.

    Raises:
        BundleError: it is no regular file, or cannot be read.
    """
    try:
        with open_regular(real_path(path)) as file:
            digest = hashlib.file_digest(file, "sha256")
            return FileInfo(file.tell(), digest.hexdigest())
    except OSError as error:
        raise BundleError(f"{str(path)!r} cannot be read ({reason(error)}); check its permissions.") from None


def _inside(root: Path, inside: str) -> Path:
    """The path on disk, links followed; raises `BundleError` if it leaves `root`."""
    base = real_path(root)
    path = Path(real_path(os.path.join(base, check_path(inside))))
    if not path.is_relative_to(base):
        raise BundleError(f"{inside!r} leads outside the bundle; get the bundle from a source you trust.")
    return path


def _beside(file: str, other: str) -> str:
    """How the graph in `file` calls another file of the bundle."""
    return posixpath.relpath(other, posixpath.dirname(file) or ".")


@contextmanager
def _told(inside: str) -> Iterator[None]:
    """Turns an `OSError` into a sentence about a file of the bundle."""
    try:
        yield
    except FileNotFoundError:
        raise BundleError(f"The bundle lacks {inside!r}; copy the whole folder or export it again.") from None
    except OSError as error:
        raise BundleError(f"{inside!r} cannot be read ({reason(error)}); copy it again or export again.") from None


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
