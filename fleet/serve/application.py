"""The fleet as an application of Ray Serve: what `rap-fleet serve` runs, and what a `RayService` imports (`build`)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from ray import serve

from rap_edge.runtime.checks.bounds import Items, Text
from rap_edge.runtime.checks.fields import FieldError, record_from, refuse_unknown_keys
from rap_edge.runtime.errors import FleetError

from .ingress import Door, Ingress
from .order import BOXES, BUNDLE, CORES, DRAIN, GPU_SHARE, PORT, Order

TOKEN, OPERATOR_TOKEN = "RAP_FLEET_TOKEN", "RAP_FLEET_OPERATOR_TOKEN"
# What a box needs of the environment beside its own secrets.
_FOR_BOXES = ("RAP_SERVE_ICE_SERVERS",)
# A burst waits here for its turn; more is refused at once instead of in silence.
_MOST_ONGOING, _MOST_WAITING = 256, 4096


@dataclass(frozen=True)
class Fleet:
    """All that a fleet is told, and what of it `rap-fleet serve` and a manifest may leave out; see `Order`."""

    bundle: Annotated[str, BUNDLE]
    boxes: Annotated[int, BOXES] = 1
    most_boxes: Annotated[int, BOXES] | None = None
    words: Annotated[tuple[Annotated[str, Text(4096)], ...], Items(Text(4096), 256)] = ()
    host: Annotated[str, Text(256)] = "127.0.0.1"
    origin: Annotated[str, Text(512)] = "http://127.0.0.1:8000"
    box_host: Annotated[str, Text(256)] | None = None
    box_port: Annotated[int, PORT] = 0
    box_url: Annotated[str, Text(512)] | None = None
    drain: Annotated[float, DRAIN] = 600.0
    gpu_share: Annotated[float, GPU_SHARE] = 0.0
    cores: Annotated[int, CORES] | None = None
    counted: bool = True


def application(fleet: Fleet) -> Any:
    """The application, with the tokens of the environment.

    Raises:
        FleetError: what is told does not go together.
    """
    most = fleet.most_boxes or fleet.boxes
    if most < fleet.boxes:
        raise FleetError(f"most_boxes is {most}, fewer than the {fleet.boxes} boxes at least; make it larger.")
    order = Order(
        fleet.bundle,
        deployed=time.time(),
        words=fleet.words,
        host=fleet.box_host,
        port=fleet.box_port,
        url=fleet.box_url,
        origins=(fleet.origin,),
        drain=fleet.drain,
        gpu_share=fleet.gpu_share,
        cores=fleet.cores,
        counted=fleet.counted,
        secrets={name: os.environ[name] for name in _FOR_BOXES if name in os.environ},
    )
    door = Door(fleet.host, fleet.origin, os.environ.get(TOKEN) or None, os.environ.get(OPERATOR_TOKEN) or None)
    deployment = serve.deployment(
        Ingress,
        name="dispatcher",
        num_replicas=1,
        max_ongoing_requests=_MOST_ONGOING,
        max_queued_requests=_MOST_WAITING,
        health_check_period_s=2.0,
        health_check_timeout_s=30.0,
        graceful_shutdown_timeout_s=1.0,
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind(order, fleet.boxes, most, door)


def build(arguments: Mapping[str, Any]) -> Any:
    """The application of a `RayService`, whose `args` are the fields of `Fleet`; raises `FleetError`."""
    try:
        refuse_unknown_keys(Fleet, arguments)
        return application(record_from(Fleet, arguments))
    except FieldError as error:
        raise FleetError(f"The arguments of the fleet are wrong: {error}.") from None
