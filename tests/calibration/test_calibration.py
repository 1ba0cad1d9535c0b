"""Recording, choosing and judging, each on numbers that can be checked by hand."""

import dataclasses
import io
import json
from collections.abc import Sequence

import numpy as np
import pytest
from helpers.bundles.tiny import TINY, tiny_engines
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.bundles.tiny_causal import TINY_CAUSAL, causal_engines

from rap_edge.calibration.choose.memo import MemoEngine
from rap_edge.calibration.choose.search import Candidate, order, search
from rap_edge.calibration.choose.timing import Gain
from rap_edge.calibration.judge.gates import Gates, judge, require, speed_figure
from rap_edge.calibration.judge.quality import psnr, ssim
from rap_edge.calibration.observe.layers import Layer
from rap_edge.calibration.quantize.variants import GraphPlan
from rap_edge.calibration.record.clips import Amounts, Material, Sound, Talk, file_material
from rap_edge.calibration.record.recording import SET_NAME, open_set, record
from rap_edge.calibration.targets import CPU, TENSORRT_INT8
from rap_edge.calibration.write.ledger import Evidence, make_ledger
from rap_edge.export.parity.check_inputs import drawn_speech, to_int16
from rap_edge.export.stages import Stages
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import FileInfo, GraphInfo, Manifest
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.errors import CalibrationError
from rap_edge.runtime.outputs.wave_file import write_wave

PORTRAIT = np.full((64, 64, 3), 60, np.uint8)
SPEECH = drawn_speech(TINY.sample_rate, 3 * TINY.chunk_seconds)


def quiet() -> Stages:
    return Stages(io.StringIO())


def talk(frames: int, gauge=None, opening=None) -> Talk:
    return Talk(PORTRAIT, np.zeros(frames * TINY.samples_per_frame, np.float32), gauge, opening, "test")


def material(*sounds: Sound) -> Material:
    return Material((PORTRAIT, PORTRAIT + 9), sounds, talk(24), talk(48), "test")


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path / "tiny"))


@pytest.fixture
def recorded(bundle, tmp_path):
    sounds = (Sound("speech 0", SPEECH), Sound("silence", np.zeros_like(SPEECH)))
    return record(bundle.manifest, tiny_engines(TINY), material(*sounds), tmp_path / "set", quiet())


def test_every_level_first_and_later_chunks_speech_and_silence_and_portraits_are_recorded(recorded) -> None:
    runs = recorded.of("dit")
    assert {(e.stratum.portrait, e.stratum.sound) for e in runs} == {
        (p, s) for p in (0, 1) for s in ("speech 0", "silence")
    }
    assert {e.stratum.level for e in runs} == {1000.0, 500.0}
    assert {e.stratum.chunk for e in runs} == {0, 1, 2}
    assert len(runs) == 2 * 2 * 3 * 2
    assert len(recorded.of("vae_encoder")) == 4
    assert recorded.load(runs[0])["timestep"][0] == 1000.0


def test_carried_latents_are_in_what_later_chunks_are_given(recorded) -> None:
    runs = {(e.stratum.chunk, e.stratum.level): e for e in recorded.of("dit") if e.stratum.portrait == 0}
    latents = {key: recorded.load(entry)["latents"] for key, entry in runs.items()}
    assert not np.array_equal(latents[(0, 500.0)], latents[(1, 500.0)])


def test_what_a_causal_model_keeps_of_its_past_is_recorded_with_every_latent(tmp_path) -> None:
    engines = causal_engines()
    graphs = {name: engine.graph for name, engine in engines.items()}
    files = {f"{name}.onnx": FileInfo(1, "0" * 64) for name in graphs}
    described = {name: dataclasses.replace(graph, file=f"{name}.onnx") for name, graph in graphs.items()}
    manifest = Manifest(TINY_CAUSAL, Precision.FP32, described, files)
    sounds = (Sound("speech 0", SPEECH),)
    found = record(manifest, engines, material(*sounds), tmp_path / "set", quiet())
    chunks = len(SPEECH) // TINY_CAUSAL.chunk_samples
    latents = 2 * (1 + chunks * TINY_CAUSAL.chunk_latents)  # the portrait is the first one
    assert len(found.of("vae_decoder")) == latents
    clean = [entry for entry in found.of("dit") if entry.stratum.level == 0.0]
    assert len(clean) == latents
    known = [found.load(entry)["past_known"].sum() for entry in clean[: TINY_CAUSAL.caches.past_latents + 1]]
    assert known == list(range(TINY_CAUSAL.caches.past_latents + 1))


