"""What made a bundle, for its manifest."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("rap-edge", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that make bundles, "unknown" for one that is not installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def now() -> str:
    """The date and time in UTC, in ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
