"""What is run on a GPU, and the pages about it, on a machine without one."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import gpu_steps
import on_a_gpu
import provenance
import pytest
from carried import Carried
from gpu_steps import ROOT, Phase, Step, first_phase, second_phase, whole
from on_a_gpu import main
from provenance import commit
from slim_fatbin import Entry, entries
from step_runner import TIMED_OUT, Outcome, run

from rap_edge.models.presets import PRESETS, RAP_SMALL
from rap_edge.runtime.machine import cuda_driver as cuda_device
from rap_edge.runtime.machine.cuda_driver import CudaDevice, CudaDriver

DRIVER = CudaDriver("13.0", (CudaDevice(0, "NVIDIA RTX 4090", "8.9", 24 << 30),), "")
NO_DRIVER = CudaDriver(None, (), "no CUDA driver is installed")


def says(text: str, status: int = 0) -> Step:
    return Step((sys.executable, "-c", f"import sys; print({text!r}); sys.exit({status})"))


@pytest.fixture
def a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(cuda_device, "query_driver", lambda: DRIVER)


@pytest.fixture
def no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(cuda_device, "query_driver", lambda: NO_DRIVER)


def test_every_spec_is_exported_built_checked_and_measured_in_that_order() -> None:
    words = [str(step) for step in whole(list(PRESETS), ["tensorrt-rtx"], ["a.so"])]
    for name in PRESETS:
        mine = [line.split()[:2] for line in words if f"build/gpu/{name}-fp16" in line and "targets" not in line]
        programs = ["rap-export", "rap-export", "rap-doctor", "rap-run", "python"]
        assert [program for program, _ in mine[:5]] == programs
    assert "rap-export --spec rap-1.3b --random-weights --precision fp16 -o build/gpu/rap-1.3b-fp16" in words
    assert not any("tensorrt" in str(step) for step in whole(["flashhead-lite"], [], ["a.so"]))


def test_every_program_takes_the_words_it_is_given(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gpu_steps, "BUNDLES", tmp_path)
    for step in whole([RAP_SMALL.name], ["tensorrt-rtx", "tensorrt"], ["a.so"]):
        words = " ".join(step.words)
        # These would begin their work, or need a GPU for their first line.
        if "pytest" not in words and "--precision fp16" not in words and "GPU" not in step.needs:
            outcome = run(step, 60, Carried(ROOT / ".gpu").environment(step))
            assert "usage:" not in outcome.output
            assert outcome.status in (0, 1 if "rap-doctor" in words else 2), outcome


class TakenError(Exception):
    """The words were taken."""


def test_every_program_of_a_phase_takes_the_words_it_is_given(monkeypatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def no_further(self, words=None, namespace=None):
        parse(self, words, namespace)
        raise TakenError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", no_further)
    tried = set()
    for phase in (first_phase(["a.so", "b.so"]), second_phase()):
        for step in (*phase.beside, *phase.steps):
            script, *words = step.words[step.words.index("python") + 1 :]
            name = (
                words.pop(0)
                if script == "-m"
                else script.removeprefix("benchmarks/").removesuffix(".py").replace("/", ".")
            )
            if name not in ("pytest", "steps.facts"):
                module = importlib.import_module(name)
                # Without this line Python runs the module to its end, and nothing has happened.
                assert 'if __name__ == "__main__":' in Path(module.__file__).read_text()
                with pytest.raises(TakenError):
                    module.main(words)
                tried.add(name)
    assert len(tried) == 7


def test_a_failure_is_on_the_page_and_the_rest_goes_on(a_gpu, monkeypatch, tmp_path, capsys) -> None:
    bar = "graphs   [####........]  17 % 485.5/2843.3 M weights"
    wanted = [says("## Card\n\n| a | b |"), says("no room", 3), says(f"{bar}\nlast")]
    monkeypatch.setattr(on_a_gpu, "whole", lambda specs, backends, libraries: wanted)
    assert main(["--specs", "nano", "-o", str(tmp_path)]) == 1
    text = (tmp_path / "nvidia-rtx-4090.md").read_text()
    assert text.startswith(
        f"# NVIDIA RTX 4090\n\nNVIDIA RTX 4090, compute capability 8.9, 24 GiB, driver for CUDA 13.0; commit {commit()}"
    )
    assert "\n\n### Card\n\n| a | b |\n\n" in text
    assert "with status 3:\n\n```\nno room\n```" in text
    assert "\n\nlast\n\n" in text
    assert "485.5" in capsys.readouterr().out


def is_gone(process: int) -> bool:
    time.sleep(0.05)
    try:
        # A process that nobody has waited for yet is still listed.
        return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_a_step_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path) -> None:
    child = tmp_path / "child"
    code = f"sleep 60 & echo $! > {child}; echo begun; wait"
    started = time.monotonic()
    outcome = run(Step(("bash", "-c", code), seconds=1), 100)
    assert time.monotonic() - started < 30
    assert (outcome.status, outcome.output) == (TIMED_OUT, "begun")
    assert any(is_gone(int(child.read_text())) for _ in range(100))


def test_what_a_step_lacks_and_what_no_longer_fits_are_lines_and_no_end(no_gpu, monkeypatch, tmp_path) -> None:
    phase = Phase(
        (),
        (
            replace(says("never"), needs=("GPU", "no-such-tool", "import no_such_module", "bash")),
            replace(says("never"), waits_for="build/never.json", seconds=1),
            says("went on"),
        ),
    )
    monkeypatch.setattr(on_a_gpu, "second_phase", lambda: phase)
    assert main(["--phase", "2", "--seconds", "100", "-o", str(tmp_path)]) == 0
    text = (tmp_path / "phase-2.md").read_text()
    assert "Left out: there is no GPU, no no-such-tool, no module no_such_module.\n" in text
    assert "Left out: 'build/never.json' was not there after 1 s." in text
    assert "\n\nwent on\n\n" in text
    assert text.startswith("# Phase 2\n\nNo GPU: no CUDA driver is installed; commit ")
    assert main(["--phase", "2", "--seconds", "5", "-o", str(tmp_path)]) == 0
    assert "Left out: 5 s are left." in (tmp_path / "phase-2.md").read_text()


def test_what_runs_beside_a_phase_says_why_it_failed_next_to_the_page(a_gpu, monkeypatch, tmp_path) -> None:
    log = tmp_path / "beside-0.log"
    phase = Phase((says("no room", 3),), (Step(("bash", "-c", f"until grep -q room {log}; do sleep 0.1; done"), 20),))
    monkeypatch.setattr(on_a_gpu, "second_phase", lambda: phase)
    assert main(["--phase", "2", "--seconds", "60", "-o", str(tmp_path)]) == 0
    assert log.read_text() == "no room\n"


def test_without_a_gpu_it_says_so_and_writes_nothing(no_gpu, tmp_path, capsys) -> None:
    assert main(["-o", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().out == "skipped: no CUDA driver is installed.\n"
    assert not (tmp_path / "page").exists()


def test_an_unknown_spec_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--specs", "nanno"])
    assert "there is no spec 'nanno'; choose among nano" in capsys.readouterr().err


def test_of_a_failure_the_last_lines_are_kept() -> None:
    outcome = run(says("\n".join(f"line {number}" for number in range(40)), 1), 60)
    assert outcome == Outcome(outcome.step, 1, outcome.seconds, "\n".join(f"line {n}" for n in range(28, 40)))


def carry(folder: Path, archive: str, files: dict[str, str], pieces: int) -> list[Path]:
    """Lay out an archive as `make gpu-prepare` does; returns its pieces."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(text.encode())
            tar.addfile(about, io.BytesIO(text.encode()))
    data = lzma.compress(packed.getvalue())
    size = -(-len(data) // pieces)
    found = []
    for part in ("a", "p1", "p2"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(pieces):
        found.append(folder / f"p{1 + number % 2}" / f"{archive}.part.{number:02}")
        found[-1].write_bytes(data[number * size : (number + 1) * size])
    listed = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in found]
    (folder / "a" / f"{archive}.sha256").write_text("".join(listed))
    return found


def test_an_archive_is_unpacked_once_its_pieces_have_come_over_several_calls(tmp_path, monkeypatch) -> None:
    folder, unpacked = tmp_path / ".gpu", tmp_path / "unpacked"
    pieces = carry(folder, "tensorrt_rtx", {"tensorrt_rtx/__init__.py": "here = True\n"}, 3)
    late = pieces[1].read_bytes()
    pieces[1].unlink()
    carried = Carried(folder, unpacked)
    assert list(carried.unpack()) == ["tensorrt_rtx: 1 of 3 pieces are not here yet"]
    for path in (pieces[0], pieces[2]):
        path.unlink()
    pieces[1].write_bytes(late)
    assert list(carried.unpack()) == ["tensorrt_rtx is unpacked"]
    assert list(carried.unpack()) == []
    monkeypatch.setattr("carried.is_here", lambda need: False)
    assert carried.has("import tensorrt_rtx")
    assert not carried.has("import onnxruntime")
    step = Step((sys.executable, "-c", "import tensorrt_rtx; print(tensorrt_rtx.here)"), 60, ("import tensorrt_rtx",))
    assert run(step, 60, carried.environment(step)).output == "True"


def test_the_commit_is_known_without_git(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert commit() == "unknown"
    (tmp_path / ".gpu" / "a").mkdir(parents=True)
    (tmp_path / ".gpu" / "a" / "commit").write_text("1234567\n")
    assert commit() == "1234567"
    monkeypatch.setenv("PATH", "")
    assert commit() == "1234567"


def test_this_repository_is_imported_where_it_is_not_installed(tmp_path) -> None:
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from pathlib import Path; from carried import Carried\n"
        "Carried(Path('none'), Path(sys.argv[2]))\n"
        "import rap_edge.runtime.spec as found; print(found.__file__)"
    )
    # Without site-packages nothing is installed; what is imported here needs none.
    words = [sys.executable, "-S", "-c", code, str(ROOT / "benchmarks"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(tmp_path / "site" / "rap_edge" / "runtime" / "spec.py"), done.stderr


def test_the_code_of_every_gpu_is_found_in_a_library() -> None:
    def entry(kind: int, capability: int, payload: bytes) -> bytes:
        return (
            struct.pack("<HHIQ", kind, 0, 64, len(payload))
            + bytes(12)
            + struct.pack("<I", capability)
            + bytes(32)
            + payload
        )

    body = entry(2, 80, b"a" * 40) + entry(2, 90, b"b" * 24)
    whole_one = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body
    lookalike = struct.pack("<IHHQ", 0xBA55ED50, 7, 16, 10)
    data = b"ELF.." + lookalike + whole_one + b"tail" + lookalike[:6]
    start = data.index(whole_one) + 16
    assert list(entries(data)) == [Entry(2, 80, start + 64, 40), Entry(2, 90, start + 64 + 40 + 64, 24)]
