"""Frames need not be square: every height and width that is a multiple of the compression."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.sessions import drain, frames_of, portrait, speech
from helpers.bundles.tiny import TINY, TINY_CLEAN
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.cli.run import main
from rap_edge.runtime.inputs.picture.portrait import load_portrait
from rap_edge.runtime.spec import ModelSpec

WIDE = dataclasses.replace(TINY, name="wide", image_size=(64, 96)).validate()


@pytest.mark.parametrize("spec", [WIDE, dataclasses.replace(TINY_CLEAN, image_size=(96, 64))], ids=["wide", "high"])
def test_a_session_gives_frames_of_any_height_and_width(tmp_path: Path, spec: ModelSpec) -> None:
    root = write_tiny_bundle(tmp_path / "bundle", spec)
    with Avatar.open(root, portrait(spec), threads=1) as avatar, avatar.session() as session:
        session.push(speech(1.0))
        frames = frames_of(drain(session))
    assert frames.shape == (25, *spec.image_size, 3)


def test_a_video_has_the_height_and_width_of_the_frames(tmp_path: Path) -> None:
    import av

    root = write_tiny_bundle(tmp_path / "bundle", WIDE)
    voice, video = Path(__file__).parents[3] / "examples" / "assets" / "speech.wav", tmp_path / "out.mp4"
    assert main(["--bundle", str(root), "--audio", str(voice), "-o", str(video)]) == 0
    with av.open(str(video)) as file:
        assert (file.streams.video[0].height, file.streams.video[0].width) == (64, 96)


def test_a_square_is_written_as_one_number_and_read_as_two() -> None:
    assert json.loads(TINY.to_json())["image_size"] == 64
    assert ModelSpec.from_json(TINY.to_json()).image_size == (64, 64)
    assert json.loads(WIDE.to_json())["image_size"] == [64, 96]
    assert ModelSpec.from_json(WIDE.to_json()) == WIDE


@pytest.mark.parametrize("resizing", ["lanczos", "bilinear"])
def test_a_portrait_is_cut_about_its_middle_to_the_form_of_the_frame(resizing) -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[:, 100:200] = 250
    high = load_portrait(picture, (192, 96), resizing=resizing)
    assert high.shape == (192, 96, 3)
    assert high.min() > 240
    wide = load_portrait(picture, (64, 192), resizing=resizing)
    assert wide[:, 70:122].min() > 240
    assert wide[:, :58].max() < 10


def test_all_of_a_picture_lies_over_grey_of_the_frames_form() -> None:
    whole = load_portrait(np.full((100, 100, 3), 250, np.uint8), (64, 128), crop="none")
    assert abs(int(whole[32, 64, 0]) - 250) <= 1
    assert abs(int(whole[32, 8, 0]) - 128) <= 1
