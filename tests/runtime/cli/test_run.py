import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.bundles.tiny import TINY
from helpers.bundles.tiny_bundle import write_png, write_tiny_bundle
from helpers.media.waves import speech, write_wav

from rap_edge.export.bench import cli as bench_cli
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME
from rap_edge.runtime.cli import run as cli
from rap_edge.runtime.loop.host_loop import ChunkLoop
from rap_edge.runtime.machine.cuda_driver import CudaDriver
from rap_edge.runtime.outputs.mp4_writer import Mp4Writer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def own_bundle(tmp_path: Path) -> Path:
    """A bundle that the test may damage."""
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


def write_float_wav(path: str, pcm: np.ndarray, rate: int = 16000) -> str:
    header = b"RIFF\0\0\0\0WAVEfmt " + np.array([16, 3 | 1 << 16, rate, rate * 4, 4 | 32 << 16], "<u4").tobytes()
    Path(path).write_bytes(header + b"data" + np.uint32(pcm.size * 4).tobytes() + pcm.astype("<f4").tobytes())
    return path


def run(bundle: Path, audio: str, *more: object) -> int:
    return cli.main(["--bundle", str(bundle), "--audio", audio, "--threads", "1", *map(str, more)])


def picture(path: str) -> np.ndarray:
    with av.open(path) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def sound(path: str) -> tuple[np.ndarray, int]:
    with av.open(path) as file:
        rate = file.streams.audio[0].rate
        return np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1).T, rate


def test_speech_becomes_a_video_with_its_sound_and_a_report(bundle: Path, capsys) -> None:
    assert run(bundle, write_wav("talk.wav", speech(3.0)), "--report", "report.json") == 0
    assert len(picture("talk.mp4")) == 75
    samples, rate = sound("talk.mp4")
    assert rate == 16000
    loud = np.flatnonzero(np.abs(samples[:, 0]) > 0.2) / rate
    assert (loud[0], loud[-1]) == pytest.approx((2.0, 2.5), abs=0.02)
    report = json.loads(Path("report.json").read_text())
    assert (report["frames"], report["audio_seconds"], report["chunks"]) == (75, 3.0, 5)
    assert report["rtf"] > 0.0
    assert report["warnings"] == []
    assert report["engine"].startswith("onnxruntime")
    assert {"audio_input", "denoise", "vae_decoder", "video_output"} <= set(report["stages"])
    shown = capsys.readouterr().out
    assert "talk.mp4" in shown
    assert "real-time factor" in shown
    assert sorted(os.listdir()) == ["report.json", "talk.mp4", "talk.wav"]


def test_a_fragmented_video_has_the_same_frames_and_sound_in_pieces_of_a_second(bundle: Path) -> None:
    write_wav("talk.wav", speech(3.0))
    assert run(bundle, "talk.wav", "-o", "plain.mp4") == 0
    assert run(bundle, "talk.wav", "-o", "pieces.mp4", "--fragmented") == 0
    assert np.array_equal(picture("plain.mp4"), picture("pieces.mp4"))
    # FFmpeg 9 leaves out what AAC padded at the end where the file states its length, which fragments cannot.
    whole, pieces = (sound(path)[0][: 3 * 16000] for path in ("plain.mp4", "pieces.mp4"))
    assert len(whole) == 3 * 16000
    assert np.array_equal(whole, pieces)
    with av.open("plain.mp4") as plain, av.open("pieces.mp4") as cut:
        assert cut.duration == pytest.approx(plain.duration, abs=1e5)
    for stream in ({"video": 0}, {"audio": 0}):
        # What is read of one stream is gone for the other.
        with av.open("plain.mp4") as plain, av.open("pieces.mp4") as cut:
            assert next(plain.decode(**stream)).time == next(cut.decode(**stream)).time
    assert Path("pieces.mp4").read_bytes().count(b"moof") >= 3


def test_the_face_moves_with_the_sound(bundle: Path) -> None:
    assert run(bundle, write_wav("talk.wav", speech(4.0))) == 0
    light = picture("talk.mp4").mean((1, 2, 3))
    slack = TINY.temporal_compression
    bright = np.flatnonzero(light > light.min() + 15)
    assert 50 - slack <= bright[0] <= 50 + slack
    assert 62 - slack <= bright[-1] <= 62 + slack


