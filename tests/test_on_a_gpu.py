"""What is run on a GPU, and the page about it, on a machine without one."""

from __future__ import annotations

import sys

import on_a_gpu
import pytest
from on_a_gpu import Outcome, Step, main, run, steps
from provenance import commit

from rap_edge.runtime.cuda_device import CudaDevice, CudaDriver
from rap_edge.runtime.spec import NANO, PRESETS

DRIVER = CudaDriver("13.0", (CudaDevice(0, "NVIDIA RTX 4090", "8.9", 24 << 30),), "")


def says(text: str, status: int = 0) -> Step:
    return Step((sys.executable, "-c", f"import sys; print({text!r}); sys.exit({status})"))


def test_every_spec_is_exported_built_checked_and_measured_in_that_order() -> None:
    words = [str(step) for step in steps(list(PRESETS), ["tensorrt-rtx"])]
    for name in PRESETS:
        mine = [line.split()[:2] for line in words if f"build/gpu/{name}-fp16" in line and "targets" not in line]
        programs = ["rap-export", "rap-export", "rap-doctor", "rap-run", "python"]
        assert [program for program, _ in mine[:5]] == programs
    assert "rap-export --spec rap-1.3b --random-weights --precision fp16 -o build/gpu/rap-1.3b-fp16" in words
    assert not any("tensorrt" in str(step) for step in steps(["flashhead-lite"], []))


def test_every_program_takes_the_words_it_is_given(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(on_a_gpu, "BUNDLES", tmp_path)
    for step in steps([NANO.name], ["tensorrt-rtx", "tensorrt"]):
        words = " ".join(step.words)
        # These two would begin their work.
        if "pytest" not in words and "--precision fp16" not in words:
            outcome = run(step)
            assert "usage:" not in outcome.output
            assert outcome.status in (0, 1 if "rap-doctor" in words else 2), outcome


def test_a_failure_is_on_the_page_and_the_rest_goes_on(monkeypatch, tmp_path, capsys) -> None:
    bar = "graphs   [####........]  17 % 485.5/2843.3 M weights"
    wanted = [says("## Card\n\n| a | b |"), says("no room", 3), says(f"{bar}\nlast")]
    monkeypatch.setattr(on_a_gpu, "steps", lambda specs, backends: wanted)
    monkeypatch.setattr(on_a_gpu, "query_driver", lambda: DRIVER)
    assert main(["--specs", "nano", "-o", str(tmp_path)]) == 1
    text = (tmp_path / "nvidia-rtx-4090.md").read_text()
    assert text.startswith(
        f"# NVIDIA RTX 4090\n\nCompute capability 8.9, 24 GiB, driver for CUDA 13.0; commit {commit()}"
    )
    assert "\n\n### Card\n\n| a | b |\n\n" in text
    assert "with status 3:\n\n```\nno room\n```" in text
    assert text.endswith("\n\nlast\n")
    assert "485.5" in capsys.readouterr().out


def test_without_a_gpu_it_says_so_and_writes_nothing(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(on_a_gpu, "query_driver", lambda: CudaDriver(None, (), "no CUDA driver is installed"))
    assert main(["-o", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().out == "skipped: no CUDA driver is installed.\n"
    assert not (tmp_path / "page").exists()


def test_an_unknown_spec_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--specs", "nanno"])
    assert "there is no spec 'nanno'; choose among nano" in capsys.readouterr().err


def test_of_a_failure_the_last_lines_are_kept() -> None:
    outcome = run(says("\n".join(f"line {number}" for number in range(40)), 1))
    assert outcome == Outcome(outcome.step, 1, outcome.seconds, "\n".join(f"line {n}" for n in range(28, 40)))
