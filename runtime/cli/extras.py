"""Packages that come with an extra of rap-edge, and the sentence that says which."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import MissingPackageError
from .exit_status import BAD_INPUT


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """What runs inside needs the packages of extra `name`.

    Raises:
        MissingPackageError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "rap_edge").partition(".")[0]
        if package == "rap_edge":
            raise
        raise MissingPackageError(
            f"The package {package!r} is not installed; run pip install 'rap-edge[{name}]'."
        ) from None


@contextmanager
def program_needs_extra(name: str, module: str) -> Iterator[None]:
    """As `needs_extra`, around the imports at the top of a module that may be run with `python -m`.

    Args:
        name: of the extra.
        module: the module's `__name__`.

    Raises:
        ModuleNotFoundError: a package is not installed and the module is imported.
        SystemExit: a package is not installed and the module is run, which ends with the sentence on stderr.
    """
    if module != "__main__":
        yield
        return
    try:
        with needs_extra(name):
            yield
    except MissingPackageError as error:
        print(error, file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None
