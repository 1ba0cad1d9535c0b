"""The table of goals: what it asks of a talker, and what it says of one that does nothing."""

import sys

import numpy as np
import pytest
from helpers.places import ROOT

pytest.importorskip("espeakng_loader")
sys.path.insert(0, str(ROOT / "benchmarks" / "nano"))

import goal_figures
from goal_figures import FRAME_SAMPLES, Face, face_figures, life_figures, voice_figures
from goals import GOALS, Goal, table


def still(portrait: np.ndarray, waveform: np.ndarray, seed: int) -> np.ndarray:
    """A picture that never moves."""
    return np.repeat(portrait[None], len(waveform) // FRAME_SAMPLES, 0)


def test_what_misses_its_goal_is_marked() -> None:
    columns = {"old": {"voice, telephone": 0.4, "GFLOP for 0.96 s": 46.0}, "new": {"voice, telephone": 0.7}}
    lines = table(columns).splitlines()
    assert lines[0] == "| figure | goal | old | new |"
    assert "| voice, telephone | >= 0.6 | **0.40** | 0.70 |" in lines
    assert "| GFLOP for 0.96 s | <= 46.5 | 46.00 |  |" in lines
    assert Goal("x", 8, 25).reached(8.0)
    assert not Goal("x", 8, 25).reached(26.0)


def test_a_picture_that_never_moves_is_dead_and_mute_but_sharp_and_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goal_figures, "VIEWS", {"as drawn": goal_figures.VIEWS["as drawn"]})
    monkeypatch.setattr(goal_figures, "VOICES", {"espeak-ng": goal_figures.VOICES["espeak-ng"]})
    figures = life_figures(still, 1, 50, 24, 4) | face_figures(still, 1, 30) | voice_figures(still, 1, 30)
    assert figures["blinks a minute, silence"] == 0
    assert figures["head over the renderer's, speech"] < 0.01
    assert figures["seeds apart, speech"] == pytest.approx(0.0, abs=1e-3)
    assert figures["voice, espeak-ng"] == 0
    assert figures["mouth closed in a pure tone"] == 1
    assert figures["colour of iris, levels off"] == 0
    assert figures["sharpness of static parts over the portrait's"] == pytest.approx(1.0)
    named = {goal.figure for goal in GOALS}
    assert set(figures) <= named


def test_faces_are_held_out_and_the_same_every_time() -> None:
    assert np.array_equal(Face.sample(3).portrait, Face.sample(3).portrait)
    assert not np.array_equal(Face.sample(3).portrait, Face.sample(4).portrait)