def test_the_sound_keeps_its_rate_and_channels(bundle: Path) -> None:
    pcm = np.zeros((44100, 2), np.int16)
    pcm[20000:, 0] = (8000 * np.sin(np.arange(24100) * 0.06)).astype(np.int16)
    assert run(bundle, write_wav("stereo.wav", pcm, 44100)) == 0
    samples, rate = sound("stereo.mp4")
    assert rate == 44100
    assert samples.shape[1] == 2
    assert np.abs(samples[:, 1]).max() < 0.02
    assert np.flatnonzero(np.abs(samples[:, 0]) > 0.05)[0] == pytest.approx(20000, abs=200)


@pytest.mark.parametrize(("rate", "expected"), [(8000, 8000), (192000, 48000), (37800, 48000)])
def test_low_high_and_odd_rates_are_taken(bundle: Path, rate: int, expected: int) -> None:
    assert run(bundle, write_wav("talk.wav", speech(3.0, rate), rate)) == 0
    samples, video_rate = sound("talk.mp4")
    assert video_rate == expected
    assert len(picture("talk.mp4")) == 75
    assert np.flatnonzero(np.abs(samples[:, 0]) > 0.2)[0] / video_rate == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("rate", [8000, 16000, 192000])
def test_a_single_sample_is_one_frame(bundle: Path, rate: int) -> None:
    assert run(bundle, write_wav("one.wav", np.array([9000]), rate)) == 0
    assert len(picture("one.mp4")) == 1


def test_silence_is_rendered_with_a_warning(bundle: Path, capsys) -> None:
    assert run(bundle, write_wav("quiet.wav", np.zeros(16000)), "--report", "r.json") == 0
    assert len(picture("quiet.mp4")) == 25
    (warning,) = json.loads(Path("r.json").read_text())["warnings"]
    assert "silent" in warning
    assert "silent" in capsys.readouterr().out


def test_a_small_portrait_is_used_with_a_warning_that_comes_before_the_render(bundle: Path, capsys) -> None:
    portrait = write_png(Path("small.png"), np.full((32, 32, 3), 200, np.uint8))
    assert run(bundle, write_wav("a.wav", speech(2.5)), "--portrait", portrait, "--report", "r.json") == 0
    (warning,) = json.loads(Path("r.json").read_text())["warnings"]
    assert "32 usable pixels" in warning
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [f"rap-run: loading {str(bundle)!r} ...", f"rap-run: {warning}"]
    assert picture("a.mp4").mean() > 150


def test_the_seed_and_the_steps_change_the_frames(bundle: Path) -> None:
    audio, films = write_wav("a.wav", speech(1.0)), []
    for i, more in enumerate(((), (), ("--seed", 7), ("--steps", 5))):
        assert run(bundle, audio, "-o", f"{i}.mp4", *more) == 0
        films.append(picture(f"{i}.mp4"))
    assert np.array_equal(films[0], films[1])
    assert not np.array_equal(films[0], films[2])
    assert not np.array_equal(films[0], films[3])


def test_a_graph_stands_for_its_bundle(bundle: Path) -> None:
    audio = write_wav("a.wav", speech(0.5))
    assert cli.main(["--engine", str(bundle / "dit.onnx"), "--audio", audio]) == 0
    assert len(picture("a.mp4")) == 13


def test_a_bundles_engines_are_chosen_by_name(bundle: Path, capsys) -> None:
    audio = write_wav("a.wav", speech(0.5))
    assert run(bundle, audio, "--engine", "onnxruntime") == 0
    assert len(picture("a.mp4")) == 13
    assert run(bundle, audio, "--engine", "tensorrt") == 2
    assert "has no plans of 'tensorrt'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--audio", "a.wav"], ["--selftest"]])
