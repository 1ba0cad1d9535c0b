"""The fleet without boxes: nobody is sent to a full one, and waits are as long as places are few."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fleet_simulation import PLACES, Simulation, main

BOXES = 20


def simulated(load: float, minutes: float = 10.0, **more: float):
    """So many minutes of a small fleet."""
    visit = 60.0
    return Simulation(BOXES, load * BOXES * PLACES * 3600.0 / visit, visit, **more).run(60.0 * minutes)


def test_with_places_for_all_nobody_waits() -> None:
    seen = simulated(0.5)
    assert len(seen.waits) == pytest.approx(0.5 * BOXES * PLACES * 10, rel=0.2)
    assert max(seen.waits) == 0.0
    assert seen.too_many == 0


def test_with_too_few_places_visitors_wait_and_no_box_is_over_full() -> None:
    seen = simulated(1.3)
    assert np.percentile(seen.waits, 90) > 5.0
    assert seen.too_many == 0
    # As many come as there are places for, less the time between a ticket and its visitor, or the end of a visit and
    # the news of it.
    assert len(seen.waits) == pytest.approx(BOXES * PLACES * 10, rel=0.2)


def test_visitors_of_boxes_that_die_come_again_within_seconds() -> None:
    seen = simulated(0.5, deaths_per_hour=120.0)
    assert len(seen.moved) > 10
    assert max(seen.moved) < 5.0
    assert seen.too_many == 0


def test_the_same_seed_is_the_same_hour() -> None:
    assert simulated(1.1, 2.0).waits == simulated(1.1, 2.0).waits


def test_it_prints_figures_and_draws_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name, value in {"BOXES": 10, "ARRIVALS": 1000, "FLEETS": (3, 5)}.items():
        monkeypatch.setattr(f"fleet_simulation.{name}", value)
    monkeypatch.setattr("sys.argv", ["fleet_simulation.py", "--hours", "0.01", "-o", str(tmp_path / "plot.svg")])
    main()
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["too_many"] for one in figures if "load" in one] == [0] * 4
    assert [one["boxes"] for one in figures if "boxes" in one] == [3, 5]
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
