import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
from helpers.bundles.tiny import TINY
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.runtime.bundle.bundle import Bundle, hash_file
from rap_edge.runtime.bundle.contract import check_contract, contract
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, EngineInfo, GraphInfo, Manifest, check_path
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.errors import BundleError, RapEdgeError


def onnx_file(name: str) -> bytes:
    """The smallest ONNX model: a graph with a name."""
    graph = b"\x12" + bytes([len(name)]) + name.encode()
    return b"\x3a" + bytes([len(graph)]) + graph


def manifest(root: Path) -> Manifest:
    graphs = {}
    for name, signature in contract(TINY, "float32").items():
        (root / f"{name}.onnx").write_bytes(onnx_file(name))
        graphs[name] = GraphInfo(f"{name}.onnx", *signature)
    files = {graph.file: hash_file(root / graph.file) for graph in graphs.values()}
    plan = EngineInfo("dit.onnx", "tensorrt-rtx", "1.7", "linux-x86_64", ("8.9",), "p", "0" * 64, {"fused": 2})
    return Manifest(spec=TINY, precision=Precision.FP32, graphs=graphs, files=files, engines={"dit": (plan,)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / MANIFEST_NAME).write_text(manifest(tmp_path).to_json())
    return tmp_path


def edit(folder: Path, change) -> None:
    data = json.loads((folder / MANIFEST_NAME).read_text())
    change(data)
    (folder / MANIFEST_NAME).write_text(json.dumps(data))


def test_a_manifest_survives_the_round_trip(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.manifest == manifest(folder)
    check_contract(bundle.manifest)
    bundle.verify()


def test_a_changed_byte_is_found(folder: Path) -> None:
    (folder / "dit.onnx").write_bytes(onnx_file("dIt"))
    with pytest.raises(BundleError, match=r"dit\.onnx.*changed"):
        Bundle.open(folder).verify()


def test_a_shorter_file_is_found(folder: Path) -> None:
    (folder / "dit.onnx").write_bytes(b"d")
    with pytest.raises(BundleError, match="1 bytes instead of 7"):
        Bundle.open(folder).verify()


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "dit.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks 'dit\.onnx'"):
        Bundle.open(folder).verify()


def test_a_missing_graph_is_named(folder: Path) -> None:
    edit(folder, lambda data: data["graphs"].pop("vae_decoder"))
    with pytest.raises(BundleError, match="vae_decoder"):
        Bundle.open(folder)


def test_a_newer_schema_asks_for_an_upgrade(folder: Path) -> None:
    edit(folder, lambda data: data.update(schema=99))
    with pytest.raises(BundleError, match="upgrade rap-edge"):
        Bundle.open(folder)


@pytest.mark.parametrize("path", ["../dit.onnx", "/etc/passwd", "a/../../b", "a\\b", "c:x", "", "a//b", "./a", "a\0"])
def test_a_path_that_leaves_the_bundle_is_refused(folder: Path, path: str) -> None:
    with pytest.raises(BundleError, match="plain path"):
        check_path(path)
    edit(folder, lambda data: data["graphs"]["dit"].update(file=path))
    with pytest.raises(BundleError):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("files", "dit.onnx", "bytes"), 10**400, "files.dit.onnx.bytes must be a whole number"),
        (("files", "dit.onnx", "bytes"), -1, "files.dit.onnx.bytes must be a whole number"),
        (("files", "dit.onnx", "sha256"), "0" * 63, "files.dit.onnx.sha256 must be a sha256"),
        (("graphs", "dit", "flops"), 1e308, "graphs.dit.flops must be a whole number"),
        (("graphs", "dit", "inputs", 0, "shape"), [1 << 20, 1 << 20], "shape must have at most 17179869184 elements"),
        (("graphs", "dit", "inputs", 0, "shape"), [1] * 9, "shape must have at most 8 entries"),
        (("graphs", "dit", "inputs", 0, "shape", 0), 0, "shape[0] must be a whole number from 1"),
        (("graphs", "dit", "inputs", 0, "dtype"), "float128", "dtype must be one of float32"),
        (("engines", "dit", 0, "platform"), "linux\x1b[2J", "platform must have no control characters"),
        (("engines", "dit", 0, "version"), "1" * 5000, "version must be at most 64 characters long"),
        (("engines", "dit", 0, "compute_capabilities"), ["8.9"] * 65, "compute_capabilities must have at most 64"),
        (("engines", "dit", 0, "activation_bytes"), 1 << 70, "activation_bytes must be a whole number"),
        (("engines", "dit", 0, "evidence", "fused"), 10**400, "evidence has a value that must be a number"),
        (("golden", "seed"), 1 << 63, "golden.seed must be a whole number"),
        (("golden", "psnr"), 1e300, "golden.psnr must be a number from -1000 to 1000 dB"),
        (("golden", "audio"), "../speech.wav", "golden.audio must be a plain path"),
        (("calibration", "ledger"), [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]], "calibration must have at most 16 levels"),
        (("calibration", "ledger"), [0] * (1 << 18), "calibration must hold at most 262144 values"),
        (("provenance", "torch"), "2\r\n", "provenance has a value that must have no control characters"),
        (("parity", "x" * 5000), 1, "parity has a value that must be at most 4096 characters"),
        (("islands",), [{"graph": "dit", "node": "n", "rule": "r"}], "in islands[0] the key 'reason' is missing"),
        (("precision",), "fp4", "precision must be one of fp32, fp16, int8, fp8, not 'fp4'"),
    ],
)
def test_a_value_outside_its_bounds_is_named_by_its_place(
    folder: Path, place: tuple[str | int, ...], value: object, named: str
) -> None:
    def change(data) -> None:
        for key in place[:-1]:
            data = data[key]
        data[place[-1]] = value

    edit(folder, change)
    with pytest.raises(BundleError) as error:
        Bundle.open(folder)
    assert named in str(error.value)


