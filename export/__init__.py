"""torch -> ONNX graphs, precision, parity check, and rap-export."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .capture.own_model import OwnModel as OwnModel
    from .sources.own_model import export_modules as export_modules

_HOMES = {"OwnModel": "capture.own_model", "export_modules": "sources.own_model"}

__all__ = ["OwnModel", "export_modules"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, so it is imported when a name is first used.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
