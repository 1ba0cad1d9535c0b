import io
import json

import numpy as np
import pytest
from helpers.bundles.tiny import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.cli.progress import Progress, say
from rap_edge.runtime.reports.percentiles import Distribution
from rap_edge.runtime.reports.run_report import Report, RunMeter, StageTimer, peak_rss_mb
from rap_edge.runtime.session.chunk import Chunk

NUMBERS = st.lists(st.floats(0, 1e3), min_size=1, max_size=300)


@settings(max_examples=50, deadline=None)
@given(NUMBERS, st.floats(0, 100))
def test_percentiles_of_what_fits_are_exact(numbers: list[float], percent: float) -> None:
    distribution = Distribution(capacity=300)
    for number in numbers:
        distribution.add(number)
    assert distribution.percentile(percent) == pytest.approx(np.percentile(numbers, percent))
    assert distribution.total == pytest.approx(sum(numbers))


def test_percentiles_of_a_long_stream_are_close_and_its_memory_constant() -> None:
    distribution = Distribution(capacity=500)
    for number in range(20_000):
        distribution.add(float(number))
    assert len(distribution._held) == 500
    assert distribution.count == 20_000
    assert distribution.percentile(50) == pytest.approx(10_000, rel=0.1)
    assert distribution.percentile(95) == pytest.approx(19_000, rel=0.05)
    assert distribution.total == sum(range(20_000))


def test_nothing_has_no_percentile_to_speak_of() -> None:
    assert Distribution().percentile(95) == 0.0


def test_stages_keep_their_order_and_are_summed_in_milliseconds() -> None:
    timer = StageTimer()
    for seconds in (0.001, 0.002, 0.003):
        timer.add({"denoise": seconds, "vae_decoder": 0.01})
    times = timer.times()
    assert list(times) == ["denoise", "vae_decoder"]
    assert times["denoise"].p50_ms == pytest.approx(2.0)
    assert times["denoise"].p95_ms == pytest.approx(2.9)
    assert times["denoise"].total_ms == pytest.approx(6.0)


def meter() -> RunMeter:
    meter = RunMeter(TINY)
    frames, audio = np.empty((10, 1, 1, 3), np.uint8), np.zeros(10 * TINY.samples_per_frame, np.float32)
    for seconds, late in ((0.2, False), (0.1, False), (0.6, True)):
        meter.add_chunk(Chunk(frames, audio, pts=0.0, late=late, stats={"denoise": seconds / 2}), seconds)
    return meter


def report(**changes: object) -> Report:
    names = {"engine": "onnxruntime 1.2", "precision": "fp32", "device": "CPU", "load_seconds": 0.25, "warnings": []}
    return meter().report(**{**names, **changes})


def test_the_real_time_factor_is_rendering_time_over_audio_time() -> None:
    made = report()
    assert made.rtf == pytest.approx(0.9 / 1.2)
    assert made.rtf_p95 == pytest.approx(0.56 / TINY.chunk_seconds)
    assert (made.chunks, made.frames, made.late_chunks) == (3, 30, 1)
    assert made.audio_seconds == pytest.approx(1.2)
    assert made.load_ms == pytest.approx(250.0)


def test_a_note_is_told_once_when_it_comes_and_stands_in_the_report() -> None:
    told: list[str] = []
    meter = RunMeter(TINY, told.append)
    for notes in ((), ("The GPU is lost.",), ("The GPU is lost.",), ("The GPU is lost.", "It is back.")):
        meter.note(notes)
    assert told == ["The GPU is lost.", "It is back."]
    made = meter.report(engine="e", precision="fp32", device="d", load_seconds=0.0, warnings=["A small picture."])
    assert made.warnings == ("A small picture.", "The GPU is lost.", "It is back.")


def test_the_first_frame_is_timed_from_the_start() -> None:
    assert 0.0 < report().ttff_ms < 10_000.0


def test_a_run_without_chunks_has_a_report() -> None:
    empty = RunMeter(TINY).report(engine="e", precision="fp32", device="d", load_seconds=0.0, warnings=[])
    assert (empty.chunks, empty.rtf, empty.ttff_ms) == (0, 0.0, 0.0)
    json.loads(empty.to_json())


def test_json_holds_every_field() -> None:
    data = json.loads(report(warnings=["odd"]).to_json())
    assert set(data) == set(Report.__dataclass_fields__)
    assert data["stages"]["denoise"]["total_ms"] == pytest.approx(450.0)
    assert data["warnings"] == ["odd"]


def test_the_table_shows_the_figures_and_the_warnings() -> None:
    table = report(warnings=["the portrait is small"]).to_table()
    for text in ("0.750", "30 frames", "1 late", "denoise", "450.0", "the portrait is small", "onnxruntime 1.2"):
        assert text in table


def test_peak_memory_is_what_a_process_with_numpy_needs() -> None:
    before = peak_rss_mb()
    block = np.ones(64 << 20, np.uint8)
    assert before is not None
    assert 20 < before < 20_000
    assert peak_rss_mb() >= 64 * block.min()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_sees_one_line_that_is_redrawn() -> None:
    screen, clock = Terminal(), Clock()
    with Progress("rendering", 60.0, "s", stream=screen, clock=clock) as progress:
        for done in (6.0, 15.0, 60.0):
            clock.now += 10.0
            progress.update(done)
    lines = screen.getvalue().split("\r")
    assert screen.getvalue().count("\n") == 1
    assert "15.0/60.0 s, 0:20 elapsed, 1:00 left" in lines[2]
    assert "100 %" in lines[-1]
    assert "[" + "#" * 6 + "." * 18 + "]" in lines[2]


def test_a_terminal_is_not_flooded() -> None:
    screen, clock = Terminal(), Clock()
    progress = Progress("rendering", 1000.0, stream=screen, clock=clock)
    for done in range(1000):
        clock.now += 0.001
        progress.update(float(done))
    assert 5 <= screen.getvalue().count("\r") <= 11


def test_a_sentence_takes_the_place_of_the_bar_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    for stream, shown in ((Terminal(), "\rtoo small          \n"), (io.StringIO(), "too small\n")):
        monkeypatch.setattr("sys.stderr", stream)
        say("too small")
        assert stream.getvalue() == shown


def test_a_log_file_sees_a_line_every_few_seconds() -> None:
    log, clock = io.StringIO(), Clock()
    with Progress("rendering", 60.0, "s", stream=log, clock=clock) as progress:
        for done in range(61):
            clock.now += 1.0
            progress.update(float(done))
    assert 10 <= len(log.getvalue().splitlines()) <= 13
    assert "\r" not in log.getvalue()


def test_unknown_work_shows_no_estimate() -> None:
    screen, clock = Terminal(), Clock()
    progress = Progress("rendering", None, "s", stream=screen, clock=clock)
    clock.now += 3725.0
    progress.update(7.5)
    assert "rendering 7.5 s, 1:02:05 elapsed" in screen.getvalue()
    assert "left" not in screen.getvalue()
