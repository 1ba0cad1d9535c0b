"""Many clips on real Ray: boxes die, clips fail, runs are stopped, and what comes out is what one process makes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.fleet.clips import write_clips, write_jobs, write_sound
from helpers.fleet.processes import command, descendants, listening, named, open_files

from rap_edge.fleet.render.clip_renderer import BoxSettings, ClipRenderer
from rap_edge.fleet.render.jobs import read_jobs

pytest.importorskip("ray", reason="Ray is not installed")

PATIENCE = 300.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


class Run:
    """`rap-fleet render` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], out: Path) -> None:
        self.process, self.out = process, out

    def boxes(self) -> set[int]:
        return named(descendants(self.process.pid), "ray::MapWorker(Map(Box))")

    def videos(self) -> list[Path]:
        return sorted(self.out.rglob("*.mp4"))

    def wait_until(self, true: Callable[[], object]) -> None:
        ends = time.monotonic() + PATIENCE
        while not true():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < ends
            time.sleep(0.02)

    def end(self) -> tuple[int, str, str]:
        told, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, told, said

    def report(self) -> dict:
        return json.loads((self.out / "report.json").read_text())


@contextmanager
def running(bundle: Path, jobs: Path, out: Path, *more: str, **variables: str) -> Iterator[Run]:
    program = Path(sys.executable).parent / "rap-fleet"
    words = [program, "render", "--bundle", bundle, "--jobs", jobs, "--out", out, "--boxes", "2", *more]
    home = out.parent / "home"
    home.mkdir(exist_ok=True)
    process = subprocess.Popen(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(home), **variables},
    )
    try:
        yield Run(process, out)
    finally:
        started = descendants(process.pid)
        process.kill()
        process.wait()
        ends = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < ends:
            time.sleep(0.1)


def rays_folders(run: Run) -> set[Path]:
    """Where Ray keeps its sockets and logs."""
    told = (command(pid) for pid in named(descendants(run.process.pid), "raylet_socket_name="))
    return {Path(*Path(found[1]).parts[:3]) for line in told if (found := re.search(r"raylet_socket_name=(\S+)", line))}


def in_one_process(bundle: Path, jobs: Path, out: Path) -> dict[str, bytes]:
    """The videos that one process makes of the same jobs, by name."""
    renderer = ClipRenderer(BoxSettings(str(bundle), str(out), threads=1))
    for job in read_jobs(jobs):
        assert renderer.render(job).failure == ""
    return {path.name: path.read_bytes() for path in out.rglob("*.mp4")}


def test_two_hundred_clips_of_which_a_box_dies_are_what_one_process_makes(bundle: Path, tmp_path: Path) -> None:
    jobs = write_clips(tmp_path / "in", 200)
    with running(bundle, jobs, tmp_path / "out") as run:
        run.wait_until(lambda: len(run.videos()) >= 50)
        os.kill(min(run.boxes()), signal.SIGKILL)
        assert len(run.videos()) < 200
        # Nobody else can come, neither to Ray nor to what it says of itself.
        assert listening(descendants(run.process.pid)) <= {"0100007F", "0000000000000000FFFF00000100007F"}
        (folder,) = rays_folders(run)
        assert folder.is_dir()
        status, told, said = run.end()
    assert status == 0, told + said
    assert run.report()["clips"] == 200
    assert run.report()["failed"] == []
    assert sum(box["clips"] for box in run.report()["boxes"]) == 200
    assert "left" in said
    assert {path.name: path.read_bytes() for path in run.videos()} == in_one_process(bundle, jobs, tmp_path / "alone")
    # No part of a file, none of Ray's.
    assert {path.suffix for path in run.out.iterdir()} == {".mp4", ".json", ".jsonl"}
    assert not (tmp_path / "home" / ".ray").exists()
    assert not folder.exists()


