"""The endurance script, for seconds instead of hours; docs/endurance.md has the hours."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from helpers.places import ROOT

SCRIPT = ROOT / "benchmarks" / "endurance.py"


RUNS = [
    ("visitors", "--count", "24"),
    ("memory", "--hours", "0.05"),
    ("memory", "--hours", "0.03", "--sink", "mp4"),
    ("memory", "--hours", "0.02", "--sink", "fragmented"),
    ("memory", "--hours", "0.02", "--sink", "live"),
    ("sessions", "--count", "60"),
    ("kill",),
    ("disk",),
    ("devices",),
]


def run(words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def running(request) -> Iterator[Mapping[tuple[str, ...], Future[subprocess.CompletedProcess[str]]]]:
    """The runs that have been chosen, two at a time: the longest of them wait more than they compute."""
    chosen = [
        item.callspec.params["words"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec") and "words" in item.callspec.params
    ]
    with ThreadPoolExecutor(2) as pool:
        yield {words: pool.submit(run, words) for words in chosen}


@pytest.mark.skipif(sys.platform != "linux", reason="the script reads /proc")
@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_a_short_run_passes_and_prints_its_figures(words, running):
    done = running[words].result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass" in done.stdout


def test_growth_beyond_the_limit_fails(monkeypatch, capsys, tmp_path):
    import endurance
    from helpers.bundles.tiny_bundle import write_tiny_bundle

    megabytes = iter(range(10_000))
    monkeypatch.setattr(endurance, "resident_mb", lambda: float(next(megabytes)))
    assert not endurance.memory(str(write_tiny_bundle(tmp_path / "tiny")), 0.03, "none", tmp_path)
    assert "FAIL" in capsys.readouterr().out


def test_a_session_that_stays_open_fails(monkeypatch, capsys, tmp_path):
    import endurance
    from helpers.bundles.tiny_bundle import write_tiny_bundle

    files = iter(range(1000))
    monkeypatch.setattr(endurance, "handles", lambda: (next(files), 1))
    assert not endurance.sessions(str(write_tiny_bundle(tmp_path / "tiny")), 8, tmp_path)
    assert "FAIL" in capsys.readouterr().out
