import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rap_edge.runtime.cli.interrupt import ending_on_interrupt, held_interrupt, stopping_once
from rap_edge.runtime.cli.program import start


def press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """What a test sets does not outlive it."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    steps: list[int] = []

    def work() -> None:
        with held_interrupt():
            press()
            steps.append(1)
        steps.append(2)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == [1]


def test_ctrl_c_works_as_before_behind_the_block() -> None:
    with held_interrupt():
        pass
    with pytest.raises(KeyboardInterrupt):
        press()


def test_an_error_in_the_block_is_not_hidden() -> None:
    def work() -> None:
        with held_interrupt():
            press()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        work()


def test_other_threads_run_the_block_as_it_is() -> None:
    ran: list[int] = []

    def work() -> None:
        with held_interrupt():
            ran.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_no_later_one_tears_the_cleaning_up(number: int) -> None:
    steps: list[str] = []

    def work() -> None:
        with stopping_once():
            try:
                press(number)
                steps.append("went on")
            finally:
                press(signal.SIGINT)
                press(signal.SIGTERM)
                steps.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["cleaned up"]


def test_sigterm_waits_for_the_end_of_a_held_block_too() -> None:
    steps: list[int] = []

    def work() -> None:
        with stopping_once(), held_interrupt():
            press(signal.SIGTERM)
            steps.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == [1]


def test_a_signal_that_the_shell_has_told_to_ignore_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopping_once(), held_interrupt():
        press()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_source_ends_at_the_first_signal_and_all_stops_at_the_second(number: int) -> None:
    steps: list[str] = []

    def work() -> None:
        with stopping_once(), ending_on_interrupt(lambda: steps.append("ended")):
            press(number)
            steps.append("rendered")
            try:
                press(number)
            finally:
                press(number)
                steps.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["ended", "rendered", "cleaned up"]


def test_ctrl_c_during_the_imports_of_a_program_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pressed = "import os, signal\nfor _ in range(2):\n    os.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "impatient_program.py").write_text(pressed + "def main():\n    return 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert start("rap-try", "impatient_program") == 130
    assert capsys.readouterr().err == "rap-try: Stopped; nothing was written.\n"
    assert start("rap-try", "impatient_program") == 7