def test_what_later_versions_add_is_ignored(folder: Path) -> None:
    edit(folder, lambda data: data["graphs"]["dit"].update(colour="blue"))
    assert Bundle.open(folder).manifest == manifest(folder)


def test_a_link_that_leaves_the_bundle_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "dit.onnx"
    outside.write_bytes(onnx_file("dit"))
    (folder / "dit.onnx").unlink()
    (folder / "dit.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(folder).verify()


def test_a_file_without_a_hash_is_refused(folder: Path) -> None:
    edit(folder, lambda data: data["files"].pop("dit.onnx"))
    with pytest.raises(BundleError, match=r"dit\.onnx"):
        Bundle.open(folder)


def test_a_graph_that_breaks_the_contract_is_named(folder: Path) -> None:
    edit(folder, lambda data: data["graphs"]["dit"]["inputs"][0].update(shape=[1, 4, 9, 2, 2]))
    with pytest.raises(BundleError, match=r"'dit' has input 'latents'"):
        check_contract(Bundle.open(folder).manifest)


def test_a_missing_manifest_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no readable manifest"):
        Bundle.open(tmp_path)


def test_the_bundle_of_an_engine_file_is_found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle, inside = Bundle.containing(folder / "dit.onnx")
    assert (bundle.root, inside) == (folder, "dit.onnx")
    stray = tmp_path_factory.mktemp("stray") / "dit.plan"
    stray.write_bytes(b"plan")
    with pytest.raises(BundleError, match="no bundle"):
        Bundle.containing(stray)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "loop"])
def test_a_name_that_no_file_can_have_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BundleError, match="is not a file"):
        Bundle.containing(tmp_path / name)
    with pytest.raises(BundleError, match="no readable manifest"):
        Bundle.open(tmp_path / name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(data=st.data())
def test_a_manifest_with_any_value_replaced_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = json.loads(manifest(tmp_path_factory.mktemp("bundle")).to_json())
    node, parent, key = whole, None, None
    for _ in range(data.draw(st.integers(1, 6))):
        if not isinstance(node, dict | list) or not node:
            break
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        parent, key = node, data.draw(st.sampled_from(keys))
        node = node[key]
    parent[key] = data.draw(JSON)
    with contextlib.suppress(RapEdgeError):
        assert isinstance(Manifest.from_json(json.dumps(whole)), Manifest)


@given(st.text())
def test_any_text_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(text)


def test_nan_in_the_figures_is_refused_at_writing(folder: Path) -> None:
    broken = dataclasses.replace(Bundle.open(folder).manifest, parity={"psnr": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.to_json()