def test_a_set_is_identified_by_its_content(recorded, bundle) -> None:
    again = open_set(recorded.folder, bundle.manifest)
    assert again.sha256 == recorded.sha256
    fewer = dataclasses.replace(recorded, entries=recorded.entries[1:])
    assert fewer.sha256 != recorded.sha256


def test_no_sound_of_a_chunks_length_is_an_empty_set(bundle, tmp_path) -> None:
    with pytest.raises(CalibrationError, match="empty"):
        record(bundle.manifest, tiny_engines(TINY), material(Sound("speech", SPEECH[:9])), tmp_path / "x", quiet())


def test_a_set_of_another_spec_is_refused(recorded, bundle) -> None:
    other = dataclasses.replace(bundle.manifest, spec=dataclasses.replace(TINY, name="other"))
    with pytest.raises(CalibrationError, match="another spec"):
        open_set(recorded.folder, other)


def test_a_set_of_other_graphs_is_refused(recorded, bundle) -> None:
    files = dict(bundle.manifest.files)
    files["dit.onnx"] = dataclasses.replace(files["dit.onnx"], sha256="0" * 64)
    with pytest.raises(CalibrationError, match=r"'dit'.*hashes"):
        open_set(recorded.folder, dataclasses.replace(bundle.manifest, files=files))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', "\x00\xff", "[" * 99_999])
def test_an_unreadable_set_is_refused(tmp_path, bundle, content: str) -> None:
    (tmp_path / SET_NAME).write_text(content, encoding="latin-1")
    with pytest.raises(CalibrationError, match="no readable calibration set"):
        open_set(tmp_path, bundle.manifest)


def test_a_set_without_runs_is_refused(recorded, bundle) -> None:
    index = recorded.folder / SET_NAME
    index.write_text(json.dumps(json.loads(index.read_text()) | {"entries": []}))
    with pytest.raises(CalibrationError, match="is empty"):
        open_set(recorded.folder, bundle.manifest)


def test_a_path_out_of_the_set_is_refused(recorded, bundle) -> None:
    index = recorded.folder / SET_NAME
    data = json.loads(index.read_text())
    data["entries"][0]["file"] = "../secret.npz"
    index.write_text(json.dumps(data))
    with pytest.raises(CalibrationError):
        open_set(recorded.folder, bundle.manifest)


def test_a_changed_run_is_refused(recorded) -> None:
    entry = recorded.entries[0]
    path = recorded.folder / entry.file
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CalibrationError, match="changed"):
        recorded.load(entry)


def test_audio_comes_from_a_file_or_every_file_of_a_folder(tmp_path) -> None:
    for name in ("a.wav", "b.wav"):
        write_wave(tmp_path / name, to_int16(SPEECH), TINY.sample_rate)
    (tmp_path / "notes.txt").write_text("mine")
    amounts = Amounts(portraits=1, record_seconds=1.92, short_seconds=1.92, long_seconds=3.84)
    found = file_material(TINY, tmp_path, amounts)
    assert [sound.name for sound in found.sounds] == ["a.wav", "b.wav", "silence"]
    assert len(found.long.waveform) == round(3.84 * TINY.sample_rate)
    assert [s.name for s in file_material(TINY, tmp_path / "a.wav", amounts).sounds] == ["a.wav", "silence"]


def test_audio_that_cannot_be_used_is_named(tmp_path) -> None:
    amounts = Amounts(portraits=1)
    with pytest.raises(CalibrationError, match="does not exist"):
        file_material(TINY, tmp_path / "nowhere", amounts)
    with pytest.raises(CalibrationError, match="no audio file"):
        file_material(TINY, tmp_path, amounts)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(CalibrationError, match=r"broken\.wav"):
        file_material(TINY, tmp_path, amounts)
    write_wave(tmp_path / "broken.wav", to_int16(SPEECH[:100]), TINY.sample_rate)
    with pytest.raises(CalibrationError, match="one chunk takes"):
        file_material(TINY, tmp_path, amounts)


def test_an_engine_answers_the_same_question_from_memory() -> None:
    runs = []
    engines = tiny_engines(TINY, conditioner=lambda b: runs.append(1))
    execution = MemoEngine(engines["conditioner"]).prepare()
    for level in (0.0, 1.0, 0.0, 1.0):
        execution.buffers["audio_features"][...] = level
        execution.run()
    assert len(runs) == 2


