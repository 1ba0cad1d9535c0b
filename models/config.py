"""Reading a network's configuration dataclass from plain JSON types, with one sentence per mistake."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rap_edge.runtime.checks.fields import FieldError, check_record, record_from, refuse_unknown_keys
from rap_edge.runtime.checks.regular_file import read_regular, real_path, reason
from rap_edge.runtime.errors import CheckpointError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_JSON_BYTES = 16 << 20

C = TypeVar("C", bound="DataclassInstance")


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`.

    Raises:
        CheckpointError: the file is missing, unreadable, not JSON or not an object.
    """
    try:
        # Download caches keep links to their files.
        data = json.loads(read_regular(real_path(file), MAX_JSON_BYTES))
    except OSError as error:
        raise CheckpointError(
            f"{file} is missing or unreadable ({reason(error)}); check that the checkpoint is complete."
        ) from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file} is not valid JSON; download or save the checkpoint again.") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} must hold a JSON object; download or save the checkpoint again.")
    return data


def config_from_dict(cls: type[C], data: Mapping[str, Any], source: str) -> C:
    """Build the dataclass `cls` from plain JSON types; `source` names the file in messages.

    Raises:
        CheckpointError: a key is unknown, a required one is missing, or a value is not within its field's bounds.
    """
    try:
        refuse_unknown_keys(cls, data)
        return record_from(cls, data)
    except FieldError as error:
        raise CheckpointError(
            f"{source} cannot be read: {error}; correct it, download the checkpoint again or upgrade rap-edge."
        ) from None


def check_config(config: DataclassInstance, network: str) -> None:
    """Hold a configuration to the bounds of its fields.

    Args:
        config: whose annotations say what its fields may be.
        network: its name in errors.

    Raises:
        CheckpointError: names the first field that is not within its bounds.
    """
    try:
        check_record(config)
    except FieldError as error:
        raise CheckpointError(f"The {network}'s config cannot work: {error}; correct it.") from None


def check_rules(network: str, *rules: tuple[bool, str]) -> None:
    """Hold a configuration to what its fields must be together.

    Args:
        network: its name in errors.
        rules: whether each holds, and the clause that says what must hold.

    Raises:
        CheckpointError: names the first that does not hold.
    """
    for holds, clause in rules:
        if not holds:
            raise CheckpointError(f"The {network}'s config cannot work: {clause}; correct it.")


def known_fields(cls: type[C], data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `data` that name a field of `cls`: what a published config says beyond that is not ours."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in data.items() if key in names}


def config_to_dict(config: DataclassInstance) -> dict[str, Any]:
    """The dataclass as plain JSON types."""
    return cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))
