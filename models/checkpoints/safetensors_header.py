"""The header of a safetensors file: which tensors it holds, checked before one byte of them is read.

In: a file that may come from anybody. Out: dtype and shape of every tensor; one sentence if the header is damaged, or
if tensors overlap, leave gaps or end beyond the file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Annotated, Any

from rap_edge.runtime.checks.bounds import Count, OneOf, Text, Whole, shown
from rap_edge.runtime.checks.fields import FieldError, record_from
from rap_edge.runtime.checks.regular_file import open_regular, real_path, reason
from rap_edge.runtime.errors import CheckpointError

from ..config import read_json_object

# A hundred thousand tensors; the format allows 100 MB.
MAX_HEADER_BYTES = 16 << 20
# Bytes per value of the dtypes that weights come in, and of the counters that some checkpoints hold beside them.
DTYPES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8}
COUNTER = "I64"
# Of all that the format knows; what is no weight may be looked at, and not loaded.
ALL_DTYPES = DTYPES | {"F8_E4M3": 1, "F8_E5M2": 1, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1}
ALL_DTYPES |= {"BOOL": 1}
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_NAME = Text(1024)
_ZIP, _PICKLE = b"PK\x03\x04", tuple(bytes((0x80, protocol)) for protocol in range(2, 6))


@dataclass(frozen=True)
class TensorEntry:
    """What a header says of a tensor; it lies in the bytes from the first to the second of `data_offsets`."""

    dtype: Annotated[str, OneOf(tuple(ALL_DTYPES))]
    shape: Annotated[tuple[Annotated[int, Whole(0, 1 << 40)], ...], Count(8)]
    data_offsets: Annotated[tuple[Annotated[int, Whole(0, 1 << 50, "bytes")], ...], Count(2)]

    @property
    def begin(self) -> int:
        """First byte of its data."""
        return self.data_offsets[0]

    @property
    def end(self) -> int:
        """Byte after its data."""
        return self.data_offsets[1]


def read_header(file: Path, dtypes: Collection[str] = tuple(DTYPES)) -> dict[str, TensorEntry]:
    """The tensors in a safetensors file by name.

    Args:
        file: may come from anybody.
        dtypes: that are taken, of `ALL_DTYPES`.

    Raises:
        CheckpointError: the file is missing, a pickle, cut short or no safetensors file; or a tensor has an impossible
            name, dtype, shape or place.
    """
    try:
        # Download caches keep links to their files.
        with open_regular(real_path(file)) as opened:
            size, content = os.fstat(opened.fileno()).st_size, _header(file, opened)
    except OSError as error:
        raise CheckpointError(
            f"{file} is missing or unreadable ({reason(error)}); download the checkpoint completely."
        ) from None
    parsed = _parsed(file, content)
    tensors = {name: _entry(file, name, value, dtypes) for name, value in parsed.items() if name != _METADATA}
    _check_places(file, tensors, size - _LENGTH_BYTES - len(content))
    return tensors


def read_index(index: Path) -> dict[str, str]:
    """The file beside it that holds each tensor, as the index of a checkpoint in shards says.

    Raises:
        CheckpointError: it has no such map, or one that leads out of its folder.
    """
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files; download it again.")
    for shard in sorted(set(places.values())):
        if PurePath(shard).name != shard or shard in ("", ".", ".."):
            raise CheckpointError(
                f"{index} points at {shown(shard)} outside its own folder; do not trust this checkpoint."
            )
    return places


def _header(file: Path, opened: BufferedReader) -> bytes:
    start = opened.read(_LENGTH_BYTES)
    if start[:4] == _ZIP or start[:2] in _PICKLE:
        raise CheckpointError(
            f"{file} is a pickle or an archive, which can run code when it is read, despite its name; "
            "convert it to safetensors first."
        )
    length = int.from_bytes(start, "little")
    content = opened.read(length) if len(start) == _LENGTH_BYTES and length <= MAX_HEADER_BYTES else b""
    if len(content) != length or not content:
        raise CheckpointError(f"{file} is truncated or not a safetensors file; download it again.")
    return content


def _parsed(file: Path, content: bytes) -> dict[str, Any]:
    try:
        header = json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file} is truncated or not a safetensors file; download it again.")
    return header


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _entry(file: Path, name: str, value: Any, dtypes: Collection[str]) -> TensorEntry:
    try:
        if fault := _NAME.fault(name):
            raise FieldError(f"its name {fault}")
        entry = record_from(TensorEntry, value, "")
        if fault := OneOf(tuple(dtypes)).fault(entry.dtype):
            raise FieldError(f"dtype {fault}")
        if len(entry.data_offsets) != 2 or math.prod(entry.shape) * ALL_DTYPES[entry.dtype] != entry.end - entry.begin:
            raise FieldError("its length is another than that of its shape")
    except FieldError as error:
        raise CheckpointError(
            f"{file} cannot be used: of its tensor {shown(name)} {error}; download it again, or use an unquantised "
            "checkpoint."
        ) from None
    return entry


def _check_places(file: Path, tensors: dict[str, TensorEntry], size: int) -> None:
    """Tensors lie one behind the other and fill the file, so that none shares bytes with another."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != end:
            what = "overlaps another" if tensor.begin < end else "follows a gap"
            raise CheckpointError(f"{file} is damaged: its tensor {name!r} {what}; download it again.")
        end = tensor.end
    if end != size:
        raise CheckpointError(f"{file} is truncated or not a safetensors file; download it again.")
