"""The twelve drawn people whom a bundle of nano offers, `pictures()`, and the program that draws them."""

from __future__ import annotations

from importlib.resources import files


def pictures() -> dict[str, bytes]:
    """WebP files of 512x512 by the portrait's name, in order."""
    folder = files(__name__)
    found = {entry.name.removesuffix(".webp"): entry for entry in folder.iterdir() if entry.name.endswith(".webp")}
    return {name: found[name].read_bytes() for name in sorted(found)}
