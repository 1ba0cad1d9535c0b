"""A checkpoint from a stranger: its header is refused in a sentence where any of it cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from helpers.bundles.safetensors_file import entry, safetensors_file

from rap_edge.models import load_networks
from rap_edge.models.checkpoints.safetensors_header import MAX_HEADER_BYTES, TensorEntry, read_header
from rap_edge.models.checkpoints.tensors import open_checkpoint
from rap_edge.models.config import read_json_object
from rap_edge.runtime.errors import CheckpointError

DATA = bytes(64)


def test_tensors_are_read_with_their_shape_and_place(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "b": entry(48, 64), "a": entry(0, 48, [4, 3]), "none": entry(64, 64)}
    (tmp_path / "a.safetensors").write_bytes(safetensors_file(header, DATA))
    assert read_header(tmp_path / "a.safetensors") == {
        "b": TensorEntry("F32", (4,), (48, 64)),
        "a": TensorEntry("F32", (4, 3), (0, 48)),
        "none": TensorEntry("F32", (0,), (64, 64)),
    }


REFUSED = {
    "overlap": ({"a": entry(0, 48), "b": entry(32, 64)}, "tensor 'b' overlaps another"),
    "twins": ({"a": entry(0, 64), "b": entry(0, 64)}, "tensor 'b' overlaps another"),
    "gap": ({"a": entry(0, 16), "b": entry(32, 64)}, "tensor 'b' follows a gap"),
    "late": ({"a": entry(16, 64)}, "tensor 'a' follows a gap"),
    "short": ({"a": entry(0, 48)}, "is truncated or not a safetensors file"),
    "beyond": ({"a": entry(0, 128)}, "is truncated or not a safetensors file"),
    "length": ({"a": entry(0, 64, [15])}, "tensor 'a' its length is another"),
    "backwards": ({"a": entry(64, 0, [16])}, "its length is another"),
    "negative": ({"a": entry(0, 64, [-16])}, "whole number from 0"),
    "endless": ({"a": entry(0, 64, [10**400])}, "whole number from 0"),
    "overflow": ({"a": entry(0, 64, [1 << 40] * 8)}, "its length is another"),
    "many_dimensions": ({"a": entry(0, 64, [1] * 9)}, "at most 8"),
    "truth": ({"a": entry(0, 64, [True])}, "whole number"),
    "text": ({"a": entry(0, 64, ["16"])}, "whole number"),
    "one_offset": ({"a": entry(0, 64) | {"data_offsets": [0]}}, "its length is another"),
    "no_offsets": ({"a": {"dtype": "F32", "shape": [16]}}, "'data_offsets' is missing"),
    "no_object": ({"a": [0, 64]}, "must be an object"),
    "dtype": ({"a": entry(0, 64, dtype="F99")}, "tensor 'a' dtype must be"),
    "dtype_list": ({"a": entry(0, 64, dtype=["F32"])}, "tensor 'a' dtype must be"),
    "escape": ({"a\x1b[2J": entry(0, 64)}, r"tensor 'a\\x1b\[2J' its name must have no control characters"),
    "twice": (b'{"a": %b, "a": %b}' % ((json.dumps(entry(0, 64)).encode(),) * 2), "is truncated or not"),
    "list": (b"[]", "is truncated or not"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is truncated or not"),
    "empty": (b"", "is truncated or not"),
}


@pytest.mark.parametrize("damage", REFUSED)
def test_an_impossible_header_is_refused_in_a_sentence(tmp_path: Path, damage: str) -> None:
    header, sentence = REFUSED[damage]
    (tmp_path / "model.safetensors").write_bytes(safetensors_file(header, DATA))
    with pytest.raises(CheckpointError, match=sentence):
        open_checkpoint(tmp_path, "model")


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 1 << 63, (1 << 64) - 1, 1000])
def test_a_header_that_says_it_is_longer_than_may_be_is_not_read(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="is truncated or not a safetensors file"):
        read_header(tmp_path / "a.safetensors")


def test_a_pipe_among_the_shards_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"one\.safetensors is missing or .* \(it is no file but a pipe\)"):
        open_checkpoint(tmp_path, "model")


def test_a_pipe_as_config_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json is missing or unreadable \(it is no file but a pipe\)"):
        read_json_object(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "loop"])
def test_a_name_that_no_folder_can_have_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match="is not a folder"):
        load_networks(tmp_path / name)


def test_a_link_to_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="it is no file but a device"):
        read_header(tmp_path / "a.safetensors")


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(safetensors_file({"a": entry(0, 64)}, torch.ones(16).numpy().tobytes()))
    (tmp_path / "model.safetensors").symlink_to("blob")
    assert open_checkpoint(tmp_path, "model").tensor("a").tolist() == [1.0] * 16
