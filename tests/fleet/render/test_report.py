"""What a run was like, for a screen and for programs."""

from __future__ import annotations

import json

import pytest

from rap_edge.fleet.render.clip_renderer import Outcome
from rap_edge.fleet.render.jobs import Job
from rap_edge.fleet.render.pipeline import Answer
from rap_edge.fleet.render.report import Tally


def jobs(count: int) -> list[Job]:
    return [Job(line, f"{line}.wav", None, f"{line}.mp4", 0) for line in range(1, count + 1)]


def test_boxes_have_a_real_time_factor_each_and_a_job_without_an_answer_has_failed() -> None:
    tally = Tally(jobs(4), kept=5)
    tally.start(threads=2)
    tally.add(Answer(Outcome(3, frames=50, video_seconds=2.0, seconds=1.0), "id of one", "left"))
    tally.add(Answer(Outcome(2, "It is no sound; pass one."), "id of one", "left"))
    tally.add(Answer(Outcome(1, warnings=("Too quiet.",), frames=25, video_seconds=1.0, seconds=2.0), "other", "right"))
    assert tally.answered == 3
    report = tally.report("build/nano-fp32", "fp32")
    figures = json.loads(report.to_json())
    assert [(box["machine"], box["clips"], box["rtf"]) for box in figures["boxes"]] == [
        ("left", 1, 0.5),
        ("right", 1, 2.0),
    ]
    assert (figures["clips"], figures["kept"], figures["frames"], figures["video_seconds"]) == (2, 5, 75, 3.0)
    assert figures["clips_per_hour"] == pytest.approx(3600 * 2 / figures["seconds"])
    assert figures["warnings"] == {"1.mp4": ["Too quiet."]}
    assert [(clip["line"], clip["sentence"][:7]) for clip in figures["failed"]] == [(2, "It is n"), (4, "Its box")]
    table = report.to_table()
    assert "2 made, 5 there already, 2 failed" in table
    assert "line 2, '2.mp4': It is no sound; pass one." in table


def test_a_screen_shows_the_first_ten_that_failed() -> None:
    tally = Tally(jobs(30), kept=0)
    for line in range(1, 31):
        tally.add(Answer(Outcome(line, "No."), "one", "here"))
    table = tally.report("b", "fp32").to_table()
    assert table.count("No.") == 10
    assert "and 20 more" in table