def test_what_fails_is_told_and_what_is_done_is_not_done_again(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_clips(folder, 6)
    good = [{"audio": f"{number:03d}.wav"} for number in range(6)]
    (folder / "noise.wav").write_bytes(b"no sound")
    bad = [
        {"audio": "missing.wav"},
        {"audio": "noise.wav"},
        {"audio": "000.wav", "output": "x.mp4", "portrait": "000.wav"},
    ]
    jobs = write_jobs(folder, *good[:3], *bad, *good[3:])
    with running(bundle, jobs, tmp_path / "out") as run:
        status, told, _ = run.end()
    assert status == 1
    assert [clip["line"] for clip in run.report()["failed"]] == [4, 5, 6]
    assert "line 4, 'missing.mp4'" in told
    assert "does not exist; pass a sound file." in told
    made = {path.name: path.stat().st_mtime_ns for path in run.videos()}
    assert set(made) == {f"{number:03d}.mp4" for number in range(6)}

    # One sound is another now, one video is gone, and one of those that failed is there.
    write_sound(folder / "001.wav", 0.5, seed=99)
    (tmp_path / "out" / "002.mp4").unlink()
    write_sound(folder / "missing.wav", 0.3)
    with running(bundle, jobs, tmp_path / "out") as run:
        status, _, _ = run.end()
    assert (run.report()["clips"], run.report()["kept"], len(run.report()["failed"])) == (3, 4, 2)
    again = {path.name: path.stat().st_mtime_ns for path in run.videos()}
    assert {name for name in again if again[name] != made.get(name)} == {"001.mp4", "002.mp4", "missing.mp4"}


def test_a_clip_whose_boxes_die_again_and_again_is_given_up_and_the_others_are_made(
    bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    write_clips(folder, 8)
    write_sound(folder / "deadly.wav", 600.0)
    jobs = write_jobs(folder, {"audio": "deadly.wav"}, *({"audio": f"{number:03d}.wav"} for number in range(8)))
    killed: set[int] = set()
    with running(bundle, jobs, tmp_path / "out") as run:

        def victims() -> set[int]:
            deadly = {pid for pid in run.boxes() - killed if any("deadly.mp4" in name for name in open_files(pid))}
            for pid in deadly:
                os.kill(pid, signal.SIGKILL)
            killed.update(deadly)
            return killed

        run.wait_until(lambda: len(victims()) == 3)
        status, told, said = run.end()
    assert status == 1, told + said
    (failed,) = run.report()["failed"]
    assert failed["line"] == 1
    assert "lost 3 times" in failed["sentence"]
    assert run.report()["clips"] == 8


def test_a_run_that_is_stopped_goes_on_where_it_was(bundle: Path, tmp_path: Path) -> None:
    jobs = write_clips(tmp_path / "in", 60)
    with running(bundle, jobs, tmp_path / "out") as run:
        run.wait_until(lambda: len(run.videos()) >= 10)
        run.process.send_signal(signal.SIGTERM)
        status, _, said = run.end()
    assert status == 130
    assert said.splitlines()[-1] == (
        "rap-fleet: Stopped; finished clips stay, and the same command goes on with the others."
    )
    with running(bundle, jobs, tmp_path / "out") as run:
        assert run.end()[0] == 0
    assert run.report()["kept"] >= 1
    assert run.report()["kept"] + run.report()["clips"] == len(run.videos()) == 60
    assert {path.suffix for path in run.out.iterdir()} == {".mp4", ".json", ".jsonl"}


def test_boxes_that_cannot_be_opened_are_one_sentence(bundle: Path, tmp_path: Path) -> None:
    broken = write_tiny_bundle(tmp_path / "broken")
    (broken / "dit.onnx").write_bytes((broken / "dit.onnx").read_bytes()[:-1] + b"x")
    with running(broken, write_clips(tmp_path / "in", 2), tmp_path / "out") as run:
        status, told, said = run.end()
    assert (status, told) == (2, "")
    assert "dit.onnx" in said.splitlines()[-1], said
    assert "Traceback" not in said


CLUSTER = """
import os, sys
from rap_edge.fleet.cluster import opened_cluster

with opened_cluster(None, 3):
    import ray

    print(ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"], flush=True)
    sys.stdin.read()
"""


def test_a_cluster_that_is_there_is_joined_and_left_as_it_was(bundle: Path, tmp_path: Path) -> None:
    jobs = write_clips(tmp_path / "in", 3)
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        address, token = cluster.stdout.readline().split()
        theirs = descendants(cluster.pid)
        # It listens on loopback only, and those who join have to say that they are there too.
        joining = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        with running(bundle, jobs, tmp_path / "out", "--address", address, **joining) as run:
            assert run.end()[0] == 0
        assert len(run.videos()) == 3
        assert named(theirs, "raylet") <= descendants(cluster.pid)
        cluster.stdin.close()


def test_a_cluster_that_is_not_there_is_one_sentence_at_once(bundle: Path, tmp_path: Path) -> None:
    jobs = write_clips(tmp_path / "in", 1)
    with running(bundle, jobs, tmp_path / "out", "--address", "127.0.0.1:1") as run:
        status, told, said = run.end()
    assert (status, told) == (2, "")
    assert said.splitlines()[-1].startswith("rap-fleet: Nothing answers at '127.0.0.1:1' (Connection refused); ")
