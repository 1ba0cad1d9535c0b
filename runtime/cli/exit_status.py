"""How the command line programs end when something is wrong."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator

from ..errors import RapEdgeError, refuse_full_memory
from .interrupt import stopping_once
from .standard_streams import ReaderGoneError, standard_streams

BAD_INPUT, INTERRUPTED = 2, 130
# As of a program that SIGPIPE ends.
READER_GONE = 141


def exit_status(program: str, run: Callable[[], int], stopped: str) -> int:
    """What `run` returns, or the status of what kept it from returning, which is said in one sentence on stderr.

    Args:
        program: its name, before the sentence.
        run: reads the arguments, does the work and gives the exit status.
        stopped: the sentence for Ctrl-C and SIGTERM.
    """
    with standard_streams():
        try:
            return _flushed(run)
        except RapEdgeError as error:
            print(f"{program}: {error}{_hint(error)}", file=sys.stderr)
            return BAD_INPUT
        except OSError as error:
            if not (hint := _hint(error)):
                raise
            print(f"{program}:{hint}", file=sys.stderr)
            return BAD_INPUT
        except ReaderGoneError:
            return READER_GONE
        except KeyboardInterrupt:
            print(f"{program}: {stopped}", file=sys.stderr)
            return INTERRUPTED


def _flushed(run: Callable[[], int]) -> int:
    try:
        with stopping_once(), refuse_full_memory():
            status = run()
    except SystemExit:
        # --help may have been printed.
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status


def _hint(error: BaseException) -> str:
    """What helps where the system, at the bottom of it, refused to open one more file; "" elsewhere."""
    if all(getattr(cause, "errno", None) not in (errno.EMFILE, errno.ENFILE) for cause in _causes(error)):
        return ""
    return f" This process may open {_most_files()} files at a time; allow more with ulimit -n 1024."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _most_files() -> str:
    try:
        from resource import RLIMIT_NOFILE, getrlimit
    except ImportError:
        return "only so many"
    return f"{getrlimit(RLIMIT_NOFILE)[0]}"
