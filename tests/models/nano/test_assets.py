"""The demo's portrait and speech."""

import wave
from pathlib import Path

import numpy as np

from rap_edge.models.nano import assets
from rap_edge.models.nano.data import sentences


def test_demo_assets_are_written_and_held_out(tmp_path: Path) -> None:
    assert assets.main(["--out", str(tmp_path), "--size", "256"]) == 0
    with wave.open(str(tmp_path / "speech.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        assert 7 < file.getnframes() / 16000 < 10
    assert (tmp_path / "portrait.png").stat().st_size > 10_000
    assert set(assets.SENTENCES) <= set(sentences.HELD_OUT_SENTENCES)
    assert assets.VOICE.name in sentences.HELD_OUT_VOICES
    assert not np.array_equal(assets.held_out_portrait(0, 64), assets.held_out_portrait(1, 64))
