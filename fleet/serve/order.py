"""What the boxes of a fleet shall be: one order for all of them, with a number that grows when it changes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import Annotated

from rap_edge.runtime.checks.bounds import Real, Text, Whole

BOXES, CORES = Whole(1, 4096), Whole(1, 1024)
PORT = Whole(0, 65535)
GPU_SHARE = Real(0.0, 1.0)
DRAIN = Real(0.0, 86400.0, "seconds")
BUNDLE = Text(4096)


@dataclass(frozen=True)
class Order:
    """How every box is started.

    Attributes:
        bundle: its folder, as the machines of the boxes see it.
        deployed: when a dispatcher was told to follow it, in seconds since 1970.
        generation: counts the changes since then.
        words: further words for `rap-serve`.
        host: the address that a box listens on; None takes its machine's own.
        port: of the first box on a machine, the next ones follow; 0 takes free ones.
        url: where visitors come to, with {host} and {port} of the box, and {name}, which is the host in one label of
            a name; None is where it listens.
        origins: whose pages may ask a box.
        drain: seconds for which visitors stay at a box that is drained.
        gpu_share: part of a GPU; 0 needs none.
        cores: of a box, which is kept to a group of so many; None lets it use all.
        counted: whether Ray counts the cores; not where the whole machine is the fleet's.
        secrets: what a box needs in its environment beside its own.
    """

    bundle: Annotated[str, BUNDLE]
    deployed: float = 0.0
    generation: int = 0
    words: tuple[str, ...] = ()
    host: str | None = "127.0.0.1"
    port: int = 0
    url: str | None = None
    origins: tuple[str, ...] = ()
    drain: float = 600.0
    gpu_share: float = 0.0
    cores: int | None = None
    counted: bool = False
    secrets: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def age(self) -> tuple[float, int]:
        """Of two orders the one that is to be followed has the greater."""
        return self.deployed, self.generation

    def asks_for(self, other: Order) -> bool:
        """Whether a box of the other order is as this one has it."""
        return replace(self, deployed=0.0) == replace(other, deployed=0.0)

    def arguments(self, host: str, port: int) -> list[str]:
        """The words after `rap-serve` of a box that listens there."""
        told = ["--bundle", self.bundle, "--host", host, "--port", str(port), "--drain", str(self.drain), *self.words]
        if self.url is not None:
            told += ["--public-url", self.url.format(host=host, name=re.sub("[.:]", "-", host), port=port)]
        if self.gpu_share:
            told += ["--share", str(self.gpu_share)]
        for origin in self.origins:
            told += ["--origin", origin]
        return told

    def environment(self, key: str, operator: str) -> dict[str, str]:
        """A box's environment, with its own secrets; a token that opens kiosks to visitors has no meaning there."""
        mine = {name: value for name, value in os.environ.items() if name != "RAP_SERVE_TOKEN"}
        return mine | self.secrets | {"RAP_SERVE_TICKET_KEY": key, "RAP_SERVE_OPERATOR_TOKEN": operator}