def test_without_a_bundle_nothing_runs(capsys, words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(words)
    assert exit_.value.code == 2
    assert "one of the arguments --bundle --engine is required" in capsys.readouterr().err


def refused(bundle: Path, audio: str, capsys, *more: object) -> str:
    """Run with an older output in place; returns the one sentence."""
    Path("out.mp4").write_bytes(b"old")
    before = sorted(os.listdir())
    assert run(bundle, audio, "-o", "out.mp4", *more) == 2
    assert Path("out.mp4").read_bytes() == b"old"
    assert sorted(os.listdir()) == before
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if not line.startswith(("rap-run: loading", "rendering", "\r"))]
    assert len(lines) == 1
    assert lines[0].startswith("rap-run: ")
    assert lines[0].endswith(".")
    return lines[0]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("missing.wav", None, "does not exist"),
        ("empty.wav", b"", "empty"),
        ("text.wav", b"this is no sound\n" * 50, "text.wav"),
        ("noise.mp3", bytes(range(256)) * 20, "noise.mp3"),
    ],
)
def test_files_without_sound_are_refused(bundle: Path, capsys, name: str, content: bytes | None, match: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert match in refused(bundle, name, capsys)


def test_a_file_without_samples_is_refused(bundle: Path, capsys) -> None:
    assert "no samples" in refused(bundle, write_wav("none.wav", np.zeros(0)), capsys)


@pytest.mark.parametrize("second", [0, 2])
def test_nan_at_the_start_or_half_way_is_refused(bundle: Path, capsys, second: int) -> None:
    pcm = np.zeros(48000)
    pcm[second * 16000 + 100] = np.nan
    assert "NaN" in refused(bundle, write_float_wav("nan.wav", pcm), capsys, "--report", "r.json")


def test_what_is_no_portrait_is_refused(bundle: Path, capsys) -> None:
    audio = write_wav("a.wav", speech(0.5))
    Path("face.txt").write_text("a face\n")
    whole = write_png(Path("whole.png"), np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    Path("cut.png").write_bytes(whole.read_bytes()[:4000])
    assert "no picture" in refused(bundle, audio, capsys, "--portrait", "face.txt")
    assert "cut off" in refused(bundle, audio, capsys, "--portrait", "cut.png")
    assert "does not exist" in refused(bundle, audio, capsys, "--portrait", "nobody.png")


@pytest.mark.parametrize("name", ["dit.onnx", "portrait.png", "audio_encoder.onnx"])
def test_a_bundle_with_a_changed_byte_is_refused(own_bundle: Path, capsys, name: str) -> None:
    data = bytearray((own_bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (own_bundle / name).write_bytes(data)
    assert "changed" in refused(own_bundle, write_wav("a.wav", speech(0.5)), capsys)


def test_a_bundle_that_lacks_a_graph_is_refused(own_bundle: Path, capsys) -> None:
    (own_bundle / "vae_decoder.onnx").unlink()
    assert "vae_decoder" in refused(own_bundle, write_wav("a.wav", speech(0.5)), capsys)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m.update(schema=99), "upgrade"),
        (lambda m: m["graphs"]["dit"].update(file="../dit.onnx"), "must be a plain path"),
        (lambda m: m["graphs"].pop("dit"), "no graph 'dit'"),
        (lambda m: m["spec"].update(fps=24), "drift"),
    ],
)
def test_a_bundle_with_a_bad_manifest_is_refused(own_bundle: Path, capsys, change, match: str) -> None:
    manifest = json.loads((own_bundle / MANIFEST_NAME).read_text())
    change(manifest)
    (own_bundle / MANIFEST_NAME).write_text(json.dumps(manifest))
    assert match in refused(own_bundle, write_wav("a.wav", speech(0.5)), capsys)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, capsys) -> None:
    assert MANIFEST_NAME in refused(tmp_path, write_wav("a.wav", speech(0.5)), capsys)


