"""Records from outside: read by their annotations, or refused with the field's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from rap_edge.runtime.checks.bounds import Count, Real, Text, Whole
from rap_edge.runtime.checks.fields import FieldError, check_record, record_from, refuse_unknown_keys


@dataclass(frozen=True)
class Part:
    size: Annotated[int, Whole(1, 9, "cm")]
    share: Annotated[float, Real(0, 1)] = 1.0


@dataclass(frozen=True)
class Box:
    kind: Literal["open", "shut"]
    parts: Annotated[tuple[Part, ...], Count(2)]
    labels: Mapping[Annotated[str, Text(5)], Annotated[int, Whole(0, 5)] | Annotated[str, Text(3)]]
    heavy: bool = False
    lid: Part | None = None


GOOD = {"kind": "open", "parts": [{"size": 3, "share": 1}], "labels": {"a": 1, "b": "x"}, "heavy": True}


def test_plain_json_becomes_the_dataclass() -> None:
    box = record_from(Box, GOOD)
    assert box == Box("open", (Part(3),), {"a": 1, "b": "x"}, True)
    assert isinstance(box.parts[0].share, float)
    assert record_from(Box, {**GOOD, "lid": None}).lid is None
    assert record_from(Box, {**GOOD, "lid": {"size": 1}}).lid == Part(1)


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"kind": "ajar"}, "kind must be one of open, shut, not 'ajar'"),
        ({"kind": []}, "kind must be one of"),
        ({"parts": {}}, "parts must be a list, not {}"),
        ({"parts": [{"size": 1}] * 3}, "parts must have at most 2 entries, not 3"),
        ({"parts": [{"size": 1}, {"size": 10}]}, r"parts[1].size must be a whole number from 1 to 9 cm, not 10"),
        ({"parts": [7]}, "parts[0] must be an object, not 7"),
        ({"parts": [{}]}, "in parts[0] the key 'size' is missing"),
        ({"labels": []}, "labels must be an object"),
        ({"labels": {"\x1b": 1}}, "a key of labels must have no control characters"),
        ({"labels": {"a": 6}}, "labels.a must be a whole number"),
        ({"labels": {"a": "long"}}, "labels.a must be at most 3 characters"),
        ({"heavy": 1}, "heavy must be true or false, not 1"),
        ({"lid": 1}, "lid must be an object"),
    ],
)
def test_a_fault_is_named_by_its_place(changes: dict[str, object], phrase: str) -> None:
    with pytest.raises(FieldError) as error:
        record_from(Box, {**GOOD, **changes})
    assert phrase in str(error.value)


def test_keys_that_are_no_field_are_ignored_or_refused() -> None:
    more = {**GOOD, "\x1b": 1}
    assert record_from(Box, more) == record_from(Box, GOOD)
    with pytest.raises(FieldError) as error:
        refuse_unknown_keys(Box, more)
    assert str(error.value) == r"the key '\x1b' is unknown"
    refuse_unknown_keys(Box, GOOD)


def test_a_record_made_in_code_is_held_to_the_same() -> None:
    check_record(Part(1))
    with pytest.raises(FieldError, match="size must be a whole number"):
        check_record(Part(0))
