import os
import signal
import threading

import pytest

from rap_edge.runtime.interrupt import held_interrupt


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


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
