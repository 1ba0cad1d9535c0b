"""Bounds: every value from outside is within them or named in one phrase."""

import argparse
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.runtime.checks.bounds import Bounds, Count, Items, Real, Text, Whole, argument, printable, shown

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("bounds", "value"),
    [
        (Whole(1, 8), 1),
        (Whole(1, 8), 8),
        (Real(0.5, 2), 0.5),
        (Real(0.5, 2), 2),
        (Text(4), "häß"),
        (Text(0), ""),
        (Items(Whole(0, 1), 3), [0, 1, 1]),
        (Count(2), {"a": 1, "b": 2}),
        (Count(0), None),
    ],
)
def test_a_value_within_its_bounds_has_no_fault(bounds: Bounds, value: object) -> None:
    assert bounds.fault(value) is None


@pytest.mark.parametrize(
    ("bounds", "value", "phrase"),
    [
        (Whole(1, 8, "pixels"), 0, "must be a whole number from 1 to 8 pixels, not 0"),
        (Whole(1, 8), 9, "not 9"),
        (Whole(1, 8), True, "not True"),
        (Whole(1, 8), 2.0, "not 2.0"),
        (Whole(1, 8), 10**400, "not 10^400"),
        (Real(0, 1, "s"), math.nan, "must be a number from 0 to 1 s, not nan"),
        (Real(0, 1), math.inf, "not inf"),
        (Real(0, 1), 10**400, "not 10^400"),
        (Real(0, 1), "0.5", "not '0.5'"),
        (Text(3), "four", "at most 3 characters long, not 4"),
        (Text(9), "a\x1b[2J", "no control characters"),
        (Text(12), "right\u202eleft", "no control characters"),
        (Text(9), 5, "must be a text, not 5"),
        (Count(2), [0] * 3, "at most 2 entries, not 3"),
        (Items(Whole(0, 1), 3), [0] * 4, "at most 3 items, not 4"),
        (Items(Whole(0, 1), 3), [0, 7], "has an item that must be a whole number from 0 to 1, not 7"),
        (Items(Whole(0, 1), 3), "text", "must be a list"),
    ],
)
def test_a_value_outside_its_bounds_is_named(bounds: Bounds, value: object, phrase: str) -> None:
    assert phrase in (bounds.fault(value) or "")


@given(ANYTHING)
def test_a_fault_is_short_and_leaves_the_terminal_alone(value: Any) -> None:
    for bounds in (Whole(0, 1), Real(0, 1), Text(2), Items(Text(1), 1)):
        fault = bounds.fault(value) or ""
        assert len(fault) < 300
        assert printable(fault)


def test_a_number_that_python_refuses_to_print_is_named() -> None:
    assert (Whole(1, 8).fault(-(10**5000)) or "").endswith("not -10^5000")
    assert shown([10**5000]) == "[10^5000]"


def test_shown_never_walks_a_long_text_to_its_end() -> None:
    assert len(shown("x" * 10_000_000)) < 100


@pytest.mark.parametrize("text", ["0", "9", "1e3", "2.0", "two", "", "1" * 5000])
def test_an_argument_outside_its_bounds_is_refused_as_argparse_does(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="whole number from 1 to 8"):
        argument(Whole(1, 8))(text)


def test_an_argument_within_its_bounds_is_a_number() -> None:
    assert argument(Whole(1, 8))("8") == 8
    assert argument(Real(0, 1, "s"))("0.25") == 0.25
