"""The GPU benchmark's own arithmetic, on a CPU: what it measures is real, where it runs is not."""

import json
from dataclasses import replace

import pytest
import torch
from gpu import (
    Limits,
    Way,
    check,
    checked_torch,
    engine_way,
    in_precision,
    main,
    measure,
    sound_windows,
    table,
    torch_ways,
)
from helpers.bundles.small import SMALL

from rap_edge.export.parity.check_inputs import drawn_portrait, golden_inputs
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.loading import load_engines

CPU = torch.device("cpu")


@pytest.fixture
def bundle(small_bundle: str) -> Bundle:
    return Bundle.open(small_bundle)


def test_every_way_renders_the_same_chunks_and_is_timed(bundle) -> None:
    manifest, portrait = bundle.manifest, drawn_portrait(SMALL.image_size)
    ways, missing = torch_ways(lambda: in_precision(manifest, bundle.root.parent / "checkpoint"), portrait, CPU)
    ways.append(engine_way("ONNX Runtime", load_engines(bundle, threads=1), manifest, portrait))
    checked = checked_torch(in_precision(manifest, bundle.root.parent / "checkpoint"), portrait, CPU)
    windows = sound_windows(SMALL, golden_inputs(bundle)[1], 3)

    def broken(window):
        raise RuntimeError("no memory\nat all")

    ways[-1] = replace(ways[-1], step_bytes=10**6)
    ways, psnr, unusable = check([*ways, Way("broken", broken)], checked, windows)
    assert (missing, unusable) == ([], ["broken: no memory"])
    figures = measure(ways, psnr, manifest, windows, rounds=2, limits=Limits(1e12, 1e9))
    assert [item.name for item in figures] == ["PyTorch eager", "ONNX Runtime"]
    eager, ours = figures
    assert eager.share_of_bandwidth is None
    assert ours.share_of_bandwidth == pytest.approx(1 / ours.step_ms)
    assert ours.psnr > 50
    # PyTorch's own noise makes other frames.
    assert eager.psnr < 45
    for item in figures:
        assert item.rtf == pytest.approx(item.chunk_ms[0] / 1e3 / SMALL.chunk_seconds)
        assert item.fps == pytest.approx(SMALL.new_frames / item.chunk_ms[0] * 1e3)
        assert 0 < item.step_ms * SMALL.steps + item.decode_ms < item.chunk_ms[1]
        assert item.share_of_peak == pytest.approx(manifest.graphs["dit"].flops / (item.step_ms / 1e3) / 1e12)
    assert f"| ONNX Runtime | {ours.chunk_ms[0]:.1f}" in table("here", figures)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_claims_nothing(bundle, capsys) -> None:
    assert main(["--bundle", str(bundle.root)]) == 0
    assert capsys.readouterr().out.startswith("skipped")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_prints_a_table(bundle, tmp_path) -> None:
    assert main(["--bundle", str(bundle.root), "--rounds", "1", "--json", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["figures"]
