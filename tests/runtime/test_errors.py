"""What others' errors say is short and leaves the terminal alone."""

import pytest

from rap_edge.runtime.errors import first_line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such node.\nSecond line"), "no such node"),
        (ValueError("node \x1b[2J\x1b]0;x\a is \u202eodd"), "node [2J]0;x is odd"),
        (ValueError("x" * 1000), "x" * 200),
        (KeyError(), "KeyError"),
    ],
)
def test_the_first_line_of_an_error_fits_into_a_sentence(error: Exception, said: str) -> None:
    assert first_line(error) == said
