"""Nothing but a `RapEdgeError` of one clean sentence leaves the library, whatever comes in (many: `tests/fuzz.py`)."""

import subprocess
import sys

import pytest
from helpers.fuzz_targets import TARGETS
from helpers.fuzz_targets.target import Target, sweep
from helpers.places import TESTS
from hypothesis import strategies as st

from rap_edge.runtime.errors import SpecError

EXAMPLES = 60


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_in_is_taken_or_refused_in_one_sentence(name: str) -> None:
    tally = sweep(TARGETS[name], EXAMPLES)
    assert tally.taken
    assert tally.refused


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), SpecError("a\x1b[2J."), SpecError("")])
def test_any_other_end_is_a_finding(error: Exception) -> None:
    def read(value: int) -> None:
        if value > 5:
            raise error

    with pytest.raises((ZeroDivisionError, AssertionError)):
        sweep(Target("broken", st.integers(0, 99), read), EXAMPLES)


def test_the_command_sweeps_a_target_and_counts() -> None:
    command = [sys.executable, str(TESTS / "fuzz.py"), "spec", "--count", "20", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("spec: ")
