"""The clips on Ray Data: a fixed pool of actors, each of which is a box, and one job for one of them at a time.

Ray hands the job of a box that dies to another one. A job whose boxes die again and again is given up, so that no clip
is in the way of the others.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import rap_edge.runtime
from rap_edge.runtime.errors import EngineError, FleetError, first_line

from .clip_renderer import BoxSettings, ClipRenderer, Outcome
from .jobs import Job
from .sizing import Machine, Sizing

TRIES = 3


@dataclass(frozen=True)
class Answer:
    """An outcome, and whose it is: the actor, which keeps its name when it is started again, and its machine."""

    outcome: Outcome
    box: str
    machine: str


class Box:
    """The actor."""

    def __init__(self, settings: BoxSettings, version: str) -> None:
        """Load the engines.

        Args:
            settings: of all boxes.
            version: of the rap-edge that hands out the jobs.

        Raises:
            FleetError: this machine has another one.
            BundleError, EngineError, SpecError: as `ClipRenderer`.
        """
        import ray

        if version != rap_edge.runtime.__version__:
            raise FleetError(
                f"{socket.gethostname()} has rap-edge {rap_edge.runtime.__version__} and the jobs come from {version}; "
                "install the same version on every machine."
            )
        self._renderer = ClipRenderer(settings)
        self._name = ray.get_runtime_context().get_actor_id() or ""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Render a job; one whose engines are lost ends its process, and Ray starts the box anew."""
        try:
            outcome = self._renderer.render(Job(**row))
        except EngineError as error:
            logging.getLogger(__name__).error("%s", error)
            os._exit(1)
        # Arrow has no rows of a type that changes, as a list does that is empty in one of them.
        return asdict(outcome) | {
            "warnings": "\n".join(outcome.warnings),
            "box": self._name,
            "machine": socket.gethostname(),
        }


def render_all(jobs: Sequence[Job], settings: BoxSettings, size: Sizing, gpu_share: float = 0.0) -> Iterator[Answer]:
    """Render jobs on the cluster that is connected; a job that has no answer was given up.

    Args:
        jobs: one at least.
        settings: of all boxes.
        size: how many there are, and threads of each.
        gpu_share: GPUs of each.

    Yields:
        An answer as soon as a clip is made or has failed, in any order.

    Raises:
        FleetError: the boxes cannot be started.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = ray.data.from_items([asdict(job) for job in jobs], override_num_blocks=len(jobs))
    with warnings.catch_warnings():
        # There is no other way yet to say how often a job is tried.
        warnings.simplefilter("ignore", DeprecationWarning)
        answers = rows.map(
            Box,
            fn_constructor_args=(settings, rap_edge.runtime.__version__),
            compute=ActorPoolStrategy(size=min(size.boxes, len(jobs)), max_tasks_in_flight_per_actor=1),
            num_cpus=size.threads,
            num_gpus=gpu_share or None,
            max_task_retries=TRIES - 1,
        )
    try:
        for row in answers.iter_rows():
            box, machine = row.pop("box"), row.pop("machine")
            warned = tuple(filter(None, row.pop("warnings").split("\n")))
            yield Answer(Outcome(**row, warnings=warned), box, machine)
    except ray.exceptions.RayError as error:
        raise FleetError(f"The boxes cannot work: {_reason(error)}") from error


def cluster_machines() -> list[Machine]:
    """Those of the cluster that is connected."""
    import ray

    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [
        Machine(int(has.get("CPU", 0)), int(has["memory"]) if "memory" in has else None, has.get("GPU", 0.0))
        for has in found
    ]


def _reason(error: Exception) -> str:
    """Our own sentence where there is one in Ray's error, which carries the box's traceback as a text."""
    ours = re.findall(r"^rap_edge\.[\w.]+Error: (.+)$", str(error), re.MULTILINE)
    return ours[-1] if ours else f"{first_line(error)}."
