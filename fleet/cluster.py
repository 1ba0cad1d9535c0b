"""Ray to work on: a cluster of this machine alone, which ends with the program, or one that is there already.

Ray by itself sends usage figures, serves a dashboard, listens on every network, keeps its logs for good, under `uv run`
uploads the working folder, and takes over SIGTERM. A cluster that is started here does none of that.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from rap_edge.runtime.cli.extras import needs_extra
from rap_edge.runtime.errors import FleetError, first_line

# Ray wants 75 MiB at least; what passes through here are descriptions, never sound or pictures.
_OBJECT_STORE_BYTES = 80 << 20
_ANSWER_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_QUIET = MappingProxyType({"logging_level": logging.ERROR, "log_to_driver": False})
# Read when Ray is imported. The second one is what makes Ray stay on loopback, as it does on the systems that it names.
_ALONE = MappingProxyType({"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})
_ALWAYS = MappingProxyType({"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"})

# Sockets are in it, whose names may have 107 bytes, and TMPDIR may be as long as it likes.
_SHORT_PLACE = "/tmp" if os.name == "posix" else None


@contextmanager
def opened_cluster(address: str | None, cpus: int) -> Iterator[None]:
    """Be connected to a cluster inside the block.

    Args:
        address: of one that is there, as Ray has it ("auto", "host:6379"); None starts one.
        cpus: that one which is started here counts for scheduling, however many there are.

    Raises:
        FleetError: it cannot be started, or there is none.
        MissingPackageError: Ray is not installed.
    """
    ray_need()
    os.environ.update(_ALWAYS)
    with ExitStack() as closing:
        if address is None:
            os.environ.update(_ALONE)
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
            folder = closing.enter_context(
                tempfile.TemporaryDirectory(prefix="rap-fleet-", dir=_SHORT_PLACE, ignore_cleanup_errors=True)
            )
            _connect(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=folder,
            )
        else:
            _require_answer(address)
            _connect(address=address)
        import ray

        closing.callback(ray.shutdown)
        yield


@contextmanager
def ended_by(work: Callable[[], None]) -> Iterator[None]:
    """After the block do `work` with the cluster that this process is connected to; leave it undone once that is gone.

    Whoever stops a service, as systemd does, stops Ray beside it. Ray's calls would then wait for a minute, and end
    this process with status 1.

    Raises:
        FleetError: Ray failed, and the cluster is there all the same.
    """
    import ray

    address = ray.get_runtime_context().gcs_address
    # Ray's client may be where the cluster's own addresses lead nowhere.
    heard = _unheard(address) is None
    try:
        yield
    finally:
        if heard:
            _while_it_answers(address, work)
        else:
            work()


def _while_it_answers(address: str, work: Callable[[], None]) -> None:
    import ray

    failures = list[ray.exceptions.RayError]()

    def do() -> None:
        try:
            work()
        except ray.exceptions.RayError as error:
            # Where the cluster is on its way out, that is seen after a moment.
            time.sleep(_LOOK_SECONDS)
            failures.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    while thread.is_alive() and _unheard(address) is None:
        thread.join(_LOOK_SECONDS)
    if failures and _unheard(address) is None:
        raise FleetError(
            f"Ray failed while the fleet was ended ({first_line(failures[0])}); see in 'ray status' what is left of it."
        )


def ray_need() -> None:
    """Raise `MissingPackageError`, see `needs_extra`, where Ray is not installed; importing it takes seconds."""
    with needs_extra("fleet"):
        if find_spec("ray") is None:
            raise ModuleNotFoundError(name="ray")


def _require_answer(address: str) -> None:
    """Find out in seconds what Ray would wait minutes for."""
    place = address.removeprefix("ray://")
    _, colon, port = place.rpartition(":")
    if colon and port.isdecimal() and (why := _unheard(place)) is not None:
        raise FleetError(
            f"Nothing answers at {address!r} ({why}); pass the address that 'ray status' tells, or leave --address out "
            "to work on this machine alone."
        )


def _unheard(address: str) -> str | None:
    """Why nobody answers at "host:port"; None where somebody does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def _connect(**settings: Any) -> None:
    import ray

    ours = signal.getsignal(signal.SIGTERM)
    where = "started here" if settings["address"] == "local" else f"reached at {settings['address']!r}"
    try:
        with _nothing_on_stderr():
            ray.init(**settings, **_QUIET)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise FleetError(
            f"Ray cannot be {where} ({first_line(error)}); see whether it runs there, in the same version and with the "
            "same RAY_AUTH_TOKEN as here."
        ) from error
    # Tracebacks of workers would come between what the program prints; there is no other way to leave them out.
    ray._private.worker._worker_logs_enabled = False
    if ours is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ours)


@contextmanager
def _nothing_on_stderr() -> Iterator[None]:
    """Leave out what Ray's library writes there by itself, which is that it has been told to be quiet."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
