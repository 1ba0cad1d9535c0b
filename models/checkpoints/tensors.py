"""Reading tensors from safetensors files, whole or sharded, into a network, with one sentence per thing wrong.

Pickle is never read: it can run code. Tensors go into the network one by one, so the memory needed is the
network's own.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rap_edge.runtime.errors import CheckpointError, first_line

from .safetensors_header import COUNTER, read_header, read_index

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".zip", ".tar")


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies."""

    file: Path
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one network by the network's own names.

    Attributes:
        source: the file or index that was opened, for messages.
        stored: tensors on disk.
        computed: tensors that a reader derived from stored ones, such as folded weights.
    """

    source: Path
    stored: Mapping[str, StoredTensor]
    computed: Mapping[str, Tensor] = field(default_factory=dict)

    def without(self, prefixes: Iterable[str]) -> Checkpoint:
        """The checkpoint less the stored tensors whose name starts with one of `prefixes`."""
        skipped = tuple(prefixes)
        kept = {name: tensor for name, tensor in self.stored.items() if not name.startswith(skipped)}
        return Checkpoint(self.source, kept, self.computed)

    def without_ending(self, suffixes: tuple[str, ...]) -> Checkpoint:
        """The checkpoint less the stored tensors whose name ends with one of `suffixes`."""
        kept = {name: tensor for name, tensor in self.stored.items() if not name.endswith(suffixes)}
        return Checkpoint(self.source, kept, self.computed)

    def stripped(self, prefix: str) -> Checkpoint:
        """The checkpoint with `prefix` taken off the stored names that have it."""
        stored = {name.removeprefix(prefix): tensor for name, tensor in self.stored.items()}
        return Checkpoint(self.source, stored, self.computed)

    def tensor(self, name: str) -> Tensor:
        """One stored tensor in fp32.

        Raises:
            CheckpointError: the file cannot be read.
        """
        stored = self.stored[name]
        with _opened(stored.file) as file:
            result: Tensor = file.get_tensor(stored.name).float()
            return result


def refuse_pickle(file: Path) -> None:
    """Raise `CheckpointError` if `file` is named like a pickle or an archive of one."""
    if file.suffix.lower() in PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{file} is a {file.suffix} file, which can run code when it is read; convert it to safetensors first."
        )


def open_checkpoint(folder: Path, stem: str) -> Checkpoint:
    """Open `<stem>.safetensors`, or the shards that `<stem>.safetensors.index.json` lists, in `folder`.

    Raises:
        CheckpointError: there is no such file, only a pickle; a file is truncated; a shard is missing or lies
            outside the folder; or a shard lacks a tensor that the index promises.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if os.path.isfile(single):
        return Checkpoint(single, _tensors_of(single))
    if os.path.isfile(index):
        return Checkpoint(index, _tensors_of_index(index))
    for file in sorted(folder.glob("*")):
        if os.path.isfile(file):
            refuse_pickle(file)
    raise CheckpointError(f"{single} is missing; download the checkpoint completely or point at its folder.")


def load_weights(module: nn.Module, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    """Put every tensor of `checkpoint` into `module`, which may stand on the meta device, as `dtype`.

    Raises:
        CheckpointError: a tensor is missing, unexpected or has another shape; none is put in then.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tensor.shape for name, tensor in checkpoint.stored.items()}
    given |= {name: tuple(tensor.shape) for name, tensor in checkpoint.computed.items()}
    if missing := [name for name in expected if name not in given]:
        raise CheckpointError(
            f"{checkpoint.source} lacks the tensor {missing[0]!r}{_and_more(missing)}; "
            "download it again or correct the config."
        )
    if unexpected := [name for name in given if name not in expected]:
        where = checkpoint.stored[unexpected[0]].file if unexpected[0] in checkpoint.stored else checkpoint.source
        raise CheckpointError(
            f"{where} has the tensor {unexpected[0]!r}{_and_more(unexpected)} that the network does not know; "
            "use a checkpoint of this model or correct the config."
        )
    for name, shape in expected.items():
        if given[name] != shape:
            where = checkpoint.stored[name].file if name in checkpoint.stored else checkpoint.source
            raise CheckpointError(
                f"{where} has the tensor {name!r} of shape {list(given[name])} where the network needs {list(shape)}; "
                "use matching weights or correct the config."
            )
    tensors = {name: tensor.to(dtype) for name, tensor in checkpoint.computed.items()}
    by_file: dict[Path, list[tuple[str, str]]] = defaultdict(list)
    for name, stored in checkpoint.stored.items():
        by_file[stored.file].append((name, stored.name))
    for file, names in by_file.items():
        with _opened(file) as opened:
            tensors |= {name: opened.get_tensor(stored).to(dtype) for name, stored in names}
    module.load_state_dict(tensors, assign=True)


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read ({first_line(error)}); download it again.") from None


def _tensors_of(file: Path) -> dict[str, StoredTensor]:
    return {
        name: StoredTensor(file, name, entry.shape)
        for name, entry in read_header(file).items()
        if entry.dtype != COUNTER
    }


def _tensors_of_index(index: Path) -> dict[str, StoredTensor]:
    weight_map = read_index(index)
    shards: dict[str, dict[str, StoredTensor]] = {}
    for shard in sorted(set(weight_map.values())):
        refuse_pickle(index.parent / shard)
        shards[shard] = _tensors_of(index.parent / shard)
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise CheckpointError(
                f"{index.parent / shard} lacks the tensor {name!r} that {index.name} promises; download it again."
            )
    return {name: shards[shard][name] for name, shard in weight_map.items()}