def candidates(count: int) -> list[Candidate]:
    return [Candidate(f"layer {index}", seconds=1e-3, damage=float(index)) for index in range(count)]


def test_layers_that_cost_most_quality_for_their_time_are_given_up() -> None:
    cheap, dear = Candidate("cheap", 2e-3, 4.0), Candidate("dear", 1e-3, 3.0)
    assert order([dear, cheap]) == ["cheap", "dear"]
    found = search(candidates(40), lambda keys: (60.0 - len(keys), 1.0 - 0.015 * len(keys)), least_psnr=30.0)
    # 60 - n >= 30 + 1 dB of margin
    assert found.chosen == tuple(f"layer {index}" for index in range(29))
    assert [p.layers for p in found.points] == sorted({p.layers for p in found.points})
    assert {0, 40} <= {p.layers for p in found.points}


def test_all_layers_that_pay_are_kept_if_the_gate_holds() -> None:
    found = search(candidates(7), lambda keys: (40.0, 1.0 - 0.1 * len(keys)), least_psnr=30.0)
    assert len(found.chosen) == 7
    assert not found.spare


def test_layers_that_make_nothing_faster_are_left_although_the_gate_holds() -> None:
    def evaluate(keys: Sequence[str]) -> tuple[float, float]:
        return 50.0 - len(keys), max(1.0 - 0.1 * len(keys), 0.605)

    found = search(candidates(8), evaluate, least_psnr=30.0)
    assert found.chosen == tuple(f"layer {index}" for index in range(4))
    assert found.spare == tuple(f"layer {index}" for index in range(4, 8))


def test_a_search_without_a_layer_that_pays_is_refused() -> None:
    with pytest.raises(CalibrationError, match="No layer is faster"):
        search([Candidate("slow", -1e-3, 0.0)], lambda keys: (99.0, 1.0), least_psnr=30.0)


def test_a_search_in_which_no_layer_holds_the_gate_is_refused() -> None:
    with pytest.raises(CalibrationError, match="Not even the least sensitive"):
        search(candidates(9), lambda keys: (99.0 if not keys else 10.0, 1.0), least_psnr=30.0)


def moving(frames: int) -> np.ndarray:
    """A bar that goes up and down on noise, uint8 [frames, 64, 64, 3]."""
    rng = np.random.default_rng(0)
    video = np.repeat(rng.integers(80, 120, (1, 64, 64, 3), np.uint8), frames, 0)
    for index, height in enumerate(opening(frames)):
        video[index, 30 : 30 + int(20 * height), 20:40] = 200
    return video


def opening(frames: int) -> np.ndarray:
    return (0.5 + 0.5 * np.sin(np.arange(frames) / 3)).astype(np.float32)


def gauge(frames: np.ndarray) -> np.ndarray:
    return (frames[:, 30:50, 20:40, 0] > 150).mean((1, 2)).astype(np.float32)


def failed(frames: np.ndarray, reference: np.ndarray, gates: Gates | None = None) -> list[str]:
    figures = judge(frames, reference, talk(len(reference), gauge, opening(len(reference))), 25, gates or Gates())
    return [name for name, figure in figures.items() if not figure.passed]


def test_equal_frames_pass_every_gate() -> None:
    assert failed(moving(60), moving(60)) == []


def test_each_gate_fails_where_it_should() -> None:
    reference = moving(600)
    noisy = np.clip(reference + np.random.default_rng(1).normal(0, 20, reference.shape), 0, 255).astype(np.uint8)
    assert "psnr" in failed(noisy, reference)
    flat = np.broadcast_to(reference.mean((2,), keepdims=True).astype(np.uint8), reference.shape)
    assert "ssim" in failed(np.ascontiguousarray(flat), reference)
    still = reference.copy()
    still[:] = still[:1]
    assert failed(still, reference, Gates(psnr=0.0, ssim=0.0, drift=99.0)) == ["mouth_loss"]
    drifting = reference.copy()
    drifting[:300] = np.clip(drifting[:300].astype(int) + 1, 0, 255)
    drifting[300:] = np.clip(drifting[300:].astype(int) + 4, 0, 255)
    assert failed(drifting, reference) == ["drift"]
    # From 48 to 42 dB is far, but another 6 dB would still hold.
    nearly_exact = np.minimum(drifting, reference.astype(int) + 2).astype(np.uint8)
    assert failed(nearly_exact, reference) == []
    # Nor is it a fall without end to begin without any error.
    at_first_exact = np.minimum(drifting, reference.astype(int) + 1).astype(np.uint8)
    at_first_exact[:300] = reference[:300]
    assert failed(at_first_exact, reference) == []
    assert not speed_figure(0.99, Gates(), measured=True).passed


