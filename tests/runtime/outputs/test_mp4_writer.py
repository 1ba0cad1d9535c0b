import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from helpers.bundles.tiny import TINY

from rap_edge.runtime.bundle.pending_file import PendingFile
from rap_edge.runtime.errors import OutputError
from rap_edge.runtime.outputs.mp4_muxer import STREAM, Mp4Muxer
from rap_edge.runtime.outputs.mp4_writer import AAC_RATES, Mp4Writer

SIZE, FPS = 64, 25
GREY, GREEN = (120, 110, 130), (40, 200, 80)


def clip(seconds: float, rate: int, channels: int, events: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Grey frames and silence; at each event the picture flashes green and the sound clicks."""
    samples = round(seconds * rate)
    frames = np.empty((-(-samples * FPS // rate), SIZE, SIZE, 3), np.uint8)
    frames[:] = GREY
    audio = np.zeros((samples, channels), np.float32)
    for event in events:
        frames[round(event * FPS)] = GREEN
        audio[round(event * rate) :][: max(rate // 400, 8)] = 0.9
    return frames, audio


def write(path: Path, frames: np.ndarray, audio: np.ndarray, rate: int, step: int = 24) -> Path:
    with Mp4Writer(path, SIZE, FPS, rate, audio.shape[1]) as writer:
        for start in range(0, len(frames), step):
            low, high = start * rate // FPS, (start + step) * rate // FPS
            writer.write(frames[start : start + step], audio[low:high])
    return path


def picture(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times and frames."""
    with av.open(str(path)) as file:
        decoded = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    return np.array([time for time, _ in decoded]), np.stack([frame for _, frame in decoded])


def sound(path: Path) -> tuple[float, np.ndarray]:
    """Time of the first sample, and samples [n, channels]."""
    with av.open(str(path)) as file:
        decoded = [(frame.time, frame.to_ndarray()) for frame in file.decode(audio=0)]
    return decoded[0][0], np.concatenate([samples for _, samples in decoded], axis=1).T


@pytest.mark.parametrize("rate", AAC_RATES)
def test_picture_and_sound_start_together_and_events_coincide(tmp_path: Path, rate: int) -> None:
    events = [0.4, 1.6, 2.8]
    path = write(tmp_path / "a.mp4", *clip(3.37, rate, 1, events), rate)
    times, frames = picture(path)
    start, samples = sound(path)
    assert times[0] == 0.0
    assert abs(start) < 0.5 / FPS
    flashes = times[frames[:, 32, 32, 1] > frames[:, 32, 32, 0].astype(int) + 60]
    assert flashes == pytest.approx(events, abs=1e-3)
    loud = np.flatnonzero(np.abs(samples[:, 0]) > 0.35) / rate + start
    clicks = [loud[np.abs(loud - event).argmin()] for event in events]
    assert clicks == pytest.approx(events, abs=0.005)
    assert np.abs(loud[:, None] - events).min(axis=1).max() < 0.02


@pytest.mark.parametrize(("seconds", "rate"), [(1 / 16000, 16000), (0.04, 48000), (3.37, 44100), (2.0, 8000)])
def test_the_video_is_as_long_as_its_sound_within_a_frame(tmp_path: Path, seconds: float, rate: int) -> None:
    frames, audio = clip(seconds, rate, 2, [])
    path = write(tmp_path / "a.mp4", frames, audio, rate)
    with av.open(str(path)) as file:
        lengths = [float(stream.duration * stream.time_base) for stream in file.streams]
        assert file.duration / 1e6 == pytest.approx(len(frames) / FPS, abs=1e-3)
    assert len(picture(path)[0]) == len(frames)
    assert lengths[0] == pytest.approx(len(frames) / FPS, abs=1e-3)
    assert 0 <= lengths[0] - seconds < 1 / FPS + 1e-3
    assert lengths[1] == pytest.approx(seconds, abs=1.5e-3)


def test_stereo_stays_stereo(tmp_path: Path) -> None:
    frames, audio = clip(1.0, 48000, 2, [])
    audio[:, 0] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)
    _, samples = sound(write(tmp_path / "a.mp4", frames, audio, 48000))
    assert samples[4800:43200, 0].std() == pytest.approx(audio[:, 0].std(), rel=0.05)
    assert samples[4800:43200, 1].std() < 0.01


