import threading
import time

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, speech
from helpers.bundles.tiny import TINY

from rap_edge.runtime.errors import AudioError, NumericalError
from rap_edge.runtime.outputs.play import play
from rap_edge.runtime.outputs.protocols import SilentSpeaker
from rap_edge.runtime.reports.run_report import RunMeter
from rap_edge.runtime.session.chunk import Mark


class Talk:
    """A source whose blocks come when the test says so; `live` as the test wants it."""

    def __init__(self, blocks, *, live: bool = False, pause: float = 0.0, channels: int = 1) -> None:
        self.rate, self.channels, self.live = TINY.sample_rate, channels, live
        self._blocks, self._pause, self._closed = blocks, pause, threading.Event()

    def __iter__(self):
        for block in self._blocks:
            if isinstance(block, Exception):
                raise block
            if isinstance(block, float):
                self._closed.wait(block)
                continue
            if self._closed.wait(self._pause):
                return
            yield np.repeat(np.asarray(block, np.float32)[:, None], self.channels, axis=1)

    def close(self) -> None:
        self._closed.set()


class Screen:
    def __init__(self, close_after: int | None = None) -> None:
        self.shown, self.marks, self._close_after = [], [], close_after
        self.threads = set()

    def show(self, frame, showing) -> None:
        assert not frame.flags.writeable
        if not self.marks:
            assert showing.mark is Mark.HELD, "the portrait comes first"
        self.shown.append((showing.pts, float(frame.mean())))
        self.marks.append(showing.mark)
        self.threads.add(threading.get_ident())

    def poll(self) -> bool:
        return self._close_after is None or len(self.shown) < self._close_after

    def close(self) -> None:
        pass


class Recorder(SilentSpeaker):
    def __init__(self, rate: int = 16000, channels: int = 1) -> None:
        super().__init__(rate, channels)
        self.sound = []

    def write(self, samples) -> None:
        super().write(samples)
        self.sound.append(samples.copy())


def cut(pcm: np.ndarray, size: int = 320) -> list[np.ndarray]:
    return [pcm[i : i + size] for i in range(0, len(pcm), size)]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "rap-edge" in thread.name]


def test_speech_from_a_pipe_is_heard_whole_and_every_frame_is_shown_with_its_sound() -> None:
    pcm, screen, speaker, meter = speech(1.5), Screen(), Recorder(), RunMeter(TINY)
    times = play(avatar(), Talk(cut(pcm, 4000)), speaker, screen, meter=meter)
    sound = np.concatenate(speaker.sound)[:, 0]
    assert np.array_equal(sound[: len(pcm) - 2], pcm[: len(sound)][: len(pcm) - 2])
    assert len({round(pts * 25) for pts, _ in screen.shown}) > 15
    assert screen.marks.count(Mark.GOOD) > 15
    assert screen.threads == {threading.get_ident()}
    assert times.av_offset_p95_ms <= 40
    report = meter.report(engine="e", precision="p", device="d", load_seconds=0.0, warnings=())
    assert report.live == times
    assert report.chunks == 3
    assert "picture to sound" in report.to_table()
    assert '"decisions": []' in report.to_json()
    assert threads() == []


def test_between_two_sentences_the_face_idles_and_the_last_word_is_heard() -> None:
    first, second = speech(0.5), speech(0.5, seed=1)
    speaker, screen = Recorder(), Screen()
    times = play(avatar(), Talk([first, 2.0, second]), speaker, screen)
    sound = np.concatenate(speaker.sound)[:, 0]
    assert np.array_equal(sound[: len(first)], first)
    assert times.filled_seconds > 0.8
    assert screen.shown[-1][0] > 2.0
    quiet = sound[len(first) : len(first) + 8000]
    assert not quiet.any()


def test_a_microphone_is_held_at_one_latency() -> None:
    times = play(avatar(), Talk(cut(speech(3.0)), live=True, pause=0.02), Recorder(), Screen())
    assert times.latency_p50_ms > 1e3 * TINY.chunk_seconds
    assert times.cut_seconds + times.filled_seconds < 3.0


def test_closing_the_window_ends_everything_at_once() -> None:
    started = time.monotonic()
    source = Talk([*cut(speech(1.0)), 60.0])
    play(avatar(), source, Recorder(), Screen(close_after=5))
    assert time.monotonic() - started < 50, "it waited for the source"
    assert threads() == []


def test_a_source_that_breaks_is_an_error_and_leaves_no_thread() -> None:
    with pytest.raises(AudioError, match="unplugged"):
        play(avatar(), Talk([speech(0.1), AudioError("unplugged")]), Recorder(), Screen())
    assert threads() == []


def test_an_engine_that_always_fails_is_an_error_and_leaves_no_thread() -> None:
    calls = []

    def poison(b) -> None:
        calls.append(1)
        b["velocity"][...] = np.nan if len(calls) > 10 else 0.0

    with pytest.raises(NumericalError):
        play(avatar(dit=poison), Talk([speech(10.0)]), Recorder(), Screen())
    assert threads() == []


def test_ctrl_c_leaves_no_thread_and_the_report() -> None:
    class Interrupting(Screen):
        def show(self, frame, showing) -> None:
            super().show(frame, showing)
            if len(self.shown) == 5:
                raise KeyboardInterrupt

    meter = RunMeter(TINY)
    with pytest.raises(KeyboardInterrupt):
        play(avatar(), Talk([*cut(speech(1.0)), 60.0]), Recorder(), Interrupting(), meter=meter)
    assert threads() == []
    assert meter.live is not None
    assert meter.live.frames >= 1


@pytest.mark.parametrize(("given", "taken"), [(1, 2), (2, 1), (2, 2)])
def test_the_sound_has_as_many_channels_and_samples_per_second_as_the_speaker(given: int, taken: int) -> None:
    speaker = Recorder(48000, taken)
    play(avatar(), Talk(cut(speech(0.7), 4000), channels=given), speaker, Screen())
    assert all(block.shape[1] == taken for block in speaker.sound)
    assert sum(map(len, speaker.sound)) / 48000 == pytest.approx(0.7, abs=0.01)


def test_a_machine_that_is_too_slow_degrades_and_says_so_while_the_sound_goes_on() -> None:
    def decode(b) -> None:
        time.sleep(1.3 * TINY.chunk_seconds)
        b["magnitude"][...] = 1.0

    pcm, speaker, screen = speech(6.0), Recorder(), Screen()
    times = play(avatar(vae_decoder=decode), Talk(cut(pcm, 4000)), speaker, screen)
    sound = np.concatenate(speaker.sound)[:, 0]
    first = sound[np.flatnonzero(sound)[0] :][: len(pcm) // 2]
    assert np.array_equal(first, pcm[: len(first)])
    assert times.late_chunks + times.dropped_chunks > 0
    assert times.held_seconds > 0.0
    assert times.decisions
    assert times.decisions[0].steps == 1
    assert Mark.HELD in screen.marks[1:]
