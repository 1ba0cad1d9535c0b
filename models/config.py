"""Reading a network's configuration dataclass from plain JSON types, with one sentence per mistake."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin, get_type_hints

from rap_edge.runtime.errors import CheckpointError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`.

    Raises:
        CheckpointError: the file is missing, unreadable, not JSON or not an object.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(f"{file} is missing or unreadable; check that the checkpoint is complete.") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file} is not valid JSON; download or save the checkpoint again.") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} must hold a JSON object; download or save the checkpoint again.")
    return data


def config_from_dict(cls: type[C], data: Mapping[str, Any], source: str) -> C:
    """Build the dataclass `cls` from plain JSON types; `source` names the file in messages.

    Raises:
        CheckpointError: a key is unknown, a required one is missing, or a value has another type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(str(key) for key in data if key not in fields):
        raise CheckpointError(f"{source} has the unknown key {unknown[0]!r}; remove it or upgrade rap-edge.")
    hints = get_type_hints(cls)
    values = {key: _typed(value, hints[key], f"{key} in {source}") for key, value in data.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise CheckpointError(f"{source} lacks the key {name!r}; add it or download the checkpoint again.")
    return cls(**values)


def known_fields(cls: type[C], data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `data` that name a field of `cls`: what a published config says beyond that is not ours."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in data.items() if key in names}


def config_to_dict(config: DataclassInstance) -> dict[str, Any]:
    """The dataclass as plain JSON types."""
    return cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))


def _typed(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, bool, str) and type(value) is hint:
        return value
    arguments = get_args(hint)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(item, arguments[0], where) for item in value)
    if arguments and all(isinstance(choice, str) for choice in arguments):
        if value in arguments:
            return value
        raise CheckpointError(f"{where} must be one of {', '.join(arguments)}, not {value!r}; correct it.")
    expected = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    raise CheckpointError(f"{where} must be {expected.get(hint, 'a list')}, not {value!r}; correct it.")
