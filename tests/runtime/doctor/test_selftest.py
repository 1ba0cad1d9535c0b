import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.golden_clip import add_golden, change_manifest, packed, write_file
from helpers.bundles.tiny import TINY
from helpers.bundles.tiny_bundle import write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.golden import MAX_FRAMES, read_frames, read_golden
from rap_edge.runtime.cli import run as cli
from rap_edge.runtime.doctor.selftest import run_selftest
from rap_edge.runtime.errors import BundleError

PICTURE = (*TINY.image_size, 3)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    root = write_tiny_bundle(tmp_path / "bundle")
    add_golden(root)
    return root


def selftest(bundle: Path, *more: str) -> int:
    return cli.main(["--selftest", "--bundle", str(bundle), "--threads", "1", *more])


def test_a_bundle_that_gives_its_golden_frames_passes(bundle: Path, tmp_path: Path, capsys) -> None:
    assert selftest(bundle, "--report", str(tmp_path / "report.json")) == 0
    card = capsys.readouterr().out
    assert card.startswith("## Self-test: passed\n")
    for part in ("| model | tiny, fp32 |", "| device |", "| engine | onnxruntime", "40 dB wanted; 66.0 dB when"):
        assert part in card
    assert "| denoise |" in card
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["passed"], report["frames_compared"], report["gate"]) == (True, 5, 40.0)
    assert report["worst_psnr"] == 200.0
    assert report["run"]["rtf"] > 0.0
    assert report["run"]["stages"]["denoise"]["p95_ms"] > 0.0


def test_one_wrong_frame_among_right_ones_fails(bundle: Path, tmp_path: Path, capsys) -> None:
    clip = read_golden(Bundle.open(bundle))
    frames = clip.frames.copy()
    frames[2] = np.roll(frames[2], 8, axis=1)
    frames[2, :8] = 255
    write_file(bundle, "frames.npz", packed(frames=frames, indices=clip.indices))
    assert selftest(bundle, "--report", str(tmp_path / "report.json")) == 1
    assert capsys.readouterr().out.startswith("## Self-test: FAILED\n")
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["passed"]
    assert report["worst_psnr"] < 40.0


def test_the_seed_is_the_clips_own(bundle: Path) -> None:
    assert run_selftest(Bundle.open(bundle), threads=1).passed
    change_manifest(bundle, golden={"seed": 4})
    other = run_selftest(Bundle.open(bundle), threads=1)
    # The tiny model's picture depends on its noise a little.
    assert other.worst_psnr < 200.0


def test_the_self_test_is_found_in_the_help(capsys) -> None:
    for argv in (["--help"], ["--selftest", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            cli.main(argv)
    assert capsys.readouterr().out.count("golden clip") == 2


@pytest.mark.parametrize(
    ("golden", "sentence"),
    [
        ({"frames": None}, "has no golden frames"),
        ({"audio": None}, "has no golden audio"),
        ({"seed": None}, "has no seed"),
        ({"seed": -1}, "golden.seed must be a whole number"),
        ({"seed": True}, "golden.seed must be a whole number"),
        ({"seed": "0"}, "golden.seed must be a whole number"),
    ],
)
def test_an_unusable_clip_is_one_sentence(bundle: Path, golden: dict[str, object], sentence: str, capsys) -> None:
    change_manifest(bundle, golden=golden)
    assert selftest(bundle) == 2
    *before, said = capsys.readouterr().err.splitlines()
    assert before in ([], [f"rap-run: loading {str(bundle)!r} ..."])
    assert sentence in said


def test_a_changed_clip_is_refused(bundle: Path, capsys) -> None:
    content = (bundle / "frames.npz").read_bytes()
    (bundle / "frames.npz").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert selftest(bundle) == 2
    assert "sha256 differs" in capsys.readouterr().err


def test_frames_beyond_the_speech_are_refused(bundle: Path, capsys) -> None:
    frames = np.zeros((2, *PICTURE), np.uint8)
    write_file(bundle, "frames.npz", packed(frames=frames, indices=np.array([0, 5000])))
    assert selftest(bundle) == 2
    assert "expects frame 5000" in capsys.readouterr().err


GOOD = {"frames": np.zeros((3, *PICTURE), np.uint8), "indices": np.array([0, 4, 9])}


@pytest.mark.parametrize(
    "arrays",
    [
        {"frames": GOOD["frames"]},
        {**GOOD, "frames": GOOD["frames"].astype(np.float32)},
        {**GOOD, "frames": GOOD["frames"][:, :-1]},
        {**GOOD, "frames": GOOD["frames"][:2]},
        {**GOOD, "frames": np.asfortranarray(np.ones((3, *PICTURE), np.uint8))},
        {**GOOD, "frames": np.zeros((MAX_FRAMES + 1, *PICTURE), np.uint8)},
        {**GOOD, "indices": np.array([0, 4, 4])},
        {**GOOD, "indices": np.array([-1, 4, 5])},
        {**GOOD, "indices": np.array([0, 4, 1 << 40])},
        {**GOOD, "indices": np.array([0.0, 4.0, 9.0])},
        {**GOOD, "indices": np.array([0, 4, "9"], dtype=object)},
        {"frames": GOOD["frames"][:0], "indices": GOOD["indices"][:0]},
    ],
)
def test_frames_that_are_not_what_they_must_be_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    (tmp_path / "frames.npz").write_bytes(packed(**arrays))
    with pytest.raises(BundleError, match=r"golden frames .*; export the bundle again\."):
        read_frames((tmp_path / "frames.npz").read_bytes(), TINY)


def test_a_small_file_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "frames.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in GOOD.items():
            stream = io.BytesIO()
            np.save(stream, array)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(stream.getvalue())
                if name == "frames":
                    for _ in range(300):
                        member.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(BundleError, match="'frames' is too long"):
        read_frames(path.read_bytes(), TINY)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8), st.integers(0, 4000))
def test_a_damaged_file_is_read_as_it_was_or_refused(tmp_path_factory, place: int, new: bytes, length: int) -> None:
    content = packed(**GOOD)
    damaged = (content[:place] + new + content[place + len(new) :])[: max(length, 1)]
    path = tmp_path_factory.mktemp("damaged") / "frames.npz"
    path.write_bytes(damaged)
    try:
        frames, indices = read_frames(path.read_bytes(), TINY)
    except BundleError:
        return
    assert frames.shape == (len(indices), *PICTURE)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_golden_frames_that_numpy_would_not_have_packed_are_refused(method: int) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("indices.npy", b"")
    with pytest.raises(BundleError, match="packed as numpy packs no file"):
        read_frames(stream.getvalue(), TINY)


@pytest.mark.parametrize("header", [b"{'descr': '<i8'\0}", b"{" * 4000, b"-" * 4000, b"(((\n"])
def test_the_header_of_golden_frames_is_never_parsed_as_python(header: bytes) -> None:
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("indices.npy", npy)
    with pytest.raises(BundleError, match="'indices' is no int64 of shape"):
        read_frames(stream.getvalue(), TINY)
