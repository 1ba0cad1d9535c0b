"""Whole exports of networks at test size, in both precisions and with both VAE architectures."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.bundles.exports import export
from helpers.bundles.graph_runs import plain_session, run_strictly
from helpers.bundles.small import LTX, NANO, SMALL, SMALL_CLEAN, SMALL_GUIDED, SMALL_PRO, WAN, drawn, small_networks

from rap_edge.export.capture.torch_engine import torch_engines
from rap_edge.export.cli import table
from rap_edge.export.exporter import ExportReport
from rap_edge.export.parity.compare import GATES, Case, check_graph, compare
from rap_edge.export.passes import registry
from rap_edge.models.checkpoints.own import save_networks
from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.contract import check_contract
from rap_edge.runtime.bundle.manifest import GoldenInfo
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines.onnxruntime_engine import load_engines
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.loop.pixels import to_pixels


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> tuple[Bundle, ExportReport]:
    """fp32, nano's VAE, a layer of each kind of attention."""
    folder = tmp_path_factory.mktemp("single") / "bundle"
    report = export(small_networks(SMALL, NANO), folder)
    return Bundle.open(folder), report


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> tuple[Bundle, ExportReport]:
    """fp16, LTX's VAE, clean carry."""
    folder = tmp_path_factory.mktemp("half") / "bundle"
    report = export(small_networks(SMALL_CLEAN, LTX), folder, precision=Precision.FP16, chunks=3)
    return Bundle.open(folder), report


def test_both_bundles_obey_the_contract_and_are_valid_onnx(single, half) -> None:
    for bundle, _ in (single, half):
        bundle.verify()
        check_contract(bundle.manifest)
        for graph in bundle.manifest.graphs.values():
            onnx.checker.check_model(str(bundle.path(graph.file)), full_check=True)
            plain_session(bundle.path(graph.file))


def test_the_denoiser_carries_hybrid_attention_as_a_function(single, half) -> None:
    for bundle, _ in (single, half):
        model = onnx.load(bundle.path("dit.onnx"))
        nodes = [node for node in model.graph.node if node.domain == "rap"]
        assert [node.op_type for node in nodes] == ["HybridAttention"]  # the other layer's alpha is 1
        assert [(function.domain, function.name) for function in model.functions] == [("rap", "HybridAttention")]
        values = {item.name: onnx.helper.get_attribute_value(item) for item in nodes[0].attribute}
        assert values["frames"] == bundle.manifest.spec.chunk_latents
        assert values["alpha"] == pytest.approx(0.3)


def test_graphs_name_their_nodes_after_modules_and_hold_no_paths(single) -> None:
    bundle, _ = single
    model = onnx.load(bundle.path("dit.onnx"))
    assert any(node.name.startswith("dit.blocks.1.ffn.0/") for node in model.graph.node)
    assert b"/" + b"models/dit.py" not in bundle.path("dit.onnx").read_bytes()
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


def test_the_manifest_holds_figures_provenance_and_islands(single, half) -> None:
    for bundle, report in (single, half):
        parity = bundle.manifest.parity
        assert parity["graphs"].keys() == bundle.manifest.graphs.keys() == report.graphs.keys()
        assert len(parity["rollout"]["psnr_per_chunk"]) == parity["rollout"]["chunks"]
        assert parity["rollout"]["psnr"] >= GATES[bundle.manifest.precision].rollout_psnr
        assert bundle.manifest.provenance["versions"]["torch"].startswith("2.")
        assert all(graph.flops > 0 for graph in bundle.manifest.graphs.values())
    assert single[0].manifest.islands == ()
    rules = {island.rule for island in half[0].manifest.islands}
    assert {"norm-reduction", "timestep-embedding"} <= rules
    assert all(island.reason for island in half[0].manifest.islands)


def test_half_precision_weights_take_half_the_space(single, half) -> None:
    model = onnx.load(half[0].path("vae_decoder.onnx"))
    sizes = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 0}
    for tensor in model.graph.initializer:
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += int(np.prod(tensor.dims))
    assert sizes[onnx.TensorProto.FLOAT16] > 100 * sizes[onnx.TensorProto.FLOAT]
    assert {tensor.dtype for tensor in half[0].manifest.graphs["conditioner"].outputs} == {"float16"}


