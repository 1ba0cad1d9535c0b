"""What `rap-fleet serve` and `rap-fleet update` refuse before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.fleet.cli import main


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "set RAP_FLEET_TOKEN"),
        (["--public-url", "fleet.example"], "--public-url"),
        (["--public-url", "https://fleet.example/page"], "--public-url"),
        (["--tls-cert", "a.pem"], "--tls-key"),
        (["--box-url", "https://{node}.example"], "--box-url"),
        (["--box-url", "https://{host}:{port}"], "--box-port"),
        (["--box-url", "https://{"], "--box-url"),
        (["--boxes", "3", "--most-boxes", "2"], "fewer"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(
    bundle: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAP_FLEET_TOKEN", raising=False)
    assert main(["serve", "--bundle", str(bundle), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("rap-fleet: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["--boxes", "0"], ["--port", "0"], ["--gpu-share", "2"], ["--drain", "nan"]])
def test_numbers_out_of_bounds_are_refused(bundle: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--bundle", str(bundle), *words])
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_a_bundle_that_is_not_there_is_told_before_ray_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--bundle", str(tmp_path / "none")]) == 2
    assert "rap-export" in capsys.readouterr().err
