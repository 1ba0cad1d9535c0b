"""Boxes and their threads, for machines of any kind."""

from __future__ import annotations

import pytest

from rap_edge.fleet.render.sizing import Machine, Sizing, sizing

GIB = 1 << 30


@pytest.mark.parametrize(
    ("machines", "boxes", "threads", "share", "wanted"),
    [
        # A box for every core.
        ([Machine(8, 64 * GIB)], None, None, 0.0, Sizing(8, 1)),
        ([Machine(8)], None, None, 0.0, Sizing(8, 1)),
        # Memory for three: the cores are divided among them.
        ([Machine(8, 13 * GIB)], None, None, 0.0, Sizing(3, 2)),
        # Too little for one: its loading says so.
        ([Machine(8, GIB)], None, None, 0.0, Sizing(1, 8)),
        # As asked for.
        ([Machine(8, 64 * GIB)], 2, None, 0.0, Sizing(2, 4)),
        ([Machine(8, 64 * GIB)], None, 4, 0.0, Sizing(2, 4)),
        ([Machine(2, 64 * GIB)], 5, 3, 0.0, Sizing(5, 3)),
        ([Machine(2, 64 * GIB)], 5, None, 0.0, Sizing(5, 1)),
        # A box fits on one machine.
        ([Machine(4, 64 * GIB), Machine(16, 64 * GIB)], None, None, 0.0, Sizing(20, 1)),
        ([Machine(4), Machine(4)], 1, None, 0.0, Sizing(1, 4)),
        # A machine that only leads has no cores to give.
        ([Machine(0, 8 * GIB), Machine(4, 64 * GIB)], None, None, 0.0, Sizing(4, 1)),
        # GPUs and their shares.
        ([Machine(16, 64 * GIB, 2.0)], None, None, 1.0, Sizing(2, 8)),
        ([Machine(16, 64 * GIB, 2.0)], None, None, 0.5, Sizing(4, 4)),
        ([Machine(16, 64 * GIB)], None, None, 1.0, Sizing(1, 16)),
    ],
)
def test_boxes_are_as_many_as_cores_memory_and_gpus_hold(machines, boxes, threads, share, wanted) -> None:
    assert sizing(machines, 4 * GIB, boxes, threads, share) == wanted