def test_colours_survive_and_are_tagged_as_bt709(tmp_path: Path) -> None:
    frames, audio = clip(0.4, 16000, 1, [])
    frames[:, :, :32], frames[:, :32, 32:] = (200, 40, 60), (30, 60, 210)
    path = write(tmp_path / "a.mp4", frames, audio, 16000)
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        assert (context.pix_fmt, context.colorspace, context.color_primaries, context.color_trc) == ("yuv420p", 1, 1, 1)
        assert context.color_range == 1
    shown = picture(path)[1][4].astype(int)
    for y, x in ((16, 16), (16, 48), (48, 48)):
        assert np.abs(shown[y, x] - frames[0, y, x]).max() <= 5


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_another_reader_agrees_about_start_and_length(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", *clip(3.37, 48000, 1, []), 48000)
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", path]
    streams = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"]
    assert [float(stream["start_time"]) for stream in streams] == [0.0, 0.0]
    assert [float(stream["duration"]) for stream in streams] == pytest.approx([3.4, 3.37], abs=1e-3)


def test_how_the_clip_is_cut_into_writes_does_not_matter(tmp_path: Path) -> None:
    frames, audio = clip(2.0, 16000, 1, [0.5])
    one = write(tmp_path / "one.mp4", frames, audio, 16000, step=1)
    all_at_once = write(tmp_path / "all.mp4", frames, audio, 16000, step=50)
    assert np.array_equal(picture(one)[1], picture(all_at_once)[1])
    assert np.array_equal(sound(one)[1], sound(all_at_once)[1])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be held to a core here")
def test_how_many_cores_there_are_does_not_matter(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blurred = rng.integers(0, 255, (40, 40, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    written, cores = [], os.sched_getaffinity(0)
    try:
        for count in (1, len(cores)):
            os.sched_setaffinity(0, sorted(cores)[:count])
            with Mp4Writer(tmp_path / f"{count}.mp4", 256, FPS, 16_000, 1) as writer:
                for step in range(50):
                    moved = blurred[step : step + 256, step : step + 256]
                    writer.write(np.ascontiguousarray(moved)[None], np.zeros((640, 1), np.float32))
            written.append((tmp_path / f"{count}.mp4").read_bytes())
    finally:
        os.sched_setaffinity(0, cores)
    assert written[0] == written[-1]


def test_an_older_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    frames, audio = clip(0.4, 16000, 1, [])
    with Mp4Writer(path, SIZE, FPS, 16000, 1) as writer:
        writer.write(frames, audio)
        assert path.read_bytes() == b"old"
    assert len(picture(path)[0]) == 10
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with Mp4Writer(path, SIZE, FPS, 16000, 1) as writer:
            writer.write(*clip(0.4, 16000, 1, []))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_without_frames_is_not_written(tmp_path: Path) -> None:
    writer = Mp4Writer(tmp_path / "a.mp4", SIZE, FPS, 16000, 1)
    with pytest.raises(OutputError, match="no frame"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_writer_says_so(tmp_path: Path) -> None:
    clip_ = clip(0.4, 16000, 1, [])
    path = write(tmp_path / "a.mp4", *clip_, 16000)
    writer = Mp4Writer(path, SIZE, FPS, 16000, 1)
    writer.discard()
    with pytest.raises(OutputError, match="closed"):
        writer.write(*clip_)
    writer.discard()
    writer.close()
    assert len(picture(path)[0]) == 10


@pytest.mark.parametrize(
    ("frames", "audio"),
    [
        (np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 1), np.float32)),
        (np.zeros((1, SIZE, SIZE, 3), np.float32), np.zeros((1, 1), np.float32)),
        (np.zeros((1, SIZE, SIZE, 3), np.uint8), np.zeros((1, 2), np.float32)),
        (np.zeros((1, SIZE, SIZE, 3), np.uint8), np.zeros(1, np.float32)),
    ],
)
def test_what_does_not_fit_the_video_is_refused(tmp_path: Path, frames: np.ndarray, audio: np.ndarray) -> None:
    with pytest.raises(OutputError, match="fit"), Mp4Writer(tmp_path / "a.mp4", SIZE, FPS, 16000, 1) as writer:
        writer.write(frames, audio)


def test_places_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    bad = [tmp_path / "missing" / "a.mp4", tmp_path / "file" / "a.mp4", tmp_path / "folder", "/dev/null", "a\0.mp4"]
    for path in bad:
        with pytest.raises(OutputError) as caught:
            Mp4Writer(path, SIZE, FPS, 16000, 1)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(("size", "rate", "channels"), [(63, 16000, 1), (64, 44000, 1), (64, 96000, 1), (64, 16000, 3)])
def test_what_has_no_mp4_form_is_refused(tmp_path: Path, size: int, rate: int, channels: int) -> None:
    with pytest.raises(OutputError, match="form"):
        Mp4Writer(tmp_path / "a.mp4", size, FPS, rate, channels)
    assert list(tmp_path.iterdir()) == []


def test_a_link_keeps_pointing_at_the_file_that_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target.mp4", tmp_path / "link.mp4"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write(link, *clip(0.4, 16000, 1, []), 16000)
    assert link.is_symlink()
    assert len(picture(target)[0]) == 10


NOISY_WRITER = """
import os, signal, sys
import numpy as np
from rap_edge.runtime.errors import OutputError
from rap_edge.runtime.outputs.mp4_muxer import STREAM, Mp4Muxer
from rap_edge.runtime.outputs.mp4_writer import Mp4Writer

frames = np.random.default_rng(0).integers(0, 255, (25, 64, 64, 3)).astype(np.uint8)
audio = np.zeros((16000, 1), np.float32)
audio[12000:12040] = 0.9
"""


def run(body: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", NOISY_WRITER + textwrap.dedent(body), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_a_killed_process_wrote_is_playable_and_in_sync(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    body = """
    writer = Mp4Writer(sys.argv[1], 64, 25, 16000, 1)
    for _ in range(8):
        writer.write(frames, audio)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(body, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (left,) = (other for other in tmp_path.iterdir() if other != path)
    times, _ = picture(left)
    start, samples = sound(left)
    assert times[0] == 0.0
    assert len(times) >= 4 * FPS
    loud = np.flatnonzero(np.abs(samples[:, 0]) > 0.4) / 16000 + start
    assert loud[0] == pytest.approx(0.75, abs=0.005)


@pytest.mark.parametrize("limit", [20_000, 300_000])
def test_a_full_disk_is_one_sentence_and_the_older_file_stays(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    body = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    try:
        with Mp4Writer(sys.argv[1], 64, 25, 16000, 1) as writer:
            for _ in range(20):
                writer.write(frames, audio)
    except OutputError as error:
        print(error)
    """
    done = run(body, path, limit)
    assert done.stderr == ""
    assert "free some space" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_at_the_very_end_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    writer = Mp4Writer(path, SIZE, FPS, 16000, 1)
    writer.write(*clip(0.4, 16000, 1, []))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        writer.close()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_a_stream_can_be_played_from_the_start_at_any_moment_and_holds_every_frame_in_its_place(rate: int) -> None:
    file = io.BytesIO()
    muxer = Mp4Muxer(file, "stream", SIZE, FPS, rate, 1, STREAM)
    assert re.fullmatch(r'video/mp4; codecs="avc1\.[0-9a-f]{6}, mp4a\.40\.2"', muxer.mime)
    loud = 0.3 * np.random.default_rng(0).standard_normal((rate, 1)).astype(np.float32)
    for second in range(3):
        sound = loud if second == 1 else np.zeros_like(loud)
        muxer.write(np.full((FPS, SIZE, SIZE, 3), 60 + 40 * second, np.uint8), sound)
        with av.open(io.BytesIO(file.getvalue())) as part:
            shown = len(list(part.decode(video=0)))
        # What is held back is a fragment and a few blocks of AAC.
        assert FPS * (second + 1) - shown <= 4 + FPS * 4 * 1024 / rate
    muxer.finish()
    with av.open(io.BytesIO(file.getvalue())) as whole:
        times = [frame.time for frame in whole.decode(video=0)]
    assert times == pytest.approx([i / FPS for i in range(3 * FPS)])
    with av.open(io.BytesIO(file.getvalue())) as whole:
        first = next(whole.demux(audio=0))
        assert first.pts == 0, "what lies before the start makes Firefox drop pictures"
    with av.open(io.BytesIO(file.getvalue())) as whole:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in whole.decode(audio=0)])
    assert heard.size == pytest.approx(3 * rate, abs=1024)
    assert np.flatnonzero(np.abs(heard) > 0.1)[[0, -1]] == pytest.approx([rate, 2 * rate], abs=rate / 100)


def drifting(seconds: float) -> np.ndarray:
    """A textured picture that moves by little, as skin does beside a speaking mouth."""
    noise = np.random.default_rng(0).normal(0, 12, (SIZE, SIZE, 3)).astype(np.float32)
    smooth = sum(np.roll(noise, (dy, dx), (0, 1)) for dy in range(3) for dx in range(3)) / 3
    shades = np.linspace(60, 190, SIZE, dtype=np.float32)[:, None, None]
    steps = np.sin(np.arange(round(seconds * FPS)) / 9)[:, None, None, None]
    return (shades + smooth + 2 * steps).clip(0, 255).astype(np.uint8)


def pulse(frames: np.ndarray) -> float:
    """How much more than between other frames the picture changes once in a second."""
    change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
    at_seconds = np.arange(FPS, len(frames), FPS) - 1
    return float(change[at_seconds].mean() / np.delete(change, at_seconds).mean())


def keyframes(file: str | io.BytesIO) -> list[float]:
    """Times that a player can jump to."""
    with av.open(file) as opened:
        return [float(packet.pts * packet.time_base) for packet in opened.demux(video=0) if packet.is_keyframe]


def test_a_video_does_not_pulse_once_a_second(tmp_path: Path) -> None:
    frames = drifting(6.0)
    path = write(tmp_path / "a.mp4", frames, np.zeros((6 * 16000, 1), np.float32), 16000)
    assert pulse(picture(path)[1]) < 1.5


def test_a_stream_does_not_pulse_once_a_second() -> None:
    file, frames = io.BytesIO(), drifting(6.0)
    muxer = Mp4Muxer(file, "stream", SIZE, FPS, 48000, 1, STREAM)
    muxer.write(frames, np.zeros((6 * 48000, 1), np.float32))
    muxer.finish()
    with av.open(io.BytesIO(file.getvalue())) as whole:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in whole.decode(video=0)])
    assert pulse(shown) < 1.5


@pytest.mark.parametrize("fragmented", [False, True])
def test_a_player_can_jump_to_every_tenth_second(tmp_path: Path, fragmented: bool) -> None:
    path, frames = tmp_path / "a.mp4", np.tile(drifting(1.0), (21, 1, 1, 1))
    with Mp4Writer(path, SIZE, FPS, 16000, 1, fragmented=fragmented) as writer:
        for second in range(21):
            writer.write(frames[second * FPS :][:FPS], np.zeros((16000, 1), np.float32))
    assert keyframes(str(path)) == [0.0, 10.0, 20.0]
    with av.open(str(path)) as file:
        file.seek(13_000_000)
        assert next(file.decode(video=0)).time == 10.0


def boxes(path: Path) -> list[str]:
    """The kinds of the file's outer boxes, in order."""
    content, found = path.read_bytes(), []
    while content:
        found.append(content[4:8].decode())
        content = content[int.from_bytes(content[:4], "big") :]
    return found


@pytest.mark.parametrize("name", ["a.mp4", "a.M4V", "a.mov", "a", "with: colon.mp4"])
def test_the_index_is_in_front_of_what_the_suffix_says(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, *clip(2.0, 16000, 1, [0.4]), 16000)
    found = boxes(path)
    assert found.index("moov") < found.index("mdat")
    assert path.read_bytes()[8:12] == (b"qt  " if name == "a.mov" else b"isom")
    times, frames = picture(path)
    assert (len(times), times[0], sound(path)[0]) == (50, 0.0, 0.0)
    assert frames[10, 32, 32, 1] > frames[10, 32, 32, 0].astype(int) + 60
    assert [other.name for other in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.webm", "a.mkv", "a.avi", "a.wav", "a.v2"])
def test_a_suffix_that_promises_something_else_is_refused_with_those_that_are_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(OutputError, match=r"one of the suffixes \.mp4, \.m4v, \.mov\."):
        Mp4Writer(tmp_path / name, SIZE, FPS, 16000, 1)
    assert list(tmp_path.iterdir()) == []


def test_without_room_for_a_copy_the_video_is_complete_with_its_index_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    writer = Mp4Writer(path, SIZE, FPS, 16000, 1)
    writer.write(*clip(2.0, 16000, 1, []))
    put, finished = PendingFile.write, writer._file

    def full(file: PendingFile, data: bytes) -> int:
        if file is not finished:
            file._failure = "No space left on device"
        return put(file, data)

    monkeypatch.setattr(PendingFile, "write", full)
    writer.close()
    assert boxes(path)[-1] == "moov"
    assert len(picture(path)[0]) == 50
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("came", "goes"), [((16000, 1), (16000, 1)), ((44100, 2), (44100, 2)), ((96000, 6), (48000, 1))], ids=str
)
def test_a_video_for_a_source_has_its_sound_as_near_as_aac_has_it(tmp_path: Path, came, goes) -> None:
    source = SimpleNamespace(rate=came[0], channels=came[1])
    with Mp4Writer.for_source(tmp_path / "a.mp4", TINY, source) as writer:
        assert (writer.rate, writer.channels) == goes
        writer.write(np.zeros((25, *TINY.image_size, 3), np.uint8), np.zeros(goes, np.float32))
    with av.open(str(tmp_path / "a.mp4")) as file:
        stream = file.streams.audio[0]
        assert (stream.rate, stream.layout.nb_channels) == goes