def test_a_bundle_runs_in_the_runtime_and_reproduces_its_golden_frames(single, half) -> None:
    for bundle, _ in (single, half):
        golden, spec = bundle.manifest.golden, bundle.manifest.spec
        avatar = Avatar.open(bundle, threads=1)
        with np.load(bundle.path(golden.frames)) as stored:
            indices, expected = stored["indices"], stored["frames"]
        from rap_edge.export.parity.check_inputs import read_mono

        with avatar, avatar.session(seed=golden.seed) as session:
            session.push(read_mono(bundle.path(golden.audio), spec.sample_rate))
            session.finish()
            frames = np.concatenate([chunk.frames for chunk in session.chunks()])
        assert compare(expected, frames[indices]).psnr > golden.psnr - 6.0
        assert golden.psnr > 40.0


@pytest.mark.parametrize("frames", [1, 9, 17])
def test_the_encoder_takes_any_number_of_whole_latents(single, half, frames: int) -> None:
    for (bundle, _), networks in ((single, small_networks(SMALL, NANO)), (half, small_networks(SMALL_CLEAN, LTX))):
        picture = np.random.default_rng(0).integers(0, 256, (frames, 64, 64, 3)).astype(np.uint8)
        picture = picture if bundle.manifest.spec.frames_dtype == "uint8" else to_pixels(picture)
        got = plain_session(bundle.path("vae_encoder.onnx")).run(None, {"frames": picture})[0]
        execution = torch_engines(networks)["vae_encoder"].prepare(
            sizes={"frames": frames, "latents": (frames + 7) // 8}
        )
        execution.buffers["frames"][...] = picture
        execution.run()
        assert got.shape == execution.buffers["latents"].shape
        assert compare(execution.buffers["latents"], got).psnr > 45


def test_the_vae_of_ltx_exports_for_cpus_too(tmp_path) -> None:
    report = export(small_networks(SMALL_CLEAN, LTX), tmp_path / "bundle", chunks=2)
    assert report.rollout["psnr"] > 60
    for graph in Bundle.open(tmp_path / "bundle").manifest.graphs.values():
        onnx.checker.check_model(str(tmp_path / "bundle" / graph.file), full_check=True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_flashhead_pro_exports(tmp_path, precision: Precision) -> None:
    report = export(small_networks(SMALL_PRO, WAN), tmp_path / "bundle", precision=precision, chunks=2)
    assert report.rollout["psnr"] > (70 if precision == Precision.FP32 else 45)
    for graph in Bundle.open(tmp_path / "bundle").manifest.graphs.values():
        onnx.checker.check_model(str(tmp_path / "bundle" / graph.file), full_check=True)


def test_guidance_and_separate_branches_export(tmp_path) -> None:
    report = export(small_networks(SMALL_GUIDED, NANO), tmp_path / "bundle", chunks=2)
    assert report.rollout["psnr"] > 50
    assert Bundle.open(tmp_path / "bundle").manifest.graphs["dit"].inputs[0].shape[0] == 2


def test_a_broken_graph_fails_by_name_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    def breaking(model) -> int:
        if model.graph.name == "dit":
            for value in model.graph.initializers.values():
                if value.name and value.name.endswith("head.head.bias"):
                    value.const_value = ir.tensor(value.const_value.numpy() + 0.1, name=value.name)
        return 1

    monkeypatch.setattr(registry, "PASSES", {"breaking": registry.GraphPass("breaking", breaking)})
    with pytest.raises(ExportError, match=r"'dit'.*'velocity'.*dB"):
        export(small_networks(SMALL, NANO), tmp_path / "bundle", passes=("breaking",), chunks=2)
    assert list(tmp_path.iterdir()) == []


def test_the_gate_names_the_output_that_is_not_finite(single) -> None:
    bundle, _ = single
    engine = load_engines(bundle, 1)["vae_decoder"]
    shape = engine.graph.inputs[0].shape
    case = Case(
        {"latents": np.full(shape, np.nan, np.float32)},
        {"frames": np.zeros(engine.graph.outputs[0].shape, np.uint8), "magnitude": np.ones(1, np.float32)},
    )
    with pytest.raises(ExportError, match=r"'vae_decoder'.*'magnitude'.*NaN"):
        check_graph("vae_decoder", engine, [case], dataclasses.replace(GATES[Precision.FP32], frame_psnr=0.0))


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path) -> None:
    networks = small_networks(SMALL, NANO)
    with torch.no_grad():
        networks.dit.head.head.weight[0, 0] = torch.inf
    with pytest.raises(ExportError, match=r"head\.head\.weight"):
        export(networks, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_long_rollout_is_shortened_and_says_so(tmp_path) -> None:
    report = export(small_networks(SMALL, NANO), tmp_path / "bundle", budget_seconds=1e-9)
    assert report.rollout["chunks"] == 2
    assert "instead of 8" in report.rollout["note"]
    assert "instead of 8" in table(report)


def test_a_pass_that_does_not_exist_is_an_export_error(tmp_path) -> None:
    with pytest.raises(ExportError, match="faster"):
        export(small_networks(SMALL, NANO), tmp_path / "bundle", passes=("faster",))


def test_an_unfit_audio_encoder_cannot_pass_as_the_spec(tmp_path) -> None:
    networks = small_networks(SMALL, NANO)
    other = dataclasses.replace(networks, spec=dataclasses.replace(SMALL, audio_branches="separate"))
    with pytest.raises(ExportError, match="audio state"):
        export(other, tmp_path / "bundle")


def test_the_checkpoint_on_disk_exports_from_the_command_line(tmp_path, capsys) -> None:
    from rap_edge.export.cli import main

    save_networks(small_networks(SMALL, NANO), tmp_path / "checkpoint")
    target = tmp_path / "bundle"
    assert main(["--checkpoint", str(tmp_path / "checkpoint"), "-o", str(target), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bundle"] == str(target)
    assert report["graphs"]["dit"]["psnr"] > 80
    assert Bundle.open(target).manifest.provenance["checkpoint"] == str(tmp_path / "checkpoint")


def test_activations_beyond_half_precision_are_kept_in_fp32(tmp_path) -> None:
    networks = small_networks(SMALL, NANO)
    with torch.no_grad():
        networks.vae.decoder.inlet.weight *= 60000.0
    export(networks, tmp_path / "bundle", precision=Precision.FP16, chunks=2)
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.parity["largest_activations"]["vae_decoder"]["magnitude"] > 65504
    islands = {island.node for island in bundle.manifest.islands if island.rule == "activation-range"}
    assert any(node.startswith("vae.decoder.inlet/Conv") for node in islands)
    model = ir.load(bundle.path("vae_decoder.onnx"))
    feeds = {"latents": np.random.default_rng(0).standard_normal((1, *SMALL.latent_shape), np.float32)}
    strict = run_strictly(model, feeds)[0].astype(int)
    relaxed = plain_session(bundle.path("vae_decoder.onnx")).run(None, feeds)[0].astype(int)
    # Rounding every value to fp16, as a GPU does, changes the frames little; an overflow would blacken them.
    assert np.abs(strict - relaxed).max() <= 8


def test_audio_states_beyond_half_precision_are_named(tmp_path) -> None:
    networks = small_networks(SMALL, NANO)
    with torch.no_grad():
        networks.dit.blocks[0].cross_attn.v.bias += 1e5
    with pytest.raises(ExportError, match="'audio_value_00' in fp16"):
        export(networks, tmp_path / "bundle", precision=Precision.FP16, chunks=2)


def test_half_bundles_state_their_largest_activations(half) -> None:
    peaks = half[0].manifest.parity["largest_activations"]
    assert peaks.keys() == half[0].manifest.graphs.keys()
    assert all(0 < peak["magnitude"] < 65504 for peak in peaks.values())


def test_without_the_comparison_the_manifest_says_so_and_the_bundle_runs_with_a_portrait_of_ones_own(tmp_path) -> None:
    report = export(small_networks(SMALL, NANO), tmp_path / "bundle", precision=Precision.FP16, compared=False)
    bundle = Bundle.open(tmp_path / "bundle")
    bundle.verify()
    assert (bundle.manifest.parity, bundle.manifest.golden) == ({"compared": False}, GoldenInfo())
    assert table(report).endswith("not compared with PyTorch, as --no-parity asks")
    with Avatar.open(bundle.root, drawn(SMALL).portrait) as avatar, avatar.session() as session:
        session.push(drawn(SMALL).waveform(SMALL.chunk_samples))
        assert next(session.chunks()).frames.shape[0] == SMALL.new_frames