@pytest.mark.parametrize("name", ["psnr", "ssim", "mouth_loss", "drift"])
def test_a_gate_that_fails_stops_the_calibration_with_its_figure(name: str) -> None:
    figures = judge(moving(60), moving(60), talk(60, gauge, opening(60)), 25, Gates())
    require(figures)
    with pytest.raises(CalibrationError, match="fails the gate"):
        require(figures | {name: dataclasses.replace(figures[name], passed=False)})


def test_where_no_mouth_can_be_read_the_gate_says_so() -> None:
    figures = judge(moving(60), moving(60), talk(60), 25, Gates())
    assert figures["mouth_loss"].value is None
    assert "not measured" in figures["mouth_loss"].note


def test_ssim_is_the_published_formula() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (12, 11, 3), np.uint8)
    second = np.clip(first.astype(int) + rng.integers(-30, 31, first.shape), 0, 255).astype(np.uint8)
    x, y = (picture @ np.array([0.299, 0.587, 0.114]) for picture in (first, second))
    values = []
    for i in range(6):
        for j in range(5):
            a, b = x[i : i + 7, j : j + 7].ravel(), y[i : i + 7, j : j + 7].ravel()
            (var_a, cov), (_, var_b) = np.cov(a, b)
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * a.mean() * b.mean() + c1) * (2 * cov + c2)
                / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (var_a + var_b + c2))
            )  # fmt: skip
    assert ssim(first, second) == pytest.approx(np.mean(values), abs=1e-9)
    assert ssim(first, first) == pytest.approx(1.0)


def test_psnr_of_one_level_everywhere() -> None:
    black = np.zeros((2, 8, 8, 3), np.uint8)
    assert psnr(black + 1, black) == pytest.approx(20 * np.log10(255))
    with pytest.raises(CalibrationError, match="cannot be compared"):
        psnr(black, black[:1])


def layer(node: str, graph: str = "dit") -> Layer:
    return Layer(graph, node, "MatMul", "x", "y", "w", 1, 0, 4, 4)


def test_the_ledger_gives_a_reason_for_every_layer(tmp_path) -> None:
    layers = tuple(layer(f"blocks.{i}.o/MatMul_1") for i in range(4))
    portrait = layer("inlet/MatMul_1", "vae_encoder")
    info = GraphInfo("x.onnx", (), ())
    plans = {
        "dit": GraphPlan("dit", info, tmp_path, layers),
        "vae_encoder": GraphPlan("vae_encoder", info, tmp_path, (portrait,)),
    }
    gains = {
        layers[0].key: Gain(2e-3, 1e-4, 1),
        layers[1].key: Gain(-1e-3, 1e-4, 1),
        layers[2].key: Gain(1e-5, 1e-4, 6),
        layers[3].key: Gain(3e-3, 1e-4, 1),
    }
    damages, chosen = {layers[0].key: 0.1, layers[3].key: 9.0}, frozenset({layers[0].key})
    evidence = Evidence(gains, damages, chosen, why_fewer="the gate fails")
    ledger = {entry.node: entry for entry in make_ledger(plans, evidence, CPU, "int8")}
    assert [entry.decision for entry in ledger.values()] == ["int8", "fp32", "fp32", "fp32", "fp32"]
    reasons = [entry.reason for entry in ledger.values()]
    assert "Saves 2.000 ms" in reasons[0]
    assert "slower in 8 bits" in reasons[1]
    assert "not above the noise" in reasons[2]
    assert "but the gate fails" in reasons[3]
    assert "once per portrait" in reasons[4]
    spare = Evidence(gains, damages, chosen, frozenset({layers[3].key}), "the gate fails")
    assert "but no set with it was faster" in make_ledger(plans, spare, CPU, "int8")[3].reason
    modelled = make_ledger(plans, evidence, TENSORRT_INT8, "int8")
    assert "by the cost model" in modelled[0].reason
    assert not modelled[0].measured
    assert modelled[1].decision == "fp16"


def test_the_manifest_keeps_the_calibration(bundle) -> None:
    manifest = dataclasses.replace(bundle.manifest, calibration={"ledger": [{"graph": "dit"}]})
    assert Manifest.from_json(manifest.to_json()).calibration == manifest.calibration
