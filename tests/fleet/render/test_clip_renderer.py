"""One box: a clip is whole or not there, and what is wrong with one is no matter to the next."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bundles.tiny_bundle import write_png, write_tiny_bundle
from helpers.fleet.clips import write_sound
from helpers.media.pictures import face

from rap_edge.fleet.render.clip_renderer import BoxSettings, ClipRenderer
from rap_edge.fleet.render.done import Done
from rap_edge.fleet.render.jobs import Job
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.cli.run import main as rap_run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def job(audio: Path, output: str = "clip.mp4", portrait: Path | None = None, seed: int = 3) -> Job:
    return Job(1, str(audio), None if portrait is None else str(portrait), output, seed)


def test_a_clip_is_what_rap_run_makes(bundle: Path, out: Path, tmp_path: Path, capsys) -> None:
    sound, picture = write_sound(tmp_path / "a.wav", 0.7), write_png(tmp_path / "face.png", face())
    renderer = ClipRenderer(BoxSettings(str(bundle), str(out), threads=1))
    words = ["--bundle", str(bundle), "--audio", str(sound), "--seed", "3", "--threads", "1"]
    for name, portrait, more in (("own.mp4", None, []), ("deep/er.mp4", picture, ["--portrait", str(picture)])):
        made = renderer.render(job(sound, name, portrait))
        assert (made.failure, made.frames, made.video_seconds) == ("", 18, 18 / 25)
        assert made.seconds > 0
        assert rap_run([*words, *more, "-o", str(tmp_path / "alone.mp4")]) == 0
        assert (out / name).read_bytes() == (tmp_path / "alone.mp4").read_bytes()


def test_a_clip_that_fails_leaves_nothing_and_the_next_one_is_made(bundle: Path, out: Path, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.wav", 0.3)
    (tmp_path / "noise.png").write_bytes(b"no picture")
    (tmp_path / "file").touch()
    renderer = ClipRenderer(BoxSettings(str(bundle), str(out), threads=1))
    assert "does not exist" in renderer.render(job(tmp_path / "none.wav")).failure
    assert "noise.png" in renderer.render(job(sound, portrait=tmp_path / "noise.png")).failure
    assert not list(out.rglob("*.mp4"))
    assert renderer.render(job(sound)).failure == ""
    assert "cannot be written" in renderer.render(job(sound, "clip.mp4/x.mp4")).failure
    assert [path.name for path in out.rglob("*")] == ["clip.mp4"]


def test_what_is_odd_is_told(bundle: Path, out: Path, tmp_path: Path) -> None:
    silence = tmp_path / "silence.wav"
    write_sound(silence, 0.3).write_bytes(silence.read_bytes()[:44] + bytes(9600))
    small = write_png(tmp_path / "small.png", face(20, 20))
    made = ClipRenderer(BoxSettings(str(bundle), str(out), threads=1)).render(job(silence, portrait=small))
    assert made.failure == ""
    assert [sentence.split()[1] for sentence in made.warnings] == ["portrait", "audio"]


def test_a_clip_is_done_as_long_as_nothing_that_made_it_changes(bundle: Path, out: Path, tmp_path: Path) -> None:
    settings = BoxSettings(str(bundle), str(out), threads=1)
    sound = write_sound(tmp_path / "a.wav", 0.3)
    opened, wanted = Bundle.open(bundle), job(sound)
    renderer, done = ClipRenderer(settings), Done(opened, settings)
    assert wanted not in done
    renderer.render(wanted)
    assert wanted not in done
    done.add(wanted)

    def again(steps: int | None = None) -> Done:
        return Done(opened, BoxSettings(str(bundle), str(out), threads=2, steps=steps))

    assert wanted in done
    assert Job(9, wanted.audio, None, wanted.output, wanted.seed) in again()
    assert job(sound, seed=4) not in again()
    assert wanted not in again(steps=1)
    kept = (out / "clip.mp4").read_bytes()
    (out / "clip.mp4").write_bytes(kept + b"x")
    assert wanted not in again()
    renderer.render(wanted)
    done.add(wanted)
    write_sound(sound, 0.4)
    assert wanted not in again()
    sound.unlink()
    assert wanted not in again()
