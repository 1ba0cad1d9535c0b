"""A checkpoint: a folder with one safetensors file whose header anybody may have written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from helpers.bundles.safetensors_file import entry, safetensors_file
from helpers.fuzz_targets.mutations import byte_mutants, json_mutants
from helpers.fuzz_targets.target import Target
from hypothesis import strategies as st

_HEADER = {
    "__metadata__": {"format": "pt"},
    "a": entry(0, 32, [2, 4]),
    "b": entry(32, 48, [8], "F16"),
    "c": entry(48, 64),
}
_DATA = bytes(64)


def _read(content: bytes) -> None:
    # torch takes seconds to import, and other targets do without.
    from rap_edge.models.checkpoints.tensors import open_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.safetensors").write_bytes(content)
        checkpoint = open_checkpoint(Path(folder), "model")
        for name, stored in checkpoint.stored.items():
            assert tuple(checkpoint.tensor(name).shape) == stored.shape


CHECKPOINT = Target(
    "checkpoint",
    json_mutants(_HEADER).map(lambda text: safetensors_file(text.encode(), _DATA))
    | byte_mutants(safetensors_file(_HEADER, _DATA))
    | st.binary(max_size=64),
    _read,
)
