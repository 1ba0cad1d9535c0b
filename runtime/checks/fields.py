"""Records from outside: dataclasses whose annotations say what every field may be, read and checked here alone.

In: plain JSON types. Out: the dataclass, or a `FieldError` that names the field. A field is `bool`, a `Literal`, a
`StrEnum`, another such dataclass, or `Annotated` with one of `bounds`; `tuple[X, ...]`, `tuple[X, Y]` and
`Mapping[K, X]` hold any of these, `X | None` may be null. A field with a default may be left out; keys that are no
field are ignored.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import types
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .bounds import OneOf, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")


class FieldError(ValueError):
    """A field is not what it must be; the message is a phrase that names it, for a sentence of the caller's."""


def record_from(cls: type[R], data: object, where: str = "") -> R:
    """Read a dataclass.

    Args:
        cls: says by its annotations what its fields may be.
        data: plain JSON types.
        where: names the place of `data` in errors; "" for a whole document.

    Raises:
        FieldError: a key is missing, or a value is not within its field's bounds.
    """
    if not isinstance(data, Mapping):
        raise FieldError(f"{where or 'it'} must be an object, not {shown(data)}")
    hints, values = _hints(cls), {}
    for field in dataclasses.fields(cls):
        name = field.name
        if name in data:
            values[name] = _value(hints[name], data[name], f"{where}.{name}" if where else name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise FieldError(f"{f'in {where} ' if where else ''}the key {name!r} is missing")
    return cls(**values)


def refuse_unknown_keys(cls: type[DataclassInstance], data: object) -> None:
    """Hold a mapping to a dataclass's fields, where what is unknown is more likely a slip than a later addition.

    Raises:
        FieldError: names the first key that is no field.
    """
    names = {field.name for field in dataclasses.fields(cls)}
    if unknown := [key for key in data if key not in names] if isinstance(data, Mapping) else []:
        raise FieldError(f"the key {shown(unknown[0])} is unknown")


def check_record(record: DataclassInstance, where: str = "") -> None:
    """Hold a dataclass that was made in code to its annotations; `where` names its place in errors.

    Raises:
        FieldError: names the first field that is not within its bounds.
    """
    for name, hint in _hints(type(record)).items():
        _value(hint, getattr(record, name), f"{where}.{name}" if where else name)


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _value(hint: Any, value: object, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        for bounds in arguments[1:]:
            if fault := bounds.fault(value):
                raise FieldError(f"{where} {fault}")
        return _value(arguments[0], value, where)
    if origin in (Union, types.UnionType):
        return None if value is None else _value(_arm(arguments, value), value, where)
    if origin is Literal:
        if value not in arguments:
            raise FieldError(f"{where} must be one of {', '.join(map(str, arguments))}, not {shown(value)}")
        return value
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        if fault := OneOf(tuple(hint)).fault(value):
            raise FieldError(f"{where} {fault}")
        return hint(str(value))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise FieldError(f"{where} must be a list, not {shown(value)}")
        hints = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(value) != len(hints):
            raise FieldError(f"{where} must have {len(hints)} entries, not {len(value)}")
        return tuple(_value(each, value[index], f"{where}[{index}]") for index, each in enumerate(hints))
    if origin is collections.abc.Mapping:
        return _mapping(arguments[0], arguments[1], value, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, hint):
            return record_from(hint, value, where)
        check_record(value, where)
        return value
    if hint is bool and not isinstance(value, bool):
        raise FieldError(f"{where} must be true or false, not {shown(value)}")
    return float(value) if hint is float else value  # type: ignore[arg-type]


def _arm(arguments: tuple[Any, ...], value: object) -> Any:
    """Of a union, the member for a text if the value is one, else the first that is not for texts."""
    arms = [arm for arm in arguments if arm is not types.NoneType]
    return next((arm for arm in arms if (_base(arm) is str) == isinstance(value, str)), arms[0])


def _base(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _mapping(key_hint: Any, item_hint: Any, value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FieldError(f"{where} must be an object, not {shown(value)}")
    result = {}
    for key, item in value.items():
        name = _value(key_hint, key, f"a key of {where}")
        result[name] = _value(item_hint, item, f"{where}.{name}")
    return result
