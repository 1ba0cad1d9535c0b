"""Packages that come with an extra of rap-edge, and the sentence that says which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingPackageError


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