def test_a_file_that_is_no_graph_of_a_bundle_is_refused(bundle: Path, capsys) -> None:
    audio = write_wav("a.wav", speech(0.5))
    for engine in (bundle / "portrait.png", Path(audio), bundle.parent / "missing.plan"):
        assert cli.main(["--engine", str(engine), "--audio", audio]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert [line for line in lines if not line.startswith("rap-run: loading")] == lines[-1:]


def test_a_plan_that_a_bundle_does_not_have_yet_is_told_with_what_else_it_needs(
    bundle: Path, capsys, monkeypatch
) -> None:
    driver = CudaDriver(None, (), "no CUDA driver is installed")
    monkeypatch.setattr("rap_edge.runtime.engines.preflight.query_driver", lambda: driver)
    audio = write_wav("a.wav", speech(0.5))
    assert cli.main(["--engine", str(bundle / "dit.plan"), "--audio", audio]) == 2
    head, built, *others = capsys.readouterr().err.splitlines()
    assert head == f"rap-run: {1 + len(others)} things are missing:"
    assert "has not been built" in built
    assert "NVIDIA GPU" in others[0]


@pytest.mark.parametrize("more", [("--report", "missing/r.json"), ("--report", ".")])
def test_impossible_options_are_refused_before_any_work(bundle: Path, capsys, more: tuple[object, ...]) -> None:
    refused(bundle, write_wav("a.wav", speech(0.5)), capsys, *more)


BEYOND = {
    "--threads": ("0", "-1", "257", "100000", "9" * 400, "1.5", "many"),
    "--steps": ("0", "1001", "1" + "0" * 400),
    "--latency": ("0", "-1", "nan", "inf", "1e400", "61"),
    "--seed": ("-1", str(1 << 63), "x"),
    "--rate": ("0", "999", "768001"),
    "--channels": ("0", "33"),
}


@pytest.mark.parametrize(
    ("start", "options"),
    [
        (cli.main, BEYOND),
        (lambda words: cli.main(["--selftest", *words]), ["--threads"]),
        (bench_cli.main, ["--threads"]),
    ],
)
def test_numbers_of_the_command_line_have_a_lower_and_an_upper_bound(capsys, start, options) -> None:
    for option, value in ((name, value) for name in options for value in BEYOND[name]):
        with pytest.raises(SystemExit) as stopped:
            start(["--bundle", "x", f"{option}={value}"])
        assert stopped.value.code == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"argument {option}: must be a" in said
        assert len(said) < 200


@pytest.mark.parametrize("output", ["missing/out.mp4", ".", "a.wav/out.mp4", "/dev/null", "out.webm"])
def test_an_output_that_cannot_be_written_is_refused_before_the_engines_load(
    bundle: Path, capsys, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setattr(cli.Avatar, "open", lambda *_, **__: pytest.fail("engines were loaded"))
    assert run(bundle, write_wav("a.wav", speech(0.5)), "-o", output) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_input_is_never_overwritten(bundle: Path, capsys) -> None:
    audio = write_wav("clip.mp4", speech(0.5))
    before = Path(audio).read_bytes()
    assert run(bundle, audio) == 2
    assert run(bundle, audio, "-o", "x.mp4", "--report", "clip.mp4") == 2
    assert run(bundle, audio, "-o", "x.mp4", "--report", "x.mp4") == 2
    assert Path(audio).read_bytes() == before
    assert "clip.mp4" in capsys.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("option", ["-o", "--report"])
@pytest.mark.parametrize("name", ["manifest.json", "dit.onnx", "portrait.png"])
@pytest.mark.parametrize("way", ["itself", "symlink", "hard link", "another path"])
def test_a_file_of_the_bundle_is_never_an_output(own_bundle: Path, capsys, option: str, name: str, way: str) -> None:
    output = own_bundle / name
    if way == "symlink":
        output = Path("x.mp4")
        output.symlink_to(own_bundle / name)
    elif way == "hard link":
        output = Path("x.mp4")
        output.hardlink_to(own_bundle / name)
    elif way == "another path":
        output = own_bundle / ".." / "bundle" / name
    audio, before = write_wav("a.wav", speech(0.5)), contents(own_bundle)
    assert run(own_bundle, audio, option, output) == 2
    assert "another file of this run" in capsys.readouterr().err
    assert contents(own_bundle) == before


def test_the_self_tests_report_is_no_file_of_the_bundle_either(own_bundle: Path, capsys) -> None:
    before = contents(own_bundle)
    assert cli.main(["--selftest", "--bundle", str(own_bundle), "--report", str(own_bundle / "portrait.png")]) == 2
    assert "another file of this run" in capsys.readouterr().err
    assert contents(own_bundle) == before


@pytest.mark.parametrize("option", ["-o", "--report"])
def test_portrait_and_sound_are_no_outputs_through_links_either(bundle: Path, capsys, option: str) -> None:
    portrait = write_png(Path("me.png"), np.full((64, 64, 3), 200, np.uint8))
    audio = write_wav("a.wav", speech(0.5))
    for number, read in enumerate((portrait, Path(audio))):
        link, before = Path(f"{number}.mp4"), read.read_bytes()
        link.hardlink_to(read)
        assert run(bundle, audio, "--portrait", portrait, option, link) == 2
        assert link.read_bytes() == read.read_bytes() == before
    assert capsys.readouterr().err.count("another file of this run") == 2


def test_the_file_that_standard_input_reads_is_no_output(bundle: Path) -> None:
    Path("speech.mp4").write_bytes(bytes(16000))
    command = [sys.executable, "-m", "rap_edge.runtime.cli.run", "--bundle", bundle, "--audio", "-", "-o", "speech.mp4"]
    with Path("speech.mp4").open("rb") as pipe:
        done = subprocess.run(command, stdin=pipe, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "another file of this run" in done.stderr) == (2, True)
    assert Path("speech.mp4").read_bytes() == bytes(16000)


def test_a_full_disk_leaves_the_older_file(bundle: Path) -> None:
    audio = write_wav(
        "a.wav", (speech(4.0) + np.random.default_rng(1).integers(-9000, 9000, 64000)).clip(-32768, 32767)
    )
    Path("out.mp4").write_bytes(b"old")
    code = (
        "import resource, sys\n"
        "from rap_edge.runtime.cli.run import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--bundle", str(bundle), "--audio", audio, "-o", "out.mp4", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "free some space" in line
    assert "Traceback" not in done.stderr
    assert Path("out.mp4").read_bytes() == b"old"
    assert sorted(os.listdir()) == ["a.wav", "out.mp4"]


def interrupt_in(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Press Ctrl-C while the given chunk is rendered."""
    render, calls = ChunkLoop.render, []

    def interrupted(loop: ChunkLoop, *how: int) -> object:
        calls.append(loop)
        if len(calls) > chunk:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        return render(loop, *how)

    monkeypatch.setattr(ChunkLoop, "render", interrupted)


def test_ctrl_c_leaves_a_playable_video_of_what_was_rendered(
    bundle: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in(monkeypatch, 4)
    Path("talk.mp4").write_bytes(b"old")
    assert run(bundle, write_wav("talk.wav", speech(6.0)), "--report", "r.json") == 130
    assert len(picture("talk.mp4")) == 4 * TINY.new_frames
    samples, rate = sound("talk.mp4")
    assert len(samples) / rate == pytest.approx(4 * TINY.chunk_seconds, abs=0.07)
    assert np.flatnonzero(np.abs(samples[:, 0]) > 0.2)[0] / rate == pytest.approx(2.0, abs=0.02)
    assert json.loads(Path("r.json").read_text())["frames"] == 4 * TINY.new_frames
    assert "stopped" in capsys.readouterr().out
    assert sorted(os.listdir()) == ["r.json", "talk.mp4", "talk.wav"]


def test_ctrl_c_before_the_first_frame_leaves_everything_as_it_was(
    bundle: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in(monkeypatch, 0)
    Path("talk.mp4").write_bytes(b"old")
    assert run(bundle, write_wav("talk.wav", speech(2.0)), "--report", "r.json") == 130
    assert Path("talk.mp4").read_bytes() == b"old"
    assert sorted(os.listdir()) == ["talk.mp4", "talk.wav"]
    assert "nothing was written" in capsys.readouterr().err


def test_ctrl_c_during_a_write_waits_for_the_write(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Mp4Writer.write

    def pressed(writer: Mp4Writer, frames: np.ndarray, audio: np.ndarray) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        write(writer, frames, audio)

    monkeypatch.setattr(Mp4Writer, "write", pressed)
    assert run(bundle, write_wav("talk.wav", speech(4.0))) == 130
    assert len(picture("talk.mp4")) == TINY.new_frames


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_the_process_stops_on_real_signals(bundle: Path, number: int, times: int) -> None:
    audio = write_wav("talk.wav", np.random.default_rng(0).integers(-9000, 9000, 16000 * 600))
    program = "import sys; from rap_edge.runtime.cli.program import rap_run; sys.exit(rap_run())"
    command = [sys.executable, "-c", program, "--bundle", str(bundle), "--audio", audio, "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(
        path.stat().st_size > 20_000 for path in Path().glob(".talk.mp4.*.part")
    ):
        time.sleep(0.02)
    for _ in range(times):
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.endswith("rap-run: Stopped; the video so far is 'talk.mp4'.\n")
    assert "stopped early" in out
    assert 0 < len(picture("talk.mp4")) < 600 * 25
    assert sorted(os.listdir()) == ["talk.mp4", "talk.wav"]


def test_a_report_that_cannot_be_written_leaves_the_video_and_the_older_report(
    bundle: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    Path("r.json").write_text("old")
    assert run(bundle, write_wav("talk.wav", speech(0.5)), "--report", "r.json") == 2
    said = capsys.readouterr()
    assert "'r.json' cannot be written (No space left on device)" in said.err
    assert "'talk.mp4'" in said.out
    assert len(picture("talk.mp4")) == 13
    assert Path("r.json").read_text() == "old"
    assert sorted(os.listdir()) == ["r.json", "talk.mp4", "talk.wav"]


def test_memory_does_not_grow_with_the_length_of_the_audio(bundle: Path) -> None:
    peaks = []
    for seconds in (5, 120):
        audio = write_wav("talk.wav", np.random.default_rng(0).integers(-9000, 9000, (48000 * seconds, 2)), 48000)
        code = "import sys; from rap_edge.runtime.cli.run import main; sys.exit(main(sys.argv[1:]))"
        more = ["--bundle", str(bundle), "--audio", audio, "--report", "r.json", "--threads", "1"]
        subprocess.run([sys.executable, "-c", code, *more], check=True, capture_output=True)
        peaks.append(json.loads(Path("r.json").read_text())["peak_rss_mb"])
    assert peaks[1] - peaks[0] < 30
