"""What a forked child may do with an avatar that it has inherited, whose threads have stayed behind."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.runtime import Avatar, Session
from rap_edge.runtime.errors import SessionError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
SECOND = np.zeros(16000, np.float32)


@pytest.fixture
def avatar(tmp_path: Path) -> Avatar:
    """With threads of ONNX Runtime, which a single one would not have."""
    return Avatar.open(write_tiny_bundle(tmp_path / "bundle"), threads=2)


def in_child(work: Callable[[], object]) -> int:
    """The exit status of a child that does `work`: 0 unless it raises; negative if it hangs."""
    # What other tests have left behind has threads of its own, which no child could end.
    gc.collect()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        status = 1
        try:
            work()
            status = 0
        finally:
            # As multiprocessing ends its children.
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_that_closes_what_it_inherited_does_not_hang_and_the_parent_goes_on(avatar: Avatar) -> None:
    held = [avatar, avatar.session()]
    held[1].push(SECOND)
    assert list(held[1].chunks())
    del avatar

    def close() -> None:
        session, avatar = held.pop(), held.pop()
        session.close()
        avatar.close()
        del session, avatar
        gc.collect()

    assert in_child(close) == 0
    held[1].push(SECOND)
    assert list(held[1].chunks())


def test_a_lock_that_another_thread_holds_while_the_process_is_forked_does_not_matter(avatar: Avatar) -> None:
    with avatar.session() as session, session._rendering, session._changed:
        assert in_child(session.close) == 0
        assert in_child(lambda: refuses(lambda: session.push(SECOND))) == 0


def refuses(use: Callable[[], object]) -> None:
    with pytest.raises(SessionError, match=r"forked from.*open it here"):
        use()


@pytest.mark.parametrize(
    "use",
    [
        lambda avatar, session: avatar.session(),
        lambda avatar, session: avatar.chunk_cost(),
        lambda avatar, session: session.push(SECOND),
        lambda avatar, session: list(session.chunks()),
        lambda avatar, session: session.wait(),
        lambda avatar, session: session.finish(),
    ],
)
def test_a_child_that_uses_what_it_inherited_is_told_to_open_its_own(
    avatar: Avatar, use: Callable[[Avatar, Session], object]
) -> None:
    with avatar.session() as session:
        session.push(SECOND)
        assert in_child(lambda: refuses(lambda: use(avatar, session))) == 0


def test_a_child_may_open_its_own(tmp_path: Path, avatar: Avatar) -> None:
    def render() -> None:
        with Avatar.open(tmp_path / "bundle", threads=2) as own, own.session() as session:
            session.push(SECOND)
            assert list(session.chunks())

    assert in_child(render) == 0
