"""Everything that a run lacks, told at once instead of one thing per attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import RapEdgeError

Need = Callable[[], object]


class SeveralNeedsError(RapEdgeError):
    """Several things are missing; the message lists them in the order in which to mend them."""


def require(needs: Iterable[Need]) -> None:
    """Ask for everything that a run needs before it begins.

    Args:
        needs: each raises a `RapEdgeError` where something is missing, in the order in which to mend that.

    Raises:
        RapEdgeError: the one thing that is missing.
        SeveralNeedsError: all that are, numbered, each with its cure.
    """
    missing: list[RapEdgeError] = []
    for need in needs:
        try:
            need()
        except RapEdgeError as error:
            missing.append(error)
    if len(missing) == 1:
        raise missing[0]
    if missing:
        lines = [f"  {number}. {error}" for number, error in enumerate(missing, 1)]
        raise SeveralNeedsError("\n".join([f"{len(missing)} things are missing:", *lines]))
