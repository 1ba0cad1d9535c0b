"""The endurance script, for seconds instead of hours; docs/endurance.md has the hours."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "endurance.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the script reads /proc")
@pytest.mark.parametrize(
    "words",
    [
        ("memory", "--hours", "0.05"),
        ("memory", "--hours", "0.03", "--sink", "mp4"),
        ("memory", "--hours", "0.02", "--sink", "fragmented"),
        ("memory", "--hours", "0.02", "--sink", "live"),
        ("sessions", "--count", "60"),
        ("visitors", "--count", "24"),
        ("kill",),
        ("disk",),
        ("devices",),
    ],
    ids=" ".join,
)
def test_a_short_run_passes_and_prints_its_figures(words):
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass" in done.stdout


def test_growth_beyond_the_limit_fails(monkeypatch, capsys, tmp_path):
    import endurance
    from tiny_bundle import write_tiny_bundle

    megabytes = iter(range(10_000))
    monkeypatch.setattr(endurance, "resident_mb", lambda: float(next(megabytes)))
    assert not endurance.memory(str(write_tiny_bundle(tmp_path / "tiny")), 0.03, "none", tmp_path)
    assert "FAIL" in capsys.readouterr().out


def test_a_session_that_stays_open_fails(monkeypatch, capsys, tmp_path):
    import endurance
    from tiny_bundle import write_tiny_bundle

    files = iter(range(1000))
    monkeypatch.setattr(endurance, "handles", lambda: (next(files), 1))
    assert not endurance.sessions(str(write_tiny_bundle(tmp_path / "tiny")), 8, tmp_path)
    assert "FAIL" in capsys.readouterr().out
