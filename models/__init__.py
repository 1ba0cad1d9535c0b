"""The networks in PyTorch and the readers of published checkpoints."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints.load import load_dit as load_dit
    from .checkpoints.load import load_networks as load_networks
    from .checkpoints.own import save_networks as save_networks
    from .networks import NetworkConfigs as NetworkConfigs
    from .networks import Networks as Networks
    from .networks import random_networks as random_networks

_HOMES = {
    "load_dit": "checkpoints.load",
    "load_networks": "checkpoints.load",
    "NetworkConfigs": "networks",
    "Networks": "networks",
    "random_networks": "networks",
    "save_networks": "checkpoints.own",
}

__all__ = ["NetworkConfigs", "Networks", "load_dit", "load_networks", "random_networks", "save_networks"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, so it is imported when a name is first used.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
