"""The bundle: a folder with `manifest.json`, ONNX graphs, engines and a golden clip.

In: a folder that may come from a stranger. Out: a `Bundle` whose manifest is well formed, whose paths stay inside
the folder, and whose files have the size and sha256 that the manifest states.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from ..checks.graph_check import MAX_GRAPH_BYTES, check_graph
from ..checks.protobuf_wire import Content
from ..checks.regular_file import open_regular, read_regular, real_path, reason, state_of
from ..errors import BundleError
from .manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, PLAN_SUFFIX, FileInfo, Manifest, check_path


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

    def inside(self, file: str) -> str:
        """The path inside the bundle of a file that is named by that path already, or by its path on disk.

        What is neither is given back as it is.
        """
        path, root = Path(os.path.abspath(file)), Path(os.path.abspath(self.root))
        if file in self.manifest.files or not path.is_relative_to(root):
            return file
        return path.relative_to(root).as_posix()

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
